//! Reads the stages and commands of a runbook of `kubectl ferrolb migrate`, for tests that run
//! them.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// A stage of a runbook, and the commands in its blocks.
#[derive(Debug, Default)]
pub struct Stage {
    /// Number and title.
    pub title: String,
    /// Commands whose output decides whether the stage may begin.
    pub checks: Vec<String>,
    /// Commands of the stage.
    pub commands: Vec<String>,
    /// Commands that undo the stage.
    pub way_back: Vec<String>,
}

/// Title of the stage after which no way back exists.
const LAST: &str = "Delete MetalLB, if you need no rollback";

/// Reads the runbook in a directory, and returns the stages up to the point of no return.
///
/// # Errors
/// If the runbook cannot be read, or has no such point.
pub fn read(directory: &Path) -> Result<Vec<Stage>> {
    let text =
        fs::read_to_string(directory.join("RUNBOOK.md")).context("cannot read RUNBOOK.md")?;
    let (text, last) = text
        .split_once("**Point of no return.**")
        .context("RUNBOOK.md has no point of no return")?;
    ensure!(last.contains(LAST), "another stage follows the point of no return:\n{last}");
    Ok(text.split("\n## Stage ").skip(1).map(stage).collect())
}

fn stage(text: &str) -> Stage {
    let title = text.lines().next().unwrap_or_default();
    let mut stage = Stage { title: title.to_owned(), ..Stage::default() };
    for part in text.split("\n### ").skip(1) {
        let commands = blocks(part);
        match part.lines().next() {
            Some("Checks") => stage.checks = commands,
            Some("Commands") => stage.commands = commands,
            Some("Way back") => stage.way_back = commands,
            other => panic!("the runbook has a part {other:?}"),
        }
    }
    stage
}

/// Returns the text of each block.
fn blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    blocks.filter_map(|it| Some(it.split_once("```")?.0.trim().to_owned())).collect()
}
