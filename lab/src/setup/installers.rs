//! Builds the programs that install or publish FerroLB, from their Go modules: kustomize, Helm,
//! crane, cosign and syft. None needs root permissions or a cluster here.

use super::{build_cache, go};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A program: its name, which its directory in the cache also has, its package and its version.
struct Installer {
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

const KUSTOMIZE: Installer = Installer {
    name: "kustomize",
    package: "sigs.k8s.io/kustomize/kustomize/v5",
    version: "v5.8.1",
};
const HELM: Installer =
    Installer { name: "helm", package: "helm.sh/helm/v4/cmd/helm", version: "v4.3.1" };
const CRANE: Installer = Installer {
    name: "crane",
    package: "github.com/google/go-containerregistry/cmd/crane",
    version: "v0.22.1",
};
const COSIGN: Installer = Installer {
    name: "cosign",
    package: "github.com/sigstore/cosign/v3/cmd/cosign",
    version: "v3.1.3",
};
const SYFT: Installer =
    Installer { name: "syft", package: "github.com/anchore/syft/cmd/syft", version: "v1.57.1" };

/// Returns a command that runs kustomize, without arguments; builds kustomize if it is missing.
///
/// # Errors
/// If the build fails, with the end of its output.
pub fn kustomize() -> Result<Command> {
    command(&KUSTOMIZE)
}

/// Returns a command that runs Helm, without arguments; builds Helm if it is missing.
///
/// # Errors
/// See [`kustomize`].
pub fn helm() -> Result<Command> {
    command(&HELM)
}

/// Returns a command that runs crane, which copies images, without arguments; builds crane if it is
/// missing.
///
/// # Errors
/// See [`kustomize`].
pub fn crane() -> Result<Command> {
    command(&CRANE)
}

/// Returns a command that runs cosign, which signs images and files, without arguments; builds
/// cosign if it is missing.
///
/// # Errors
/// See [`kustomize`].
pub fn cosign() -> Result<Command> {
    command(&COSIGN)
}

/// Returns a command that runs syft, which lists the dependencies of a program, without arguments;
/// builds syft if it is missing.
///
/// # Errors
/// See [`kustomize`].
pub fn syft() -> Result<Command> {
    command(&SYFT)
}

/// Returns a command that runs `program`, without arguments; its PATH begins with the directories
/// of `programs`.
///
/// # Errors
/// If a directory contains the separator of PATH.
pub fn command_with(program: &str, programs: &[Command]) -> Result<Command> {
    let folders = programs.iter().filter_map(|command| Path::new(command.get_program()).parent());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.map(Path::to_owned).chain(std::env::split_paths(&path));
    let mut command = Command::new(program);
    command.env("PATH", std::env::join_paths(folders)?);
    Ok(command)
}

fn command(installer: &Installer) -> Result<Command> {
    let folder =
        build_cache::build(installer.name, &go::install_inputs(installer.version)?, |folder| {
            go::install(folder, &[installer.package], installer.version)
                .with_context(|| format!("{} does not build", installer.name))
        })?;
    Ok(Command::new(folder.join(installer.name)))
}
