//! Builds the programs of a release. Each contains the list of its dependencies (cargo auditable),
//! and no path of this machine, so that a build in another folder results in the same program.

use super::programs::{self, StaticPrograms};
use super::{cargo_tools, installers, repository, zig};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of cargo auditable.
const AUDITABLE: &str = "0.7.7";

/// Builds controller and speaker for a target with static programs.
///
/// # Errors
/// If a program does not build, with the end of the compiler's output.
pub fn components(profile: &str, target: &str) -> Result<StaticPrograms> {
    programs::static_programs(cargo(target)?, profile, target)
}

/// Builds `kubectl-ferrolb` for a target with Linux, Windows or macOS. The program applies the
/// manifests of this folder, and names this chart in its plans.
///
/// # Errors
/// See [`components`].
pub fn cli(profile: &str, target: &str, manifests: &Path, chart: &str) -> Result<PathBuf> {
    let mut cargo = cargo(target)?;
    cargo.env("FERROLB_MANIFESTS", manifests).env("FERROLB_CHART", chart);
    programs::static_cli(cargo, profile, target)
}

/// Returns the command that builds, to which the caller adds the flags of `cargo build`.
fn cargo(target: &str) -> Result<Command> {
    let folder = cargo_tools::install("cargo-auditable", AUDITABLE, &[])?;
    let mut programs = vec![Command::new(folder.join("cargo-auditable"))];
    let has_zig = !target.contains("linux");
    if has_zig {
        programs.push(Command::new(zig::install()?.join("zig")));
    }
    let mut command = installers::command_with("cargo", &programs)?;
    // Both would replace the flags below.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.current_dir(repository()).args(["auditable", "build", "--locked", "--quiet"]);
    let mut flags = remapped()?;
    if has_zig {
        // Symbols contain paths, from which the linker computes the identifier of a program for
        // macOS.
        flags.push("-Clink-arg=-s".to_owned());
    }
    command.arg("--config").arg(format!("target.{target}.rustflags={flags:?}"));
    if has_zig {
        zig::set_as_compiler(&mut command, target)?;
    }
    Ok(command)
}

/// Returns the compiler's flags that replace the folders of this machine in the programs.
fn remapped() -> Result<Vec<String>> {
    let home = std::env::home_dir().context("the user has no home directory")?;
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let folders = [
        (cargo, "/cargo"),
        (repository().canonicalize()?, "/ferrolb"),
        (programs::static_folder(), "/target"),
    ];
    let flag = |(folder, name): (PathBuf, &str)| {
        format!("--remap-path-prefix={}={name}", folder.display())
    };
    Ok(folders.map(flag).into())
}
