//! Checks of the pages of `docs/` as a whole: the table of contents, and the way from the first
//! page to each of them.

use ferrolb_markdown::Page;
use std::collections::BTreeSet;

use crate::links::{CONTENTS, resolve};
use crate::tree::{assert_none, pages};

/// The page from which a reader reaches all others.
const FIRST_PAGE: &str = "docs/README.md";

/// Returns the paths of the pages to which a page has links, from the repository's root, in order.
fn linked_pages(page: &Page) -> Vec<String> {
    let files = page.links.iter().map(|link| link.target.split('#').next().unwrap_or_default());
    files.filter(|file| file.ends_with(".md")).map(|file| resolve(&page.path, file)).collect()
}

#[test]
fn the_contents_list_every_page_once() {
    let all = pages();
    let listed: Vec<_> =
        all.iter().filter(|page| page.path == CONTENTS).flat_map(linked_pages).collect();
    let documents: BTreeSet<_> = all
        .iter()
        .map(|page| page.path.as_str())
        .filter(|path| path.starts_with("docs/") && *path != CONTENTS)
        .collect();
    let missing = documents.iter().filter(|path| !listed.iter().any(|it| it == *path));
    let mut problems: Vec<_> = missing.map(|path| format!("not listed: {path}")).collect();
    for (index, path) in listed.iter().enumerate() {
        if listed[..index].contains(path) {
            problems.push(format!("listed twice: {path}"));
        }
        if !documents.contains(path.as_str()) {
            problems.push(format!("not a page of docs/: {path}"));
        }
    }
    assert_none(&problems, &format!("{CONTENTS} lists every page of docs/ once:"));
}

#[test]
fn every_page_is_reachable_from_the_first_page() {
    let all = pages();
    let mut reached = BTreeSet::new();
    let mut queue = vec![FIRST_PAGE.to_owned()];
    while let Some(path) = queue.pop() {
        let Some(page) = all.iter().find(|page| page.path == path) else { continue };
        if reached.insert(path) {
            queue.extend(linked_pages(page));
        }
    }
    let problems: Vec<_> = all
        .iter()
        .map(|page| page.path.clone())
        .filter(|path| path.starts_with("docs/") && path != CONTENTS && !reached.contains(path))
        .collect();
    assert_none(&problems, &format!("no chain of links from {FIRST_PAGE} leads to these pages:"));
}
