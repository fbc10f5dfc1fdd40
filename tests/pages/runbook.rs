//! Reads the stages and commands of a runbook of `kubectl ferrolb migrate`, for tests that run
//! them, and compares outputs with the expected ones.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// A runbook.
#[derive(Debug)]
pub struct Runbook {
    /// The stages up to the point of no return.
    pub stages: Vec<Stage>,
    /// The stage after it.
    pub last: Stage,
}

/// A stage of a runbook, and the commands in its blocks.
#[derive(Debug, Default)]
pub struct Stage {
    /// Number and title.
    pub title: String,
    /// Commands whose output decides whether the stage may begin.
    pub checks: Vec<Command>,
    /// Commands of the stage.
    pub commands: Vec<Command>,
    /// Commands that undo the stage.
    pub way_back: Vec<Command>,
}

/// A command in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The command.
    pub text: String,
    /// The expected output. Words of the output have backticks.
    pub expect: String,
}

/// Title of the stage after which no way back exists.
const LAST: &str = "Delete MetalLB, if you need no rollback";
/// Parts of the expectations of commands that may print nothing.
const MAY_BE_EMPTY: [&str; 3] = ["no output", "prints nothing", "that exists"];

/// Reads the runbook in a directory.
///
/// # Errors
/// If the runbook cannot be read, or not exactly one stage follows its point of no return.
pub fn read(directory: &Path) -> Result<Runbook> {
    let text =
        fs::read_to_string(directory.join("RUNBOOK.md")).context("cannot read RUNBOOK.md")?;
    let (stages, last) = text
        .split_once("**Point of no return.**")
        .context("RUNBOOK.md has no point of no return")?;
    let mut after: Vec<_> = last.split("\n## Stage ").skip(1).map(stage).collect();
    let last = after.pop().context("no stage follows the point of no return")?;
    ensure!(
        after.is_empty() && last.title.contains(LAST),
        "the last stages are {after:?}, {last:?}"
    );
    Ok(Runbook { stages: stages.split("\n## Stage ").skip(1).map(stage).collect(), last })
}

fn stage(text: &str) -> Stage {
    let title = text.lines().next().unwrap_or_default();
    let mut stage = Stage { title: title.to_owned(), ..Stage::default() };
    for part in text.split("\n### ").skip(1) {
        let commands = commands(part);
        match part.lines().next() {
            Some("Checks") => stage.checks = commands,
            Some("Commands") => stage.commands = commands,
            Some("Way back") => stage.way_back = commands,
            other => panic!("the runbook has a part {other:?}"),
        }
    }
    stage
}

/// Returns the command in each block, with its expected output.
fn commands(text: &str) -> Vec<Command> {
    let items = text.split("\n- [ ] Expected: ").skip(1);
    let command = |item: &str| {
        let (expect, block) = item.split_once("\n\n  ```sh\n")?;
        let (text, _) = block.split_once("```")?;
        Some(Command { text: text.trim().to_owned(), expect: expect.to_owned() })
    };
    items.filter_map(command).collect()
}

impl Command {
    /// Compares an output with the expected one. It has one of the words in backticks, on each line
    /// if the expectation says so.
    ///
    /// # Errors
    /// If they differ.
    pub fn check(&self, output: &str) -> Result<()> {
        let words: Vec<_> = self.expect.split('`').skip(1).step_by(2).collect();
        let is_expected = |text: &str| words.iter().any(|it| text.contains(it));
        let may_be_empty = MAY_BE_EMPTY.iter().any(|it| self.expect.contains(it));
        let agrees = match words.is_empty() {
            _ if output.is_empty() => may_be_empty || words.is_empty(),
            true => !may_be_empty,
            false if self.expect.contains("` for each ") => output.lines().all(is_expected),
            false => is_expected(output),
        };
        let Self { text, expect } = self;
        ensure!(agrees, "expected: {expect}; the output of `{text}` is {output:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_the_commands_with_their_expected_outputs() {
        let stage = stage(
            "1: Title\n\nEffect.\n\n### Commands\n\n- [ ] Expected: `scaled`\n\n  ```sh\n  a\n  \
             ```\n\n- [ ] by hand\n\n### Way back\n\n- [ ] Expected: no error\n\n  ```sh\n  b\n  \
             ```\n",
        );
        let command =
            |text: &str, expect: &str| Command { text: text.into(), expect: expect.into() };
        assert_eq!(stage.title, "1: Title");
        assert_eq!(stage.commands, [command("a", "`scaled`")]);
        assert_eq!(stage.way_back, [command("b", "no error")]);
    }

    #[test]
    fn an_output_is_compared_with_the_expected_one() {
        for (expect, output, agrees) in [
            ("no error", "any\n", true),
            ("no error", "", true),
            ("no output", "", true),
            ("prints nothing: no address has changed", "any\n", false),
            ("`scaled`", "any\nx scaled\n", true),
            ("`scaled`", "", false),
            ("`a` or `b` for each object", "x a\ny b\n", true),
            ("`a` or `b` for each object", "x a\ny c\n", false),
            ("`deleted` for each object that exists", "", true),
        ] {
            let command = Command { text: "x".into(), expect: expect.into() };
            assert_eq!(command.check(output).is_ok(), agrees, "{expect}, {output:?}");
        }
    }
}
