//! Builds GoBGP from its Go module: the daemon that runs on the nodes and as one of the routers, and the program to ask it by.

use super::go;
use super::shelf::{self, Inputs};
use crate::run;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The version that a node of FerroLB runs.
pub const VERSION: &str = "v4.8.0";
/// The oldest that a speaker takes: one is upgraded from it.
pub const OLDEST_VERSION: &str = "v4.7.0";
/// One that is too old for a speaker.
pub const TOO_OLD_VERSION: &str = "v4.5.0";
/// Its Go module.
const MODULE: &str = "github.com/osrg/gobgp/v4";
/// Daemon and command line.
const PROGRAMS: [&str; 2] = ["gobgpd", "gobgp"];
/// Symbols and debug information would double their size.
const LINKER_FLAGS: &str = "-s -w";
/// Its place in the cache.
const SHELF: &str = "gobgp";

/// Whether [`build`] has nothing left to do.
///
/// # Errors
/// When Go is not there.
pub fn is_built() -> Result<bool> {
    Ok(shelf::built(SHELF, &inputs(VERSION)?)?.is_some())
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
    shelf::build(SHELF, &inputs(version)?, |aside| compile(aside, version))
}

fn compile(aside: &Path, version: &str) -> Result<()> {
    let mut go = go::command()?;
    go.env("GOBIN", aside).args(["install", "-ldflags", LINKER_FLAGS]);
    go.args(PROGRAMS.map(|program| format!("{MODULE}/cmd/{program}@{version}")));
    run::run(&mut go).context("GoBGP does not build")?;
    Ok(())
}

fn inputs(version: &str) -> Result<Inputs> {
    let mut inputs = go::inputs(&go::version()?);
    inputs.extend([("version", version), ("flags", LINKER_FLAGS)].map(|(name, value)| (name.to_owned(), value.into())));
    Ok(inputs)
}
