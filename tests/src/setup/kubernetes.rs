//! Builds the Kubernetes programs from the Go module `tests/kube`, once for each set of inputs, into the user's cache.

use super::shelf::{self, Inputs};
use super::{go, repository};
use crate::run;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The program names that the multi-call binary answers to.
const PROGRAMS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"];
/// What the binary is made from.
const SOURCES: [&str; 3] = ["go.mod", "go.sum", "main.go"];
/// Its place in the cache.
const SHELF: &str = "kubernetes";

/// The folder with the programs, if a build of these very inputs is there. `go` is what `go version` says.
///
/// # Errors
/// When the sources cannot be read.
pub fn built(go: &str) -> Result<Option<PathBuf>> {
    shelf::built(SHELF, &inputs(go)?)
}

/// Whether [`build`] has nothing left to do.
///
/// # Errors
/// When Go is not there, or the sources cannot be read.
pub fn is_built() -> Result<bool> {
    Ok(built(&go::version()?)?.is_some())
}

/// The folder with the programs, built now if it is not there.
///
/// # Errors
/// When the build fails, with its last words.
pub fn build() -> Result<PathBuf> {
    shelf::build(SHELF, &inputs(&go::version()?)?, compile)
}

fn compile(aside: &Path) -> Result<()> {
    let mut go = go::command()?;
    go.current_dir(sources());
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
fn inputs(go: &str) -> Result<Inputs> {
    let mut inputs = go::inputs(go);
    inputs.insert(1, ("flags".to_owned(), linker_flags(&version()?).into_bytes()));
    for source in SOURCES {
        let content = fs::read(sources().join(source)).with_context(|| format!("cannot read tests/kube/{source}"))?;
        inputs.push((source.to_owned(), content));
    }
    Ok(inputs)
}

fn sources() -> PathBuf {
    repository().join("tests/kube")
}

#[cfg(test)]
mod tests {
    use super::*;

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
