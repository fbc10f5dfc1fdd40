//! Builds GoBGP from its Go module: the daemon of the nodes, which is also one of the routers, and
//! its command line.

use super::build_cache;
use super::go;
use super::images::Arch;
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Version of GoBGP that runs on the nodes.
pub const VERSION: &str = "v4.8.0";
/// Oldest version of GoBGP that a speaker accepts; tests upgrade from it.
pub const OLDEST_VERSION: &str = "v4.7.0";
/// A version of GoBGP that a speaker rejects as too old.
pub const TOO_OLD_VERSION: &str = "v4.5.0";
/// Go module of GoBGP.
pub const MODULE: &str = "github.com/osrg/gobgp/v4";
/// Packages of the daemon and of the command line.
const PROGRAMS: [&str; 2] =
    ["github.com/osrg/gobgp/v4/cmd/gobgpd", "github.com/osrg/gobgp/v4/cmd/gobgp"];
/// Directory of GoBGP in the cache.
const CACHE_NAME: &str = "gobgp";

/// Returns whether the cache already contains the programs that [`build`] builds.
///
/// # Errors
/// If Go does not exist.
pub fn is_built() -> Result<bool> {
    Ok(build_cache::find(CACHE_NAME, &go::install_inputs(VERSION)?)?.is_some())
}

/// Returns the directory with the programs, and builds them if they are missing.
///
/// # Errors
/// If the build fails, with the end of its output.
pub fn build() -> Result<PathBuf> {
    build_version(VERSION)
}

/// Returns the directory with the sources of the Go module, and downloads them if they are missing.
///
/// # Errors
/// If the download fails, with the end of Go's output.
pub fn source() -> Result<PathBuf> {
    go::source(MODULE, VERSION).context("cannot find the sources of GoBGP")
}

/// Builds another version like [`build`].
///
/// # Errors
/// See [`build`].
pub fn build_version(version: &str) -> Result<PathBuf> {
    build_cache::build(CACHE_NAME, &go::install_inputs(version)?, |folder| {
        go::install(folder, &PROGRAMS, version).context("GoBGP does not build")
    })
}

/// Builds the older versions with which scenarios test upgrades.
///
/// # Errors
/// See [`build`].
pub fn build_older() -> Result<()> {
    [OLDEST_VERSION, TOO_OLD_VERSION].into_iter().try_for_each(|it| build_version(it).map(drop))
}

/// Builds for another architecture like [`build`].
///
/// # Errors
/// See [`build`].
pub fn build_for(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::own() {
        return build();
    }
    let mut inputs = go::install_inputs(VERSION)?;
    inputs.push(("arch".to_owned(), arch.name().into()));
    build_cache::build(CACHE_NAME, &inputs, |folder| {
        go::install_for(arch, folder, &PROGRAMS, VERSION)
            .with_context(|| format!("GoBGP does not build for {}", arch.name()))
    })
}
