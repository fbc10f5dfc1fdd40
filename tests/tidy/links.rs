//! Checks that the targets of all links in the documentation exist, and all pages of `docs/` that
//! the code names.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{assert_none, files, root};

/// Returns the targets of all links `[text](target)` outside of code blocks, in order.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            found.push(rest.split(')').next().unwrap_or(rest));
        }
    }
    found
}

/// Returns the lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the anchors of a page's headings, as GitHub derives them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim());
    let slug = |heading: &str| {
        let characters =
            heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        characters.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    headings.map(slug).collect()
}

/// Returns the path, from the repository's root, of a link target on a page.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_has_a_target_file_and_heading() {
    let pages = files(&[".md"]);
    let headings: BTreeMap<_, _> =
        pages.iter().map(|page| (page.path.as_str(), anchors(&page.text))).collect();
    let mut problems = Vec::new();
    for page in &pages {
        for target in targets(&page.text).into_iter().filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
            let has_anchor =
                || headings.get(file.as_str()).is_some_and(|anchors| anchors.contains(anchor));
            if !root().join(&file).exists() || !(anchor.is_empty() || has_anchor()) {
                problems.push(format!("{}: {target}", page.path));
            }
        }
    }
    assert_none(&problems, "the targets of these links do not exist:");
}

#[test]
fn every_page_named_in_code_exists() {
    let mut problems = Vec::new();
    for file in files(&[".rs", ".toml", ".yaml", ".proto"]) {
        for (at, _) in file.text.match_indices("docs/") {
            let rest = &file.text[at..];
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "/-_.".contains(c)))
                .unwrap_or(rest.len());
            let page = rest[..end].trim_end_matches('.');
            if page.ends_with(".md") && !root().join(page).exists() {
                problems.push(format!("{}: {page}", file.path));
            }
        }
    }
    assert_none(&problems, "the code names pages that do not exist:");
}
