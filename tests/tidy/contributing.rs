//! Checks of CONTRIBUTING.md: each path that it names exists, and each of its test commands selects
//! a test.

use std::collections::BTreeSet;

use crate::tree::{TextFile, assert_none, files};

const PAGE: &str = "CONTRIBUTING.md";
const ENDINGS: [&str; 5] = [".rs", ".toml", ".yaml", ".txt", ".md"];
/// Filter of tests in the commands of [`PAGE`], and the filter that the page gives as an example.
const PLACEHOLDER: (&str, &str) = ("NAME", "table");
/// Folders of the crates that are not in a folder of their own name.
const FOLDERS: [(&str, &str); 3] = [
    ("controller-core", "controller/core"),
    ("speaker-core", "speaker/core"),
    ("tidy", "tests/tidy"),
];

/// Returns the words between backticks that are paths of files or folders.
fn paths(text: &str) -> BTreeSet<&str> {
    let codes = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |code: &&str| {
        let is_plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_-./*".contains(c));
        is_plain && (code.ends_with('/') || ENDINGS.iter().any(|end| code.ends_with(end)))
    };
    codes.filter(is_path).collect()
}

/// Returns whether a path, in which `*` stands for any characters, is that of a file, or the
/// beginning of one.
fn exists(path: &str, all: &[TextFile]) -> bool {
    let mut parts = path.split('*');
    let first = parts.next().unwrap_or_default();
    let mut rests = all.iter().filter_map(|file| file.path.strip_prefix(first));
    rests.any(|rest| {
        let next = |left: &str, part: &str| left.split_once(part).map(|it| it.1.to_owned());
        parts.clone().try_fold(rest.to_owned(), |left, part| next(&left, part)).is_some()
    })
}

/// Returns whether a command `cargo test -p CRATE … -- FILTER` runs a test.
fn runs_a_test(command: &str, all: &[TextFile]) -> bool {
    let words: Vec<_> = command.split_whitespace().collect();
    let after = |flag: &str| words.iter().skip_while(|word| **word != flag).nth(1).copied();
    let name = after("-p").and_then(|it| it.strip_prefix("ferrolb-")).unwrap_or_default();
    let folder = FOLDERS.iter().find(|(crate_name, _)| *crate_name == name);
    let folder = format!("{}/", folder.map_or(name, |(_, folder)| folder));
    let filter = after("--").unwrap_or_default();
    let filter = if filter == PLACEHOLDER.0 { PLACEHOLDER.1 } else { filter };
    all.iter().filter(|file| file.path.starts_with(&folder)).any(|file| {
        let mut names = file.text.split("#[test]\n").skip(1);
        names.any(|test| {
            file.path.contains(filter)
                || test.split('(').next().unwrap_or_default().contains(filter)
        })
    })
}

#[test]
fn every_path_of_contributing_exists() {
    let all = files(&ENDINGS);
    let page = &all.iter().find(|file| file.path == PAGE).unwrap().text;
    let missing = paths(page).into_iter().filter(|path| !exists(path, &all));
    let missing: Vec<_> = missing.map(str::to_owned).collect();
    assert_none(&missing, &format!("correct these paths of {PAGE}:"));
    assert!(paths(page).len() > 10, "{:?}", paths(page));
}

#[test]
fn every_test_command_of_contributing_runs_a_test() {
    let all = files(&ENDINGS);
    let page = &all.iter().find(|file| file.path == PAGE).unwrap().text;
    let spans = page.split(['`', '\n']).filter(|it| it.contains("cargo test --locked -p"));
    let commands: BTreeSet<_> = spans.map(str::trim).collect();
    let empty = commands.iter().filter(|command| !runs_a_test(command, &all));
    let empty: Vec<_> = empty.map(ToString::to_string).collect();
    assert_none(&empty, &format!("these commands of {PAGE} run no test:"));
    assert!(commands.len() > 2 && page.contains(&format!("`{}`:", PLACEHOLDER.1)), "{commands:?}");
}
