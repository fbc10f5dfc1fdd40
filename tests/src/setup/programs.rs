//! Builds FerroLB's own programs and the lab itself under the `lab` profile, and learns from cargo where they are.

use super::repository;
use crate::run;
use anyhow::{Result, anyhow};
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

/// Builds all three; a moment when nothing changed.
///
/// # Errors
/// When one does not build, with the compiler's last words.
pub fn build() -> Result<Programs> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository()).args(["build", "--quiet", "--profile", "lab"]);
    cargo.args(["--bin", "ferrolb-controller", "--bin", "ferrolb-speaker", "--bin", "ferrolb-lab"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    locate(&run::run(&mut cargo)?)
}

/// Finds the programs in what cargo tells of its artifacts, one JSON object a line.
fn locate(messages: &str) -> Result<Programs> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found: BTreeMap<String, PathBuf> = artifacts
        .filter_map(|artifact| {
            Some((artifact["target"]["name"].as_str()?.to_owned(), artifact["executable"].as_str()?.into()))
        })
        .collect();
    let program = |name: &str| found.get(name).cloned().ok_or_else(|| anyhow!("cargo built no {name}"));
    Ok(Programs {
        controller: program("ferrolb-controller")?,
        speaker: program("ferrolb-speaker")?,
        lab: program("ferrolb-lab")?,
    })
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
        assert_eq!(locate(&all).unwrap().speaker, PathBuf::from("/t/ferrolb-speaker"));
        let failed = locate(library).unwrap_err().to_string();
        assert_eq!(failed, "cargo built no ferrolb-controller");
    }
}
