//! Builds MetalLB's controller and speaker from its Go module, which also has its published
//! CustomResourceDefinitions. Tests of the migration from MetalLB use both.

use super::{build_cache, go};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Version of MetalLB.
pub const VERSION: &str = "v0.16.1";
const MODULE: &str = "go.universe.tf/metallb";
const PROGRAMS: [&str; 2] = ["go.universe.tf/metallb/controller", "go.universe.tf/metallb/speaker"];
/// Directory of the CustomResourceDefinitions in the module.
const CRDS: &str = "config/crd/bases";
/// Directory of MetalLB in the cache.
const CACHE_NAME: &str = "metallb";

/// Returns the directory with the programs, and builds them if they are missing.
///
/// # Errors
/// If the build fails, with the end of its output.
pub fn build() -> Result<PathBuf> {
    build_cache::build(CACHE_NAME, &go::install_inputs(VERSION)?, |folder| {
        go::install(folder, &PROGRAMS, VERSION).context("MetalLB does not build")
    })
}

/// Returns the directory with the CustomResourceDefinitions, one file for each.
///
/// # Errors
/// If the download fails, with the end of Go's output.
pub fn crds() -> Result<PathBuf> {
    let source = go::source(MODULE, VERSION).context("cannot find the CRDs of MetalLB")?;
    Ok(source.join(CRDS))
}
