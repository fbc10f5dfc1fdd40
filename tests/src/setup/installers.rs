//! Builds the programs that people install FerroLB with, from their Go modules: kustomize and Helm. Neither needs root rights or a cluster here.

use super::{go, shelf};
use anyhow::{Context, Result};
use std::process::Command;

/// A program: its place in the cache, its name, its package and its version.
struct Installer {
    shelf: &'static str,
    name: &'static str,
    package: &'static str,
    version: &'static str,
}

const KUSTOMIZE: Installer = Installer {
    shelf: "kustomize",
    name: "kustomize",
    package: "sigs.k8s.io/kustomize/kustomize/v5",
    version: "v5.8.1",
};
const HELM: Installer =
    Installer { shelf: "helm", name: "helm", package: "helm.sh/helm/v4/cmd/helm", version: "v4.3.1" };

/// kustomize, built now if it is not there, ready for its arguments.
///
/// # Errors
/// When the build fails, with its last words.
pub fn kustomize() -> Result<Command> {
    command(&KUSTOMIZE)
}

/// Helm, likewise.
///
/// # Errors
/// As [`kustomize`].
pub fn helm() -> Result<Command> {
    command(&HELM)
}

fn command(installer: &Installer) -> Result<Command> {
    let folder = shelf::build(installer.shelf, &go::install_inputs(installer.version)?, |aside| {
        go::install(aside, &[installer.package], installer.version)
            .with_context(|| format!("{} does not build", installer.name))
    })?;
    Ok(Command::new(folder.join(installer.name)))
}
