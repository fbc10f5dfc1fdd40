//! `docs/reasons.md` explains every reason of a condition or an issue, and no other.

use std::collections::BTreeSet;
use std::fs;

use ferrolb_proto::api::PASSWORD_UNAVAILABLE;

use crate::tree::{assert_none, root};

/// Files that define the reasons.
const SOURCES: [&str; 8] = [
    "controller/src/state/messages.rs",
    "controller/src/state/messages/assigned.rs",
    "controller/src/state/messages/bgp.rs",
    "controller/src/state/messages/peer.rs",
    "controller/src/state/messages/pool.rs",
    "controller/src/state/messages/valid.rs",
    "controller/src/state/announced/reason.rs",
    "speaker/src/event/issue.rs",
];

/// Returns the reasons in a source: string literals of one capitalized word, before its tests.
fn defined(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let word = |text: &&str| {
        text.len() > 3
            && text.starts_with(char::is_uppercase)
            && text.chars().all(|c| c.is_ascii_alphabetic())
    };
    code.split('"').skip(1).step_by(2).filter(word).map(str::to_owned).collect()
}

/// Returns the reasons that begin a row of a table.
fn explained(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(reason, _)| reason.to_owned())
        .collect()
}

#[test]
fn every_reason_is_explained_and_no_other() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is in the repository");
    let made: BTreeSet<_> = SOURCES.iter().flat_map(|path| defined(&read(path))).collect();
    assert!(
        made.contains("PoolExhausted") && made.contains("DuplicateName"),
        "the sources could not be parsed: {made:?}"
    );
    // A condition's status is not a reason.
    let made = made.into_iter().filter(|word| !["True", "False"].contains(&word.as_str()));
    let made: BTreeSet<_> = made.chain([PASSWORD_UNAVAILABLE.to_owned()]).collect();
    let explained = explained(&read("docs/reasons.md"));
    let problems: Vec<_> = made.symmetric_difference(&explained).cloned().collect();
    assert_none(
        &problems,
        "docs/reasons.md needs a row for each reason; these are only in one of both places:",
    );
}
