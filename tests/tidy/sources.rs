//! Rules for every Rust file: size, head, name, and nothing unfinished or skipped.

use crate::tree::{TextFile, assert_none, files};

/// Above this a file is two. Most have about 150.
const FILE_LINES_MAX: usize = 500;

/// Names under which anything fits, so that they gather everything and own nothing.
const NAMES_FORBIDDEN: [&str; 6] = ["common", "core", "helper", "helpers", "misc", "utils"];

fn rust() -> Vec<TextFile> {
    files(&[".rs"])
}

/// One problem for each line of code, comments aside, that holds one of `words`.
fn lines_with(words: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in rust() {
        for (index, line) in file.text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && words.iter().any(|word| code.contains(word)) {
                problems.push(format!("{}:{}: {code}", file.path, index + 1));
            }
        }
    }
    problems
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut problems = Vec::new();
    for file in rust() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none(&problems, &format!("split these files by what they own, {FILE_LINES_MAX} lines at most:"));
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let headless = rust().into_iter().filter(|file| !file.text.starts_with("//! "));
    let problems: Vec<_> = headless.map(|file| file.path).collect();
    assert_none(&problems, "begin these files with //!: what it is, who runs it, what it owns:");
}

#[test]
fn no_module_has_a_name_that_fits_anything() {
    let parts = |path: &str| path.trim_end_matches(".rs").split('/').map(str::to_owned).collect::<Vec<_>>();
    let nameless = |path: &str| parts(path).iter().any(|part| NAMES_FORBIDDEN.contains(&part.as_str()));
    let problems: Vec<_> = rust().into_iter().map(|file| file.path).filter(|path| nameless(path)).collect();
    assert_none(&problems, "name these modules after what they own:");
}

#[test]
fn no_test_is_ignored() {
    // In two halves, so that this file does not find itself.
    let words = [concat!("#[ig", "nore"), concat!("cfg_attr(miri, ig", "nore")];
    assert_none(&lines_with(&words), "a test runs or goes; assert the wrong behaviour instead of skipping it:");
}

#[test]
fn nothing_is_left_to_do() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];
    assert_none(&lines_with(&words), "finish these or take them out:");
}
