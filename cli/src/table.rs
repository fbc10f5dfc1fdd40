//! Tables of text with aligned columns, lists of names, and ages. Pure.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write as _;

use tabwriter::TabWriter;

const COLUMN_GAP: usize = 3;
/// Number of names that a text lists.
const NAMED_MAX: usize = 5;

/// Marks of rows and findings: nothing to do, a warning, a problem.
pub const GOOD: char = '✓';
pub const WARNING: char = '!';
pub const PROBLEM: char = '✗';

/// Returns a text of the cluster in a form that changes nothing but its own place in a terminal: a
/// control character becomes its escape sequence in Rust, such as `\\u{1b}`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped =
        |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Returns a table with these columns and rows. An empty cell shows `-`.
#[must_use]
pub fn table<const N: usize>(
    columns: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(COLUMN_GAP);
    let mut line = |cells: [&str; N]| {
        let cells = cells.map(|cell| if cell.is_empty() { "-".into() } else { one_line(cell) });
        // Writing into memory cannot fail.
        _ = writeln!(writer, "{}", cells.join("\t"));
    };
    line(columns);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Returns an age as `kubectl` prints it: `45s`, `12m`, `3h`, `5d`. Empty if `since` is unknown.
#[must_use]
pub fn age(since: Option<i64>, now: i64) -> String {
    let Some(since) = since else { return String::new() };
    let seconds = now.saturating_sub(since).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns the first names of a list, and the number of the others.
#[must_use]
pub fn first_names<T: Display>(names: &[T]) -> String {
    let first: Vec<_> = names.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => first.join(", "),
        others => format!("{} and {others} others", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_show_a_dash() {
        assert_eq!(one_line("a\u{1b}[2Jb\n"), r"a\u{1b}[2Jb\n");
        let rows = [["web", "10.0.0.1"], ["database", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(
            table(["SERVICE", "ADDRESS"], rows.into_iter()),
            "SERVICE    ADDRESS\nweb        10.0.0.1\ndatabase   -\n"
        );
    }

    #[test]
    fn ages_have_one_unit() {
        let ages =
            [0, 119, 120, 7_200, 172_800, -5].map(|seconds| age(Some(1_000 - seconds), 1_000));
        assert_eq!(ages, ["0s", "119s", "2m", "2h", "2d", "0s"]);
        assert_eq!(age(None, 1_000), "");
    }
}
