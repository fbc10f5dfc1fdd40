//! Tests of the documentation: its pages, and their commands, which run in a lab or without a
//! cluster and must print the outputs of the pages.

mod compare;
mod functions;
mod normalize;
mod reports;
pub mod run;
pub mod runbook;
pub mod scenarios;
mod substitute;
#[cfg(test)]
mod summary;

pub use ferrolb_markdown::{Block, Marker, Page, Place, Topology};
pub use substitute::to_lab;

use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup::repository;
use std::fs;
use std::path::{Path, PathBuf};

/// Page at the root of the repository, and the folder of all other pages.
const README: &str = "README.md";
const DOCS: &str = "docs";

/// Reads a page of the repository by its path from the root.
///
/// # Errors
/// If there is no such page, or a block of the page has an unknown marker or no end.
pub fn read_page(path: &str) -> Result<Page> {
    let text = fs::read_to_string(repository().join(path))
        .with_context(|| format!("cannot read {path}"))?;
    parse(path, &text)
}

fn parse(path: &str, text: &str) -> Result<Page> {
    let page = Page::parse(path, text);
    let mut errors = page.blocks.iter().filter_map(|block| Some((block, block.error.as_ref()?)));
    if let Some((block, error)) = errors.next() {
        bail!("{}: {error}", page.position(block));
    }
    Ok(page)
}

/// Returns README.md and all pages in `docs/`, sorted by path.
///
/// # Errors
/// See [`read_page`].
pub fn pages() -> Result<Vec<Page>> {
    let root = repository();
    let mut paths = vec![root.join(README)];
    add_pages(&root.join(DOCS), &mut paths)?;
    paths.sort();
    let relative = |path: &PathBuf| path.strip_prefix(root).map(|path| path.display().to_string());
    paths.iter().map(|path| read_page(&relative(path)?)).collect()
}

fn add_pages(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            add_pages(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    ensure!(!paths.is_empty(), "there are no pages in {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_block_is_an_error_of_its_page() {
        let page = "```sh\nls\n```\n<!-- not run: -->\n```sh\nls\n```\n```\n";
        let error = parse("a.md", page).unwrap_err().to_string();
        assert!(error.starts_with("a.md:5: the marker \"not run:\" "), "{error}");
    }
}
