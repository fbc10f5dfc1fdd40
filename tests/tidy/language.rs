//! The language rules of CONTRIBUTING.md that a program can check: line width, first words of
//! comments, and words for which the glossary has another term.

use crate::tree::{TextFile, assert_none, files, pages};

/// Maximum width of comments and Markdown, in characters.
const COLUMNS_MAX: usize = 100;

/// Words that begin no comment, because they hide the subject of a sentence.
const OPENERS: [&str; 5] = ["What ", "Whether ", "Who ", "Whoever ", "That "];

/// Words that must not be used, and the terms that replace them. Only whole words match, in any
/// case.
const TERMS: [(&str, &str); 30] = [
    ("anew", "again"),
    ("answer for", "announce, own"),
    ("answered for", "announced, owned"),
    ("answers for", "announces, owns"),
    ("asks", "requests"),
    ("beside", "side by side with, next to"),
    ("data path", "kube-proxy health"),
    ("dead node", "failed node"),
    ("deaf", "isolated"),
    ("gives up", "releases"),
    ("given up", "released"),
    ("hears", "receives"),
    ("heed", "honor"),
    ("in vain", "without effect"),
    ("last resort", "de-preferred"),
    ("lest", "so that ... not"),
    ("likewise", "also"),
    ("mend", "fix"),
    ("muted", "standby"),
    ("no more", "no longer"),
    ("nobody", "no node, no host, no router"),
    ("of use", "useful"),
    ("on the wire", "on the network segment"),
    ("one a node", "one per node"),
    ("orphan", "unowned address"),
    ("somebody", "another host"),
    ("stranger", "foreign host"),
    ("strangers", "foreign hosts"),
    ("takeover", "in-place migration"),
    ("tells", "reports, sends"),
];

/// Returns the Rust string literals on a line, without quotes and with escapes unchanged.
fn literals(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(begin) = rest.find('"') {
        let text = &rest[begin + 1..];
        let mut escaped = false;
        let end = text.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            found.push(text);
            break;
        };
        found.push(&text[..end]);
        rest = &text[end + 1..];
    }
    found
}

/// Returns whether `text` contains `words` as whole words, in any case.
fn contains_words(text: &str, words: &str) -> bool {
    let text = text.to_lowercase();
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        let letter =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        !letter(before) && !letter(after)
    })
}

/// Returns a problem for each word of [`TERMS`] in a line.
fn term_problems(path: &str, number: usize, text: &str) -> impl Iterator<Item = String> {
    TERMS
        .iter()
        .filter(move |(words, _)| contains_words(text, words))
        .map(move |(words, term)| format!("{path}:{number}: \"{words}\" -> \"{term}\""))
}

/// Returns the text of a comment line, without the comment sign, or `None` for other lines.
fn comment<'a>(path: &str, line: &'a str) -> Option<&'a str> {
    let line = line.trim_start();
    let signs: &[&str] =
        if path.ends_with(".rs") || path.ends_with(".go") { &["///", "//!", "//"] } else { &["#"] };
    signs.iter().find_map(|sign| line.strip_prefix(sign)).map(str::trim_start)
}

/// Returns the source and configuration files whose comments people read.
fn files_with_comments() -> Vec<TextFile> {
    files(&[".rs", ".go", ".toml", ".yaml", ".yml", ".sh", "Dockerfile", ".ci/run", ".ci/compute"])
}

/// Returns a line of Markdown without the targets of its links, which cannot be wrapped.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "]" + part.split_once(')').map_or("", |(_, rest)| rest))
}

#[test]
fn comments_and_pages_fit_into_100_columns() {
    let mut problems = Vec::new();
    let too_long = |line: &str| line.chars().count() > COLUMNS_MAX && !line.contains("://");
    for file in files_with_comments() {
        let comments =
            file.text.lines().enumerate().filter(|(_, line)| comment(&file.path, line).is_some());
        let long = comments.filter(|(_, line)| too_long(line));
        problems.extend(long.map(|(index, _)| format!("{}:{}", file.path, index + 1)));
    }
    for page in pages() {
        let long = page.lines.iter().filter(|(_, line)| too_long(&without_targets(line)));
        problems.extend(long.map(|(number, _)| format!("{}:{number}", page.path)));
    }
    assert_none(&problems, "wrap these lines at 100 columns:");
}

#[test]
fn no_comment_begins_with_a_relative_clause() {
    let mut problems = Vec::new();
    for file in files_with_comments() {
        for (index, line) in file.text.lines().enumerate() {
            let Some(text) = comment(&file.path, line) else { continue };
            if OPENERS.iter().any(|opener| text.starts_with(opener)) {
                problems.push(format!("{}:{}: {text}", file.path, index + 1));
            }
        }
    }
    assert_none(&problems, "begin these comments with the name of a thing, or with a verb:");
}

#[test]
fn pages_use_the_terms_of_the_glossary() {
    let mut problems = Vec::new();
    for page in pages() {
        for text in &page.texts {
            problems.extend(term_problems(&page.path, text.line, &text.without_code));
        }
    }
    assert_none(&problems, "use the terms of docs/reference/glossary.md on these pages:");
}

#[test]
fn messages_use_the_terms_of_the_glossary() {
    let is_component = |path: &str| {
        ["proto/", "core/", "runtime/", "controller/", "speaker/"]
            .iter()
            .any(|part| path.starts_with(part))
            && path.contains("/src/")
            && !path.contains("/tests")
    };
    let mut problems = Vec::new();
    for file in files(&[".rs"]).into_iter().filter(|file| is_component(&file.path)) {
        let tests_begin = file.text.find("#[cfg(test)]").unwrap_or(file.text.len());
        for (index, line) in file.text[..tests_begin].lines().enumerate() {
            if comment(&file.path, line).is_some() {
                continue;
            }
            // A literal of one word is a name or a metric, and no message.
            for text in literals(line).into_iter().filter(|text| text.contains(' ')) {
                problems.extend(term_problems(&file.path, index + 1, text));
            }
        }
    }
    assert_none(&problems, "use the terms of docs/reference/glossary.md in these messages:");
}

#[test]
fn text_functions_find_words_literals_and_comments() {
    assert!(contains_words("a stranger answers", "stranger"));
    assert!(!contains_words("strangers_total", "strangers"));
    assert_eq!(literals(r#"f("a \"b\" c", "d")"#), [r#"a \"b\" c"#, "d"]);
    assert_eq!(comment("a.rs", "    /// What it is"), Some("What it is"));
    assert_eq!(comment("a.yaml", "  # Text"), Some("Text"));
    assert_eq!(without_targets("a [b](c.md#d) e ![f](g.svg)."), "a [b] e ![f].");
}
