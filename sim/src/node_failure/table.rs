//! Table of the results of many runs: one row for each kind of fault.

use super::{Outcome, Rule, Run};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Returns the heading of the table. Times are in milliseconds.
pub fn head() -> String {
    format!(
        "{:<16} {:>6} | {:>7} {:>6} {:>6} | {:>9} | {:>11} {:>6} {:>6} | {:>8} {:>8} | {:>6}",
        "fault",
        "runs",
        "marks",
        "late",
        "false",
        "longest",
        "to mark p50",
        "p99",
        "max",
        "too many",
        "restored",
        "broken"
    )
}

/// Returns the rows of the table, and a last one for all runs.
pub fn rows(runs: &[Run], outcomes: &[Outcome]) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for (run, outcome) in runs.iter().zip(outcomes) {
        groups.entry(run.label()).or_default().push(outcome);
    }
    let rows = groups.iter().map(|(label, group)| row(label, group));
    rows.chain([row("all", &outcomes.iter().collect::<Vec<_>>())]).collect()
}

fn row(label: &str, outcomes: &[&Outcome]) -> String {
    let sum = |value: fn(&Outcome) -> u32| outcomes.iter().map(|it| value(it)).sum::<u32>();
    let mut times: Vec<Duration> = outcomes.iter().filter_map(|it| it.time_to_mark).collect();
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string())
    };
    let longest = outcomes.iter().map(|it| it.longest).max().unwrap_or_default();
    format!(
        "{label:<16} {:>6} | {:>7} {:>6} {:>6} | {:>9} | {:>11} {:>6} {:>6} | {:>8} {:>8} | {:>6}",
        outcomes.len(),
        sum(|it| it.marks),
        sum(|it| it.late_marks),
        sum(|it| it.false_marks),
        longest.as_millis(),
        at(50),
        at(99),
        at(100),
        sum(|it| it.too_many),
        sum(|it| it.wrong_restores),
        outcomes.iter().map(|it| it.violations.len()).sum::<usize>(),
    )
}

/// Returns the number of violations.
pub fn violations(outcomes: &[Outcome]) -> usize {
    outcomes.iter().map(|outcome| outcome.violations.len()).sum()
}

/// Returns each violated rule with its count and the command that repeats its first violation;
/// empty without violations.
pub fn violations_text(runs: &[Run], outcomes: &[Outcome]) -> String {
    let mut rules: BTreeMap<(&str, Rule), (usize, String)> = BTreeMap::new();
    for (run, outcome) in runs.iter().zip(outcomes) {
        for violation in &outcome.violations {
            let first = || (0, format!("seed {}: {violation}\n    {}", run.seed, run.replay()));
            rules.entry((run.label(), violation.rule)).or_insert_with(first).0 += 1;
        }
    }
    let mut text = String::new();
    for ((label, _), (count, first)) in &rules {
        let _ = writeln!(text, "  {label}: {count} times, first in {first}");
    }
    text
}

/// Returns the first run with a false mark of each kind of fault, as the command that repeats it.
pub fn false_marks_text(runs: &[Run], outcomes: &[Outcome]) -> String {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    for (run, outcome) in runs.iter().zip(outcomes) {
        if outcome.false_marks > 0 {
            first.entry(run.label()).or_insert_with(|| run.replay());
        }
    }
    let line = |(label, replay): (&&str, &String)| format!("  false mark, {label}: {replay}\n");
    first.iter().map(line).collect()
}
