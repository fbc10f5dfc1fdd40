//! Builds FerroLB's own programs and the lab itself under the `lab` profile, and learns from cargo where they are.

use crate::run;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// Where the built programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    pub controller: PathBuf,
    pub speaker: PathBuf,
    /// The lab program: it is the web server in the lab's pods.
    pub lab: PathBuf,
}

/// The programs of the images: static, so that an image holds nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Static {
    pub controller: PathBuf,
    pub speaker: PathBuf,
}

/// Builds all three; a moment when nothing changed.
///
/// # Errors
/// When one does not build, with the compiler's last words.
pub fn build() -> Result<Programs> {
    let found = executables("lab", None, &["ferrolb-controller", "ferrolb-speaker", "ferrolb-lab"])?;
    Ok(Programs {
        controller: program(&found, "ferrolb-controller")?,
        speaker: program(&found, "ferrolb-speaker")?,
        lab: program(&found, "ferrolb-lab")?,
    })
}

/// Builds controller and speaker as they are released; the lab program stays as it is.
///
/// # Errors
/// As [`build`].
pub fn build_release(built: &Programs) -> Result<Programs> {
    let found = executables("release", None, &["ferrolb-controller", "ferrolb-speaker"])?;
    let (controller, speaker) = (program(&found, "ferrolb-controller")?, program(&found, "ferrolb-speaker")?);
    Ok(Programs { controller, speaker, lab: built.lab.clone() })
}

/// Builds controller and speaker for a target whose programs are static, under a profile of cargo's.
///
/// # Errors
/// As [`build`].
pub fn build_static(profile: &str, target: &str) -> Result<Static> {
    let found = executables(profile, Some(target), &["ferrolb-controller", "ferrolb-speaker"])?;
    Ok(Static { controller: program(&found, "ferrolb-controller")?, speaker: program(&found, "ferrolb-speaker")? })
}

/// Has Rust's own library for a target, fetched if it is not there.
///
/// # Errors
/// When there is no rustup to fetch it.
pub fn add_target(target: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.current_dir(super::repository()).args(["target", "add", target]);
    run::run(&mut rustup).with_context(|| format!("Rust's library for {target} is needed"))?;
    Ok(())
}

/// Builds programs under a profile of cargo's, for this machine or a target; where each is, by its name.
fn executables(profile: &str, target: Option<&str>, names: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = super::cargo();
    cargo.args(["build", "--quiet", "--profile", profile]);
    cargo.args(target.map(|target| ["--target", target]).into_iter().flatten());
    cargo.args(names.iter().flat_map(|name| ["--bin", *name]));
    cargo.args(["--message-format", "json-render-diagnostics"]);
    Ok(locate(&run::run(&mut cargo)?))
}

/// Finds the programs in what cargo tells of its artifacts, one JSON object a line.
fn locate(messages: &str) -> BTreeMap<String, PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let named = |artifact: Value| {
        Some((artifact["target"]["name"].as_str()?.to_owned(), artifact["executable"].as_str()?.into()))
    };
    artifacts.filter_map(named).collect()
}

fn program(found: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    found.get(name).cloned().ok_or_else(|| anyhow!("cargo built no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_where_cargo_says_they_are() {
        let line = |name: &str| {
            format!(r#"{{"reason":"compiler-artifact","target":{{"name":"{name}"}},"executable":"/t/{name}"}}"#)
        };
        let library = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}"#;
        let all = [&line("ferrolb-controller"), library, "", &line("ferrolb-speaker"), &line("ferrolb-lab")].join("\n");
        assert_eq!(program(&locate(&all), "ferrolb-speaker").unwrap(), PathBuf::from("/t/ferrolb-speaker"));
        let failed = program(&locate(library), "ferrolb-controller").unwrap_err().to_string();
        assert_eq!(failed, "cargo built no ferrolb-controller");
    }
}
