//! Checks of every Rust file: length, module documentation, name, no unfinished code and no ignored
//! test.

use crate::tree::{TextFile, assert_none, files};

/// Maximum number of lines of a file. Most files have about 150.
const FILE_LINES_MAX: usize = 500;

/// Module names that describe no content.
const FORBIDDEN_NAMES: [&str; 6] = ["common", "core", "helper", "helpers", "misc", "utils"];
/// Folders of crates that may have such a name.
const CORES: [&str; 3] = ["core/", "controller/core/", "speaker/core/"];

fn rust_files() -> Vec<TextFile> {
    files(&[".rs"])
}

/// Returns a problem for each line of code that contains one of `words`. Comments do not count.
fn lines_with(words: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in rust_files() {
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
fn no_file_is_longer_than_the_limit() {
    let mut problems = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            problems.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none(&problems, &format!("split these files, {FILE_LINES_MAX} lines at most:"));
}

#[test]
fn every_file_begins_with_module_documentation() {
    let undocumented = rust_files().into_iter().filter(|file| !file.text.starts_with("//! "));
    let problems: Vec<_> = undocumented.map(|file| file.path).collect();
    assert_none(
        &problems,
        "begin these files with //!: their purpose, their thread or task, and the state they own:",
    );
}

#[test]
fn no_module_has_a_catch_all_name() {
    let is_forbidden = |path: &str| {
        let module = CORES.iter().find_map(|core| path.strip_prefix(core)).unwrap_or(path);
        module.trim_end_matches(".rs").split('/').any(|part| FORBIDDEN_NAMES.contains(&part))
    };
    let problems: Vec<_> =
        rust_files().into_iter().map(|file| file.path).filter(|path| is_forbidden(path)).collect();
    assert_none(&problems, "name these modules after their content:");
}

#[test]
fn no_test_is_ignored() {
    // Each word is split, so that this file does not match.
    let words = [concat!("#[ig", "nore"), concat!("cfg_attr(miri, ig", "nore")];
    assert_none(
        &lines_with(&words),
        "run or delete these tests; assert the wrong behavior instead of skipping it:",
    );
}

#[test]
fn no_unfinished_code_is_left() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];
    assert_none(&lines_with(&words), "finish or remove this code:");
}
