//! Provenance of a release: the command, the sources and the tools that build it (SLSA provenance
//! 1.0, https://slsa.dev/spec/v1.0/provenance). The same commit and the same tools result in the
//! same text.

use super::{Build, PROVENANCE};
use crate::run;
use crate::setup::{go, images, repository, zig};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes the predicate of the provenance into `folder`.
pub(super) fn write(build: &Build, folder: &Path) -> Result<()> {
    let (revision, _) = images::commit().context("the release needs a clone with git")?;
    let mut rustc = Command::new("rustc");
    let rust = run::run(rustc.current_dir(repository()).arg("--version"))?;
    let predicate = predicate(build, &revision, [rust.trim(), &go::version()?]);
    Ok(fs::write(folder.join(PROVENANCE), predicate.to_string())?)
}

fn predicate(build: &Build, revision: &str, [rust, go]: [&str; 2]) -> Value {
    let Build { registry, profile, workflow } = build;
    let repository = env!("CARGO_PKG_REPOSITORY");
    let releasing = format!("{repository}/blob/main/RELEASING.md");
    let builder = workflow.as_ref().map(|workflow| format!("https://github.com/{workflow}"));
    json!({
        "buildDefinition": {
            "buildType": releasing,
            "externalParameters": {
                "command": "cargo lab dist", "registry": registry, "profile": profile,
            },
            "internalParameters": {"rust": rust, "go": go, "zig": zig::VERSION},
            "resolvedDependencies": [{
                "uri": format!("git+{repository}"), "digest": {"gitCommit": revision},
            }],
        },
        "runDetails": {"builder": {"id": builder.unwrap_or(releasing)}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_is_the_workflow_or_the_described_command() {
        let of = |workflow: Option<&str>| {
            let (registry, profile) = ("r".to_owned(), "release".to_owned());
            let build = Build { registry, profile, workflow: workflow.map(str::to_owned) };
            predicate(&build, "abc", ["rustc 1", "go 1"])
        };
        let own = of(None);
        let definition = &own["buildDefinition"];
        assert_eq!(definition["resolvedDependencies"][0]["digest"]["gitCommit"], "abc");
        assert_eq!(own["runDetails"]["builder"]["id"], definition["buildType"]);
        let workflow = of(Some("ferrolb/ferrolb/.github/workflows/release.yml@refs/tags/v1"));
        let builder = workflow["runDetails"]["builder"]["id"].as_str().unwrap();
        assert!(builder.starts_with("https://github.com/ferrolb/ferrolb/.github/"), "{builder}");
    }
}
