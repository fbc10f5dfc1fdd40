//! Text of a migration. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::predict::{AddressResult, Outcome};
use super::{Level, Migration, Problem, Step};
use crate::table::table;

/// Returns the comparison of several ways of a migration, and the text about the next command.
#[must_use]
pub fn comparison(ways: &[&Migration], next: &str) -> String {
    let mut text = ways.first().map(|way| facts(way)).unwrap_or_default();
    for way in ways {
        _ = writeln!(text, "\n{}\n{}", heading(way), summary(way));
        text.push_str("effect of the steps on traffic:\n");
        for Step { number, title, effect, .. } in &way.steps {
            _ = writeln!(text, "  {number}. {title}: {effect}");
        }
    }
    _ = writeln!(text, "\n{next}");
    text
}

/// Returns a whole migration.
#[must_use]
pub fn migration(migration: &Migration) -> String {
    let mut text = format!("{}\n{}{}", heading(migration), facts(migration), summary(migration));
    for step in &migration.steps {
        text.push('\n');
        text.push_str(&self::step(step));
    }
    text
}

fn heading(migration: &Migration) -> String {
    format!("{}\n{}", migration.title, "=".repeat(migration.title.len()))
}

fn facts(migration: &Migration) -> String {
    migration.facts.iter().map(|fact| format!("{fact}\n")).collect()
}

/// Returns the predicted addresses and the problems.
pub(super) fn summary(migration: &Migration) -> String {
    let mut text = services(&migration.services);
    for (level, title) in [(Level::Problem, "problems"), (Level::Note, "notes")] {
        let problems: Vec<_> = migration.problems.iter().filter(|it| it.level == level).collect();
        if !problems.is_empty() {
            _ = writeln!(text, "\n{title}:");
        }
        for Problem { object, text: problem, .. } in problems {
            _ = writeln!(text, "  {object}: {problem}");
        }
    }
    text
}

fn services(outcomes: &[Outcome]) -> String {
    let kept = outcomes.iter().filter(|it| it.result == AddressResult::Kept).count();
    let changed = outcomes.iter().filter(|it| !it.is_kept()).count();
    let mut text =
        format!("Services with the same addresses: {kept}; with other ones or none: {changed}\n");
    let rows: Vec<_> = outcomes.iter().filter_map(row).collect();
    if !rows.is_empty() {
        text.push_str(&indented(&table(
            ["SERVICE", "BEFORE", "AFTER", "REASON"],
            rows.into_iter(),
        )));
    }
    text
}

/// Returns the row of a Service whose addresses change.
fn row(outcome: &Outcome) -> Option<[String; 4]> {
    let join = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let (after, why) = match &outcome.result {
        AddressResult::Kept => return None,
        AddressResult::New { after } => (join(after), String::new()),
        AddressResult::Changed { after, why } => (join(after), why.clone()),
        AddressResult::None { why } => (String::new(), why.clone()),
        AddressResult::NotServed { why } => ("not announced".to_owned(), why.clone()),
    };
    Some([outcome.service.clone(), join(&outcome.before), after, why])
}

fn step(step: &Step) -> String {
    let mut text = format!("Step {}: {}\n", step.number, step.title);
    _ = writeln!(text, "  effect on traffic: {}", step.effect);
    for check in &step.checks {
        _ = writeln!(text, "  check first (expected: {}):\n    {}", check.expect, check.command);
    }
    for (title, actions) in
        [("commands", &step.commands), ("rollback, after that of each later step", &step.rollback)]
    {
        if !actions.is_empty() {
            _ = writeln!(text, "  {title}:");
        }
        actions.iter().for_each(|it| _ = writeln!(text, "    {it}"));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
