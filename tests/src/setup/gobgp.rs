//! Builds GoBGP from its Go module: the daemon that runs on the nodes and as one of the routers, and the program to ask it by.

use super::go;
use super::images::Arch;
use super::shelf;
use crate::run;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

/// The version that a node of FerroLB runs.
pub const VERSION: &str = "v4.8.0";
/// The oldest that a speaker takes: one is upgraded from it.
pub const OLDEST_VERSION: &str = "v4.7.0";
/// One that is too old for a speaker.
pub const TOO_OLD_VERSION: &str = "v4.5.0";
/// Its Go module.
const MODULE: &str = "github.com/osrg/gobgp/v4";
/// Daemon and command line.
const PROGRAMS: [&str; 2] = ["github.com/osrg/gobgp/v4/cmd/gobgpd", "github.com/osrg/gobgp/v4/cmd/gobgp"];
/// Its place in the cache.
const SHELF: &str = "gobgp";

/// Whether [`build`] has nothing left to do.
///
/// # Errors
/// When Go is not there.
pub fn is_built() -> Result<bool> {
    Ok(shelf::built(SHELF, &go::install_inputs(VERSION)?)?.is_some())
}

/// The folder with the programs, built now if it is not there.
///
/// # Errors
/// When the build fails, with its last words.
pub fn build() -> Result<PathBuf> {
    build_version(VERSION)
}

/// The folder with its sources, as its Go module has them; fetched now if they are not there.
///
/// # Errors
/// When they cannot be had, with Go's last words.
pub fn source() -> Result<PathBuf> {
    let module = format!("{MODULE}@{VERSION}");
    let said = run::run(go::command()?.args(["mod", "download", "-json", &module])).context("no sources of GoBGP")?;
    let said: Value = serde_json::from_str(&said)?;
    said["Dir"].as_str().map(PathBuf::from).with_context(|| format!("go mod download: {said}"))
}

/// [`build`] of another version.
///
/// # Errors
/// As [`build`].
pub fn build_version(version: &str) -> Result<PathBuf> {
    shelf::build(SHELF, &go::install_inputs(version)?, |aside| {
        go::install(aside, &PROGRAMS, version).context("GoBGP does not build")
    })
}

/// [`build`] for another kind of machine.
///
/// # Errors
/// As [`build`].
pub fn build_for(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::own() {
        return build();
    }
    let mut inputs = go::install_inputs(VERSION)?;
    inputs.push(("arch".to_owned(), arch.name().into()));
    shelf::build(SHELF, &inputs, |aside| {
        go::install_for(arch, aside, &PROGRAMS, VERSION).with_context(|| format!("no GoBGP for {}", arch.name()))
    })
}
