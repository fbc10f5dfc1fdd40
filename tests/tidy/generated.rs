//! Generated files: the comparison with the repository, and Markdown for the generated pages of
//! docs/reference/. The test `reference` of the crate `ferrolb-tests` includes this file.

use std::fs;
use std::path::Path;

/// Maximum width of a paragraph, in characters.
const COLUMNS_MAX: usize = 100;

/// Fails if a file differs from its generated text. With the variable `FERROLB_UPDATE_SNAPSHOTS`,
/// writes the file first. `command` is the part of the update command after `cargo test`.
pub(crate) fn check(root: &Path, file: &str, text: &str, command: &str) {
    let path = root.join(file);
    #[expect(
        clippy::disallowed_methods,
        reason = "the variable is an option of this test, not of a component"
    )]
    if std::env::var("FERROLB_UPDATE_SNAPSHOTS").is_ok() {
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {file}: {error}"));
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "{file} differs from its source: \
         run FERROLB_UPDATE_SNAPSHOTS=1 cargo test {command}, and read the diff"
    );
}

/// Returns the beginning of a generated page: the title, the comment for developers, and the first
/// paragraph.
pub(crate) fn head(title: &str, source: &str, command: &str, introduction: &str) -> String {
    let introduction = paragraph(introduction);
    format!(
        "# {title}\n\n<!-- Generated from {source}: do not edit. After a change there:\n\
         FERROLB_UPDATE_SNAPSHOTS=1 cargo test {command} -->\n{introduction}"
    )
}

/// Returns text as inline code, or an empty string for an empty text.
pub(crate) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
}

/// Returns text for one cell of a table, or for a paragraph: on one line, without HTML.
pub(crate) fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "&lt;")
}

/// Returns a paragraph, wrapped at 100 columns.
pub(crate) fn paragraph(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in one_line(text).split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= COLUMNS_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    format!("\n{}\n", lines.join("\n"))
}

/// Returns a table after a blank line, or an empty string for a table without rows.
pub(crate) fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ")).replace("|  |", "| |");
    let names: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(columns.len()));
    let rows = rows.iter().map(|row| line(row)).collect::<String>();
    format!("\n{}{rule}{rows}", line(&names))
}
