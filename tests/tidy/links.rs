//! Checks that the targets of all links in the documentation exist, and all pages of `docs/` that
//! the code names.

use ferrolb_markdown::Page;
use std::collections::BTreeMap;
use std::iter;

use crate::tree::{assert_none, files, pages, root};

/// Folder whose pages mdBook renders.
const BOOK: &str = "docs/";
/// The table of contents, which only mdBook shows.
pub(crate) const CONTENTS: &str = "docs/SUMMARY.md";

/// Beginnings of the addresses of files and folders on GitHub.
const GITHUB_FILE: &str = "https://github.com/ferrolb/ferrolb/blob/main/";
const GITHUB_FOLDER: &str = "https://github.com/ferrolb/ferrolb/tree/main/";

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

/// A target of a link in the repository.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// Path from the repository's root.
    path: String,
    /// Heading on the page `path`, or an empty string.
    anchor: String,
    /// Kind of an address on GitHub, or `None` for a relative link.
    kind: Option<GithubKind>,
}

/// Kind of an address on GitHub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GithubKind {
    File,
    Folder,
}

impl Target {
    /// Returns the target of a link on a page, or `None` if the link leads out of the repository.
    fn of(page: &str, link: &str) -> Option<Self> {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let (path, kind) = if let Some(path) = file.strip_prefix(GITHUB_FILE) {
            (path.to_owned(), Some(GithubKind::File))
        } else if let Some(path) = file.strip_prefix(GITHUB_FOLDER) {
            (path.to_owned(), Some(GithubKind::Folder))
        } else if file.contains("://") || file.starts_with("mailto:") {
            return None;
        } else if file.is_empty() {
            (page.to_owned(), None)
        } else {
            (resolve(page, file), None)
        };
        Some(Self { path, anchor: anchor.to_owned(), kind })
    }

    /// Returns whether the file or folder exists, and the heading, if there is an anchor.
    fn exists(&self, anchors: &BTreeMap<&str, Vec<String>>) -> bool {
        let path = root().join(&self.path);
        let has_kind = match self.kind {
            Some(GithubKind::File) => path.is_file(),
            Some(GithubKind::Folder) => path.is_dir(),
            None => path.exists(),
        };
        let has_anchor =
            || anchors.get(self.path.as_str()).is_some_and(|all| all.contains(&self.anchor));
        has_kind && (self.anchor.is_empty() || has_anchor())
    }
}

/// Returns why mdBook shows a link on a page of `docs/` as a dead link, or `None`. mdBook renders
/// the pages of `docs/` only. It renders a `README.md` as `index.html`, but links to `README.html`,
/// so only the table of contents may name a `README.md`.
fn book_problem(page: &str, link: &str) -> Option<&'static str> {
    let target = Target::of(page, link).filter(|target| target.kind.is_none())?;
    if !page.starts_with(BOOK) {
        None
    } else if !target.path.starts_with(BOOK) {
        Some("outside of docs/: write https://github.com/ferrolb/ferrolb/blob/main/PATH, or tree")
    } else if target.path.ends_with("/README.md") && page != CONTENTS {
        Some("a README.md has no address in mdBook: rename the page, for example to index.md")
    } else {
        None
    }
}

#[test]
fn every_link_and_image_has_a_target_file_and_heading() {
    let pages = pages();
    let anchors: BTreeMap<_, _> =
        pages.iter().map(|page| (page.path.as_str(), anchors(page))).collect();
    let mut problems = Vec::new();
    for page in &pages {
        for link in &page.links {
            let Some(target) = Target::of(&page.path, &link.target) else { continue };
            // A page does not know where the root of the repository is shown.
            if !target.exists(&anchors) || link.target.starts_with('/') {
                problems.push(format!("{}:{}: {}", page.path, link.line, link.target));
            }
        }
    }
    assert_none(&problems, "the targets of these links do not exist:");
}

#[test]
fn links_of_the_book_lead_to_rendered_pages() {
    let mut problems = Vec::new();
    for page in pages() {
        for link in &page.links {
            let found = book_problem(&page.path, &link.target);
            problems.extend(
                found.map(|it| format!("{}:{}: {}: {it}", page.path, link.line, link.target)),
            );
        }
    }
    assert_none(&problems, "mdBook shows these links as dead links:");
}

#[test]
fn an_address_on_github_names_a_file_or_a_folder() {
    let anchors = BTreeMap::from([("README.md", vec!["quick-start".to_owned()])]);
    let exists =
        |link: &str| Target::of("docs/concepts.md", link).map(|target| target.exists(&anchors));
    let file = |path: &str| exists(&format!("{GITHUB_FILE}{path}"));
    let folder = |path: &str| exists(&format!("{GITHUB_FOLDER}{path}"));
    for found in [file("README.md"), file("README.md#quick-start"), folder("docs"), folder("docs/")]
    {
        assert_eq!(found, Some(true));
    }
    for missing in [file("docs"), file("none"), file("README.md#none"), folder("README.md")] {
        assert_eq!(missing, Some(false));
    }
    for outside in ["https://github.com/ferrolb/ferrolb", "https://k8s.io/#a", "mailto:a@b.c"] {
        assert_eq!(exists(outside), None, "{outside}");
    }
}

#[test]
fn a_link_of_the_book_stays_in_docs_and_names_no_readme() {
    const CONCEPTS: &str = "docs/concepts.md";
    const L2: &str = "docs/configure/l2.md";
    let github = format!("{GITHUB_FILE}README.md");
    let cases = [
        (CONCEPTS, "configure/l2.md#d", None),
        (CONCEPTS, "#d", None),
        (L2, "../concepts.md", None),
        (L2, "../images/d.svg", None),
        (CONCEPTS, &*github, None),
        (CONCEPTS, "https://k8s.io/README.md", None),
        ("README.md", "docs/README.md", None),
        ("README.md", "deploy", None),
        (CONTENTS, "b/README.md", None),
        (CONCEPTS, "../deploy/base/rbac.yaml", Some("outside")),
        (L2, "../../CHANGELOG.md#d", Some("outside")),
        (CONTENTS, "../README.md", Some("outside")),
        (CONCEPTS, "README.md", Some("README")),
        (CONCEPTS, "b/README.md#d", Some("README")),
    ];
    for (page, link, expect) in cases {
        let found = book_problem(page, link);
        let agrees =
            expect.map_or(found.is_none(), |part| found.is_some_and(|it| it.contains(part)));
        assert!(agrees, "{page} {link}: {found:?}");
    }
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
    let page = Page::parse("p.md", "# A `b c`: d\n## Use\n## Use-1\n## Use\n## Use\n");
    assert_eq!(anchors(&page), ["a-b-c-d", "use", "use-1", "use-2", "use-3"]);
}

#[test]
fn every_page_and_heading_named_in_code_exists() {
    let pages = pages();
    let anchors: BTreeMap<_, _> = pages.iter().map(|page| (&*page.path, anchors(page))).collect();
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
            let Some(heading) = rest[end..].strip_prefix('#') else { continue };
            let end = heading.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            let heading = &heading[..end.unwrap_or(heading.len())];
            let exists = anchors.get(page).is_none_or(|all| all.iter().any(|it| it == heading));
            if !heading.is_empty() && !exists {
                problems.push(format!("{}: {page}#{heading}", file.path));
            }
        }
    }
    assert_none(&problems, "the code names pages or headings that do not exist:");
}
