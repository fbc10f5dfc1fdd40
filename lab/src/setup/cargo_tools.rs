//! Builds programs from crates.io with cargo, once for each version and compiler, in the cache.

use super::{build_cache, requirements};
use crate::run;
use anyhow::{Context, Result, anyhow};
use std::path::PathBuf;

/// Directory of the programs in the cache.
const CACHE_NAME: &str = "cargo-tools";

/// Returns the directory with the programs of a crate at a version, and builds them with the
/// crate's own lock file if they are missing. `flags` are further flags of `cargo install`, such as
/// `--features`.
///
/// # Errors
/// If the build fails, with the end of its output.
pub fn install(name: &str, version: &str, flags: &[&str]) -> Result<PathBuf> {
    let rust = requirements::first_line("rustc", &["--version"])
        .ok_or_else(|| anyhow!("rustc is not in PATH: install Rust from https://rustup.rs"))?;
    let inputs = [("rust", &rust[..]), ("name", name), ("version", version)];
    let flag_inputs = flags.iter().map(|flag| ("flag", *flag));
    let inputs = inputs.into_iter().chain(flag_inputs);
    let inputs = inputs.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let folder = build_cache::build(CACHE_NAME, &inputs, |folder| {
        let mut cargo = super::cargo();
        cargo.args(["install", "--locked", "--quiet", "--root"]).arg(folder);
        cargo.args(["--version", version, name]).args(flags);
        // Not in the project's folder: cargo would keep the build products there.
        run::run(cargo.env_remove("CARGO_TARGET_DIR"))
            .map(drop)
            .with_context(|| format!("{name} {version} does not build"))
    })?;
    Ok(folder.join("bin"))
}
