//! Builds the Kubernetes programs from the Go module `tests/kube`, once for each set of inputs, into the user's cache. The build is locked
//! against a second one, done aside and renamed into place whole, so that a folder that is there is complete.

use super::{cache, doctor, repository};
use crate::run;
use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program names that the multi-call binary answers to.
const PROGRAMS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"];
/// What the binary is made from.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
/// Go's settings: a static binary, the Go that was checked and no other, dependencies as locked, caches that can be removed.
const SETTINGS: [(&str, &str); 3] =
    [("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly -modcacherw -trimpath")];
/// How much of the key names the folder, in hexadecimal digits.
const KEY_DIGITS: usize = 16;

/// The folder with the programs, if a build of these very inputs is there. `go` is what `go version` says.
///
/// # Errors
/// When the sources cannot be read.
pub fn built(go: &str) -> Result<Option<PathBuf>> {
    let folder = shelf()?.join(key(&inputs(go)?));
    Ok(folder.is_dir().then_some(folder))
}

/// Whether [`build`] has nothing left to do.
///
/// # Errors
/// When Go is not there, or the sources cannot be read.
pub fn is_built() -> Result<bool> {
    Ok(built(&go_version()?)?.is_some())
}

fn go_version() -> Result<String> {
    doctor::first_line("go", &["version"]).ok_or_else(|| anyhow!("go is not in PATH"))
}

/// The folder with the programs, built now if it is not there.
///
/// # Errors
/// When the build fails, with its last words.
pub fn build() -> Result<PathBuf> {
    let go = go_version()?;
    if let Some(folder) = built(&go)? {
        return Ok(folder);
    }
    let (shelf, key) = (shelf()?, key(&inputs(&go)?));
    fs::create_dir_all(&shelf).with_context(|| format!("cannot make {}", shelf.display()))?;
    let lock = File::create(shelf.join("lock"))?;
    // Another build of the same takes minutes; when it is done there is nothing left to do.
    lock.lock().context("cannot lock the Kubernetes build")?;
    if let Some(folder) = built(&go)? {
        return Ok(folder);
    }
    let (aside, folder) = (shelf.join(format!("unfinished-{key}")), shelf.join(&key));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    compile(&aside)?;
    fs::rename(&aside, &folder)?;
    Ok(folder)
}

fn compile(aside: &Path) -> Result<()> {
    let cache = cache::folder()?;
    let mut go = Command::new("go");
    go.current_dir(sources())
        .envs(SETTINGS)
        .env("GOCACHE", cache.join("go-build"))
        .env("GOMODCACHE", cache.join("go-mod"));
    go.args(["build", "-ldflags", &linker_flags(&version()?), "-o"]).arg(aside.join("kube")).arg(".");
    run::run(&mut go).context("Kubernetes does not build")?;
    for program in PROGRAMS {
        symlink("kube", aside.join(program))?;
    }
    Ok(())
}

/// The Kubernetes version that go.mod asks for, like `v1.36.3`.
///
/// # Errors
/// When go.mod names none.
pub fn version() -> Result<String> {
    let go_mod = fs::read_to_string(sources().join("go.mod")).context("cannot read tests/kube/go.mod")?;
    required_version(&go_mod).ok_or_else(|| anyhow!("tests/kube/go.mod requires no k8s.io/kubernetes"))
}

fn required_version(go_mod: &str) -> Option<String> {
    let required = go_mod.lines().map(|line| line.trim_start_matches("require").trim());
    required
        .filter_map(|line| line.strip_prefix("k8s.io/kubernetes "))
        .next()
        .map(|rest| rest.split_whitespace().next().unwrap_or(rest).to_owned())
}

/// Without a version stamped in, the components report v0.0.0 and refuse one another.
fn linker_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let stamps = [
        ("gitVersion", version),
        ("gitMajor", numbers.next().unwrap_or_default()),
        ("gitMinor", numbers.next().unwrap_or_default()),
        ("gitTreeState", "clean"),
    ];
    stamps.iter().fold("-s -w".to_owned(), |flags, (name, value)| {
        flags + &format!(" -X k8s.io/component-base/version.{name}={value}")
    })
}

/// All that decides what the build gives: each input's name and content.
fn inputs(go: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut inputs =
        vec![("go".to_owned(), go.as_bytes().to_vec()), ("flags".to_owned(), linker_flags(&version()?).into_bytes())];
    inputs.extend(SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())));
    for source in SOURCES {
        let content = fs::read(sources().join(source)).with_context(|| format!("cannot read tests/kube/{source}"))?;
        inputs.push((source.to_owned(), content));
    }
    Ok(inputs)
}

/// A name for a set of inputs: lengths go in too, so that no two sets run together into the same bytes.
fn key(inputs: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, content) in inputs {
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..KEY_DIGITS].to_owned()
}

fn sources() -> PathBuf {
    repository().join("tests/kube")
}

fn shelf() -> Result<PathBuf> {
    Ok(cache::folder()?.join("kubernetes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_input_changes_the_key_and_nothing_else_does() {
        let base = key(&set(&[("a", "1"), ("b", "2")]));
        assert_eq!(base, key(&set(&[("a", "1"), ("b", "2")])));
        assert_eq!(base.len(), KEY_DIGITS);
        for other in [&[("a", "1"), ("b", "3")][..], &[("a", "1"), ("c", "2")], &[("a", "1")], &[("a", "1b 1\n2")]] {
            assert_ne!(base, key(&set(other)), "{other:?}");
        }
    }

    #[test]
    fn the_toolchain_and_every_source_are_inputs() {
        let names: Vec<String> = inputs("go version go1.26.8").unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["go", "flags", "CGO_ENABLED", "GOTOOLCHAIN", "GOFLAGS", "go.mod", "go.sum", "main.go"]);
    }

    #[test]
    fn the_version_is_what_go_mod_requires() {
        for (go_mod, expect) in [
            ("require (\n\tk8s.io/kubectl v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)", Some("v1.36.3")),
            ("require k8s.io/kubernetes v1.31.14 // indirect", Some("v1.31.14")),
            ("module x", None),
        ] {
            assert_eq!(required_version(go_mod).as_deref(), expect);
        }
        assert!(linker_flags("v1.36.3").contains("version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36"));
    }
}
