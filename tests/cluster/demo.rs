//! `cargo lab demo`, one of the two commands of README.md, and the recording of it that README.md
//! shows.

use crate::scenario::beside_other_labs;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::repository;
use ferrolb_lab::{Options, run};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Recording in README.md.
const RECORDING: &str = "docs/images/demo.svg";
/// Name of the lab.
const NAME: &str = "demotest";

#[test]
fn the_recording_shows_the_output_of_the_demo() {
    beside_other_labs(&Options::named(NAME), |tools| {
        let file = std::env::temp_dir().join(format!("ferrolb-{NAME}-{}.svg", std::process::id()));
        let mut demo = Command::new(&tools.programs.lab);
        demo.args(["--name", NAME, "demo", "--record"]).arg(&file).current_dir(repository());
        let demo = run::run(&mut demo).and_then(|_| lines(&file));
        let _ = fs::remove_file(&file);
        let (now, recorded) = (demo?, lines(&repository().join(RECORDING))?);
        let only = |these: &BTreeSet<String>, others: &BTreeSet<String>| {
            these.difference(others).map(|line| format!("\n  {line}")).collect::<String>()
        };
        ensure!(
            now == recorded,
            "{RECORDING} does not show today's output: record it again \
             (docs/internals/testing.md). Only in the recording:{}\nOnly in the output:{}",
            only(&recorded, &now),
            only(&now, &recorded)
        );
        Ok(())
    });
}

/// Returns the distinct lines of a recording. Numbers are replaced, because they differ between
/// two runs: times, addresses, numbers of nodes. The widths of columns follow them.
fn lines(recording: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(recording)
        .with_context(|| format!("cannot read {}", recording.display()))?;
    let line = |element: &str| {
        let (_, content) = element.split_once('>')?;
        let (content, _) = content.split_once('<')?;
        Some(without_numbers(content))
    };
    let found: BTreeSet<_> = text.split("<text ").skip(1).filter_map(line).collect();
    ensure!(!found.is_empty(), "{} has no line", recording.display());
    Ok(found)
}

/// Replaces each number, also one with dots, and joins spaces.
fn without_numbers(line: &str) -> String {
    let mut shown = String::new();
    for letter in line.chars() {
        let is_number = letter.is_ascii_digit() || letter == '.' && shown.ends_with('#');
        match if is_number { '#' } else { letter } {
            repeated @ ('#' | ' ') if shown.ends_with(repeated) => {}
            other => shown.push(other),
        }
    }
    // A time of minutes and seconds, or of seconds alone.
    shown.replace("# min # s", "# s").replace("#m#s", "#s").trim().to_owned()
}
