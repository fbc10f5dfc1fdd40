//! Checks that the targets of all links in the documentation exist, and all pages of `docs/` that
//! the code names.

use std::collections::BTreeMap;
use std::iter;

use crate::markdown::{Page, pages, parse};
use crate::tree::{TextFile, assert_none, files, root};

/// Returns the anchor of a heading on GitHub, and the one in mdBook, before both add numbers to
/// repeated anchors.
fn anchor(heading: &str) -> (String, String) {
    let part = |c: char| match c {
        _ if c.is_whitespace() => Some('-'),
        _ if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
        _ => None,
    };
    let kept: String = heading.trim().chars().filter_map(part).collect();
    (kept.to_lowercase(), kept.to_ascii_lowercase())
}

/// Returns the anchors of a page's headings, in order. GitHub and mdBook add `-1`, `-2`, and so on
/// to repeated anchors.
fn anchors(page: &Page) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for heading in page.headings() {
        let (base, _) = anchor(&heading.text);
        let numbered = (1..).map(|number| format!("{base}-{number}"));
        let free = iter::once(base.clone()).chain(numbered).find(|name| !found.contains(name));
        found.extend(free);
    }
    found
}

/// Returns the path, from the repository's root, of a link target on a page.
pub(crate) fn resolve(page: &str, target: &str) -> String {
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

/// Returns whether a link leads out of the repository.
fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

#[test]
fn every_link_and_image_has_a_target_file_and_heading() {
    let pages = pages();
    let headings: BTreeMap<_, _> =
        pages.iter().map(|page| (page.path.as_str(), anchors(page))).collect();
    let mut problems = Vec::new();
    for page in &pages {
        for link in page.links.iter().filter(|link| !is_external(&link.target)) {
            let (file, anchor) = link.target.split_once('#').unwrap_or((&link.target, ""));
            let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
            let has_anchor =
                || headings.get(path.as_str()).is_some_and(|all| all.iter().any(|it| it == anchor));
            let is_found = root().join(&path).exists() && (anchor.is_empty() || has_anchor());
            // A page does not know where the root of the repository is shown.
            if !is_found || file.starts_with('/') {
                problems.push(format!("{}:{}: {}", page.path, link.line, link.target));
            }
        }
    }
    assert_none(&problems, "the targets of these links do not exist:");
}

#[test]
fn headings_have_the_same_anchor_on_github_and_in_mdbook() {
    let mut problems = Vec::new();
    for page in pages() {
        for heading in page.headings() {
            let (github, mdbook) = anchor(&heading.text);
            if github != mdbook || github.is_empty() {
                problems.push(format!("{}:{}: {}", page.path, heading.line, heading.text));
            }
        }
    }
    assert_none(&problems, "write these headings with English letters:");
}

#[test]
fn repeated_headings_have_numbered_anchors() {
    let text = "# A `b c`: d\n## Use\n## Use-1\n## Use\n## Use\n".to_owned();
    let page = parse(&TextFile { path: "p.md".to_owned(), text });
    assert_eq!(anchors(&page), ["a-b-c-d", "use", "use-1", "use-2", "use-3"]);
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
