//! Builds the Kubernetes programs from the Go module `lab/kube`, once for each set of inputs, into
//! the user's cache. There are two versions from the same source: the newest that the lab supports,
//! and the oldest that FerroLB supports.

use super::build_cache::{self, Inputs};
use super::{go, repository};
use crate::run;
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use ferrolb_lab_launcher::first_run::KUBERNETES_CACHE;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Names of the programs that the multi-call binary contains.
const PROGRAMS: [&str; 5] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl"];
/// Source of the binary of a lab without kubelets; `node/main.go` is that of a kubeadm machine.
const SOURCE: &str = "main.go";
/// Version of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum KubernetesVersion {
    /// Newest version, the default of all labs.
    #[default]
    #[value(name = "1.36")]
    Newest,
    /// Oldest version that FerroLB supports (docs/install/manifests.md), without kubelet, kubeadm.
    #[value(name = "1.31")]
    Oldest,
}

impl KubernetesVersion {
    /// Returns the module file that pins the version.
    const fn module_file(self) -> &'static str {
        match self {
            Self::Newest => "go.mod",
            Self::Oldest => "go-1.31.mod",
        }
    }

    /// Returns the full version, such as `v1.36.3`.
    ///
    /// # Errors
    /// If the module file does not require `k8s.io/kubernetes`.
    pub fn name(self) -> Result<String> {
        let path = sources().join(self.module_file());
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        required_version(&text)
            .ok_or_else(|| anyhow!("{} requires no k8s.io/kubernetes", path.display()))
    }

    /// Returns the directory with the programs, if the cache contains a build of the current
    /// inputs. `go` is the output of `go version`.
    ///
    /// # Errors
    /// If the sources cannot be read.
    pub fn built(self, go: &str) -> Result<Option<PathBuf>> {
        build_cache::find(KUBERNETES_CACHE, &self.inputs(go)?)
    }

    /// Returns whether the cache already contains the programs that [`Self::build`] builds.
    ///
    /// # Errors
    /// If Go does not exist, or the sources cannot be read.
    pub fn is_built(self) -> Result<bool> {
        Ok(self.built(&go::version()?)?.is_some())
    }

    /// Returns the directory with the programs, and builds them if they are missing.
    ///
    /// # Errors
    /// If the build fails, with the end of its output.
    pub fn build(self) -> Result<PathBuf> {
        build_cache::build(KUBERNETES_CACHE, &self.inputs(&go::version()?)?, |folder| {
            self.compile(".", &folder.join("kube"))?;
            Ok(PROGRAMS.iter().try_for_each(|program| symlink("kube", folder.join(program)))?)
        })
    }

    /// Builds a package of the module into one program.
    pub(super) fn compile(self, package: &str, program: &Path) -> Result<()> {
        let mut go = go::command()?;
        let (module_file, flags) =
            (format!("-modfile={}", self.module_file()), linker_flags(&self.name()?));
        go.current_dir(sources())
            .args(["build", &module_file, "-ldflags", &flags, "-o"])
            .arg(program)
            .arg(package);
        run::run(&mut go).context("Kubernetes does not build")?;
        Ok(())
    }

    /// Returns all inputs of the build: name and content of each.
    fn inputs(self, go: &str) -> Result<Inputs> {
        let mut inputs = self.inputs_of_module(go)?;
        inputs.push((
            SOURCE.to_owned(),
            fs::read(sources().join(SOURCE)).context("cannot read lab/kube/main.go")?,
        ));
        Ok(inputs)
    }

    /// Returns the inputs of any package of the module, except the package itself.
    pub(super) fn inputs_of_module(self, go: &str) -> Result<Inputs> {
        let mut inputs = go::inputs(go);
        inputs.insert(1, ("flags".to_owned(), linker_flags(&self.name()?).into_bytes()));
        for source in [self.module_file().to_owned(), self.module_file().replace(".mod", ".sum")] {
            let content = fs::read(sources().join(&source))
                .with_context(|| format!("cannot read lab/kube/{source}"))?;
            inputs.push((source, content));
        }
        Ok(inputs)
    }
}

/// Returns the directory with the sources of Kubernetes in Go's module cache.
pub(super) fn module() -> Result<PathBuf> {
    let mut go = go::command()?;
    go.current_dir(sources()).args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]);
    Ok(run::run(&mut go)?.trim().into())
}

fn required_version(go_mod: &str) -> Option<String> {
    let required = go_mod.lines().map(|line| line.trim_start_matches("require").trim());
    required
        .filter_map(|line| line.strip_prefix("k8s.io/kubernetes "))
        .next()
        .map(|rest| rest.split_whitespace().next().unwrap_or(rest).to_owned())
}

/// Returns linker flags that set the version. Without them the components report v0.0.0 and reject
/// one another.
fn linker_flags(version: &str) -> String {
    let mut numbers = version.trim_start_matches('v').split('.');
    let variables = [
        ("gitVersion", version),
        ("gitMajor", numbers.next().unwrap_or_default()),
        ("gitMinor", numbers.next().unwrap_or_default()),
        ("gitTreeState", "clean"),
    ];
    variables.iter().fold("-s -w".to_owned(), |flags, (name, value)| {
        flags + &format!(" -X k8s.io/component-base/version.{name}={value}")
    })
}

pub(super) fn sources() -> PathBuf {
    repository().join("lab/kube")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_and_every_source_are_inputs() {
        for (version, files) in [
            (KubernetesVersion::Newest, ["go.mod", "go.sum"]),
            (KubernetesVersion::Oldest, ["go-1.31.mod", "go-1.31.sum"]),
        ] {
            let inputs = version.inputs("go version go1.26.8").unwrap();
            let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
            let [own, sums] = files;
            assert_eq!(
                names,
                ["go", "flags", "CGO_ENABLED", "GOTOOLCHAIN", "GOFLAGS", own, sums, "main.go"]
            );
        }
    }

    #[test]
    fn the_prerequisites_state_the_oldest_version() {
        let page = fs::read_to_string(repository().join("docs/getting-started.md")).unwrap();
        let oldest = KubernetesVersion::Oldest.name().unwrap();
        let minor = oldest.trim_start_matches('v').rsplit_once('.').unwrap().0;
        assert!(page.contains(&format!("Kubernetes {minor} or newer")), "{oldest}");
    }

    #[test]
    fn the_version_is_parsed_from_go_mod() {
        for (go_mod, expect) in [
            (
                "require (\n\tk8s.io/kubectl v0.36.3\n\tk8s.io/kubernetes v1.36.3\n)",
                Some("v1.36.3"),
            ),
            ("require k8s.io/kubernetes v1.31.14 // indirect", Some("v1.31.14")),
            ("module x", None),
        ] {
            assert_eq!(required_version(go_mod).as_deref(), expect);
        }
        assert!(
            linker_flags("v1.36.3")
                .contains("version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36")
        );
    }
}
