//! Builds FerroLB's own programs and the lab itself with the `lab` profile, and gets their paths
//! from cargo.

use crate::run;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Paths of the built programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabPrograms {
    pub controller: PathBuf,
    pub speaker: PathBuf,
    /// `kubectl-ferrolb`.
    pub cli: PathBuf,
    /// The lab's program, which is also the web server in the lab's pods.
    pub lab: PathBuf,
}

/// Programs of the images: static, so that an image contains no other file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPrograms {
    pub controller: PathBuf,
    pub speaker: PathBuf,
}

/// Builds all programs of FerroLB and the lab; fast if nothing changed.
///
/// # Errors
/// If a program does not build, with the end of the compiler's output.
pub fn build() -> Result<LabPrograms> {
    let names = ["ferrolb-controller", "ferrolb-speaker", "kubectl-ferrolb", "ferrolb-lab"];
    let mut cargo = super::cargo();
    cargo.args(["build", "--quiet"]);
    let paths = executables(cargo, "lab", &names)?;
    Ok(LabPrograms {
        controller: program(&paths, "ferrolb-controller")?,
        speaker: program(&paths, "ferrolb-speaker")?,
        cli: program(&paths, "kubectl-ferrolb")?,
        lab: program(&paths, "ferrolb-lab")?,
    })
}

/// Builds controller and speaker for a target with static programs, with one of cargo's profiles.
///
/// # Errors
/// See [`build`].
pub fn build_static(profile: &str, target: &str) -> Result<StaticPrograms> {
    let mut cargo = super::cargo();
    cargo.args(["build", "--quiet"]);
    static_programs(cargo, profile, target)
}

/// Builds controller and speaker like [`build_static`], with the command `cargo`.
pub(super) fn static_programs(
    cargo: Command,
    profile: &str,
    target: &str,
) -> Result<StaticPrograms> {
    let names = ["ferrolb-controller", "ferrolb-speaker"];
    let paths = executables(for_target(cargo, target), profile, &names)?;
    Ok(StaticPrograms {
        controller: program(&paths, "ferrolb-controller")?,
        speaker: program(&paths, "ferrolb-speaker")?,
    })
}

/// Builds `kubectl-ferrolb` for a target, with the command `cargo` and one of cargo's profiles.
pub(super) fn static_cli(cargo: Command, profile: &str, target: &str) -> Result<PathBuf> {
    let paths = executables(for_target(cargo, target), profile, &["kubectl-ferrolb"])?;
    program(&paths, "kubectl-ferrolb")
}

/// Returns the folder of the products for targets with static programs, so that no other call of
/// cargo waits for the end of such a build.
pub(super) fn static_folder() -> PathBuf {
    ferrolb_lab_launcher::target_folder().join("static")
}

fn for_target(mut cargo: Command, target: &str) -> Command {
    cargo.args(["--target", target]).env("CARGO_TARGET_DIR", static_folder());
    cargo
}

/// Installs Rust's standard library for a target if it is missing.
///
/// # Errors
/// If there is no rustup.
pub fn add_target(target: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(super::repository()).args(["target", "add", target]);
    run::run(&mut rustup).with_context(|| format!("Rust's library for {target} is needed"))?;
    Ok(())
}

/// Builds programs with the command `cargo` and one of cargo's profiles, and returns the path of
/// each by name.
fn executables(
    mut cargo: Command,
    profile: &str,
    names: &[&str],
) -> Result<BTreeMap<String, PathBuf>> {
    cargo.args(["--profile", profile]);
    cargo.args(names.iter().flat_map(|name| ["--bin", *name]));
    cargo.args(["--message-format", "json-render-diagnostics"]);
    Ok(parse_executables(&run::run(&mut cargo)?))
}

/// Finds the programs in cargo's messages about artifacts, one JSON object per line.
fn parse_executables(messages: &str) -> BTreeMap<String, PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let named = |artifact: Value| {
        Some((
            artifact["target"]["name"].as_str()?.to_owned(),
            artifact["executable"].as_str()?.into(),
        ))
    };
    artifacts.filter_map(named).collect()
}

fn program(paths: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    paths.get(name).cloned().ok_or_else(|| anyhow!("cargo built no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_paths_are_parsed_from_cargo_messages() {
        let line = |name: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"executable":"/t/{name}"}}"#
            )
        };
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#;
        let all = [
            &line("ferrolb-controller"),
            library,
            "",
            &line("ferrolb-speaker"),
            &line("ferrolb-lab"),
        ]
        .join("\n");
        assert_eq!(
            program(&parse_executables(&all), "ferrolb-speaker").unwrap(),
            PathBuf::from("/t/ferrolb-speaker")
        );
        let failed =
            program(&parse_executables(library), "ferrolb-controller").unwrap_err().to_string();
        assert_eq!(failed, "cargo built no ferrolb-controller");
    }
}
