//! Comparison of an output with the output that a page shows. Pure.

use crate::normalize;

/// Placeholder of a page: as a line for any lines, as a word for any words.
pub(super) const ANY: &str = "...";

/// A line of one of the outputs: as it is, and its normalized words.
struct Line<'a> {
    text: &'a str,
    words: Vec<String>,
}

impl Line<'_> {
    /// Returns whether the line is a next hop as `ip route` prints it below its route.
    fn is_next_hop(&self) -> bool {
        self.words.first().is_some_and(|word| word == "nexthop")
    }
}

/// Smallest change from the expected lines to the actual lines, from a position to both ends.
#[derive(Clone, Copy, Default)]
struct Change {
    lines: usize,
    next: Step,
}

/// First step of a [`Change`].
#[derive(Clone, Copy, Default)]
enum Step {
    #[default]
    End,
    Both,
    /// An expected line that is missing, or a placeholder that ends.
    Expected,
    /// An actual line that is not expected, or that a placeholder stands for.
    Actual,
}

/// Compares an output with the expected one. Returns `None` if they agree, or all lines with `-`
/// before a missing line and `+` before an unexpected one.
///
/// Empty lines and runs of spaces do not count, and neither do ages, times, node names, node ports,
/// hardware addresses, cluster IPs and the random parts of pod names. The next hops of a route may
/// have any order, as the kernel prints them in the order of their arrival.
pub(super) fn differences(expected: &str, actual: &str) -> Option<String> {
    let (expected, actual) = (lines(expected), lines(actual));
    let table = changes(&expected, &actual);
    (table[0][0].lines > 0).then(|| describe(&expected, &actual, &table))
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let lines = text.lines().map(|text| Line { text, words: normalize::words(text) });
    let mut lines: Vec<Line<'_>> = lines.filter(|line| !line.words.is_empty()).collect();
    for next_hops in lines.chunk_by_mut(|line, next| line.is_next_hop() && next.is_next_hop()) {
        next_hops.sort_by(|line, other| line.words.cmp(&other.words));
    }
    lines
}

/// Returns the smallest change from each position of both outputs.
fn changes(expected: &[Line<'_>], actual: &[Line<'_>]) -> Vec<Vec<Change>> {
    let mut table = vec![vec![Change::default(); actual.len() + 1]; expected.len() + 1];
    for i in (0..=expected.len()).rev() {
        for j in (0..=actual.len()).rev() {
            let (line, other) = (expected.get(i), actual.get(j));
            let placeholder = line.is_some_and(|line| line.words == [ANY]);
            let cost = usize::from(!placeholder);
            let both = line.zip(other).filter(|(line, other)| matches(&line.words, &other.words));
            let options = [
                both.map(|_| (table[i + 1][j + 1].lines, Step::Both)),
                line.map(|_| (table[i + 1][j].lines + cost, Step::Expected)),
                other.map(|_| (table[i][j + 1].lines + cost, Step::Actual)),
            ];
            let best = options.into_iter().flatten().min_by_key(|(lines, _)| *lines);
            table[i][j] = best.map_or(Change::default(), |(lines, next)| Change { lines, next });
        }
    }
    table
}

fn describe(expected: &[Line<'_>], actual: &[Line<'_>], table: &[Vec<Change>]) -> String {
    let (mut i, mut j) = (0, 0);
    let mut described = String::new();
    loop {
        let change = table[i][j];
        let (sign, text) = match change.next {
            Step::End => return described,
            Step::Both => (' ', actual[j].text),
            Step::Expected => {
                (if expected[i].words == [ANY] { ' ' } else { '-' }, expected[i].text)
            }
            Step::Actual => {
                let placeholder = expected.get(i).is_some_and(|line| line.words == [ANY]);
                (if placeholder { ' ' } else { '+' }, actual[j].text)
            }
        };
        i += usize::from(matches!(change.next, Step::Both | Step::Expected));
        j += usize::from(matches!(change.next, Step::Both | Step::Actual));
        described += &format!("{sign} {text}\n");
    }
}

/// Returns whether the words agree; [`ANY`] stands for any words.
fn matches(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((word, rest)) if word == ANY => {
            (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..]))
        }
        Some((word, rest)) => actual
            .split_first()
            .is_some_and(|(first, others)| word == first && matches(rest, others)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_agree_apart_from_what_differs_between_clusters() {
        for (expected, actual, agree) in [
            ("a b\n", "a    b", true),
            ("NAME AGE\nweb 5s\n\n", "NAME   AGE\nweb    17m\n", true),
            ("owner node1", "owner node3", true),
            ("172.30.0.240", "172.30.0.241", false),
            ("...", "a\nb", true),
            ("...", "", true),
            ("a\n...\nd", "a\nb\nc\nd", true),
            ("a\n...\nd", "a\nd", true),
            ("a\n...\nd", "a\nb\nc", false),
            ("...\nb", "a\na\nb\nb", true),
            ("a ... d", "a b c d", true),
            ("a ... d", "a d", true),
            ("a ...", "a b c", true),
            ("... d", "a b c", false),
            ("a ... c ... e", "a b c d e", true),
            ("a", "a\nb", false),
            ("a\nb", "a", false),
            ("r\nnexthop a\nnexthop b\ns", "r\nnexthop b\nnexthop a\ns", true),
            ("r\nnexthop a\nnexthop b\ns", "r\nnexthop b\nnexthop b\ns", false),
            ("nexthop a\nr\nnexthop b", "nexthop b\nr\nnexthop a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            let found = differences(expected, actual);
            assert_eq!(found.is_none(), agree, "{expected:?} and {actual:?}: {found:?}");
        }
    }

    #[test]
    fn differences_are_listed_between_common_lines() {
        for (expected, actual, expect) in [
            ("a\nb\nc", "a\nx\nc", "  a\n- b\n+ x\n  c\n"),
            ("a\n...\nz", "a\nb\ny", "  a\n  b\n  y\n- z\n"),
            (
                "NAME  AGE\nweb   5s",
                "NAME   AGE\nnew    7s",
                "  NAME   AGE\n- web   5s\n+ new    7s\n",
            ),
            ("a", "", "- a\n"),
        ] {
            assert_eq!(differences(expected, actual).as_deref(), Some(expect), "{expected:?}");
        }
    }
}
