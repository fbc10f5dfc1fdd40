//! Checks that `docs/reference/conditions.md` explains exactly the reasons of conditions and of
//! issues.

use std::collections::BTreeSet;
use std::fs;

use ferrolb_proto::api::PASSWORD_UNAVAILABLE;

use crate::tree::{assert_none, root};

/// Files that define the reasons.
const SOURCES: [&str; 8] = [
    "controller/core/src/state/messages.rs",
    "controller/core/src/state/messages/assigned.rs",
    "controller/core/src/state/messages/bgp.rs",
    "controller/core/src/state/messages/peer.rs",
    "controller/core/src/state/messages/pool.rs",
    "controller/core/src/state/messages/valid.rs",
    "controller/core/src/state/messages/reason.rs",
    "speaker/core/src/event/issue.rs",
];

/// Returns the reasons in a source file: string literals of one capitalized word, before the tests.
fn defined_reasons(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let is_reason = |text: &&str| {
        text.len() > 3
            && text.starts_with(char::is_uppercase)
            && text.chars().all(|c| c.is_ascii_alphabetic())
    };
    code.split('"').skip(1).step_by(2).filter(is_reason).map(str::to_owned).collect()
}

/// Page that explains the reasons.
const PAGE: &str = "docs/reference/conditions.md";

/// Returns the reasons in the first column of all tables of a page whose first column has the name
/// "reason".
fn documented_reasons(page: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let (mut in_table, mut has_reasons) = (false, false);
    for line in page.lines() {
        let begins = !in_table && line.starts_with('|');
        in_table = line.starts_with('|');
        if begins {
            has_reasons = line.to_lowercase().starts_with("| reason |");
        } else if has_reasons && let Some(cell) = line.strip_prefix("| `") {
            found.extend(cell.split_once('`').map(|(reason, _)| reason.to_owned()));
        }
    }
    found
}

#[test]
fn exactly_the_defined_reasons_are_documented() {
    let read = |path: &str| {
        fs::read_to_string(root().join(path)).expect("cannot read a file of the repository")
    };
    let defined: BTreeSet<_> =
        SOURCES.iter().flat_map(|path| defined_reasons(&read(path))).collect();
    assert!(
        defined.contains("PoolExhausted") && defined.contains("DuplicateName"),
        "the sources could not be parsed: {defined:?}"
    );
    // A condition's status is not a reason.
    let defined = defined.into_iter().filter(|word| !["True", "False"].contains(&word.as_str()));
    let defined: BTreeSet<_> = defined.chain([PASSWORD_UNAVAILABLE.to_owned()]).collect();
    let documented = documented_reasons(&read(PAGE));
    let problems: Vec<_> = defined.symmetric_difference(&documented).cloned().collect();
    assert_none(
        &problems,
        &format!(
            "{PAGE} needs a row for each reason of the code, in tables whose first column is \
             \"Reason\"; these are only in the code or only on the page:"
        ),
    );
}

#[test]
fn only_tables_of_reasons_are_read() {
    let page = "| Type | Object |\n|---|---|\n| `Valid` | pool |\n\n\
                | Reason | Meaning |\n|---|---|\n| `PoolExhausted` | none is free |\n";
    assert_eq!(documented_reasons(page), ["PoolExhausted".to_owned()].into());
}
