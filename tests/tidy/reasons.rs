//! `docs/reasons.md` explains every reason that a condition can have, and no other.

use std::collections::BTreeSet;
use std::fs;

use crate::tree::{assert_none, root};

/// Where the reasons are made.
const SOURCES: [&str; 6] = [
    "controller/src/state/reasons.rs",
    "controller/src/state/validity.rs",
    "controller/src/state/pools.rs",
    "controller/src/state/announced/reason.rs",
    "controller/src/state/bgp/advertisements.rs",
    "controller/src/state/bgp/peers.rs",
];

/// The reasons that a source names: the texts of one word in capitals and small letters, before its tests.
fn made(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let word = |text: &&str| {
        text.len() > 3 && text.starts_with(char::is_uppercase) && text.chars().all(|c| c.is_ascii_alphabetic())
    };
    code.split('"').skip(1).step_by(2).filter(word).map(str::to_owned).collect()
}

/// The reasons that begin a row of a table.
fn explained(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(reason, _)| reason.to_owned())
        .collect()
}

#[test]
fn every_reason_is_explained_and_no_other() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is in the repository");
    let made: BTreeSet<_> = SOURCES.iter().flat_map(|path| made(&read(path))).collect();
    assert!(
        made.contains("PoolExhausted") && made.contains("DuplicateName"),
        "the sources were not understood: {made:?}"
    );
    // A condition's status is no reason.
    let made: BTreeSet<_> = made.into_iter().filter(|word| !["True", "False"].contains(&word.as_str())).collect();
    let explained = explained(&read("docs/reasons.md"));
    let problems: Vec<_> = made.symmetric_difference(&explained).cloned().collect();
    assert_none(&problems, "docs/reasons.md has a row for each reason of a condition; these are in one place only:");
}
