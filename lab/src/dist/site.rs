//! The documentation as a website: mdBook renders `docs/`, and each link between the rendered files
//! is checked. A test of the sources checks the same at each commit, by mdBook's rules as they are
//! known; this check shows that mdBook follows them. The same pages result in the same archive.

use super::{at_tag, collect, pack};
use crate::run;
use crate::setup::{cargo_tools, repository};
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Version of mdBook, and its only feature that a site without a server needs.
const MDBOOK: &str = "0.5.4";
const MDBOOK_FLAGS: [&str; 3] = ["--no-default-features", "--features", "search"];
const ARCHIVE: &str = "site.tar.gz";

/// Renders the documentation and packs it into `folder`, with links to the files of the tag. Builds
/// mdBook if it is missing.
///
/// # Errors
/// If mdBook does not build or render, or if a link leads to a file or heading that does not exist.
pub fn site(folder: &Path) -> Result<()> {
    let mdbook = cargo_tools::install("mdbook", MDBOOK, &MDBOOK_FLAGS)?.join("mdbook");
    let tree = folder.join("tree");
    let mut build = Command::new(mdbook);
    build.arg("build").arg(repository().join("docs")).arg("--dest-dir").arg(tree.join("site"));
    run::run(&mut build)?;
    // mdBook copies every file next to the pages.
    fs::remove_file(tree.join("site/book.toml"))?;
    let problems = dead_links(&tree.join("site"))?;
    ensure!(problems.is_empty(), "dead links in the rendered pages:\n{}", problems.join("\n"));
    for page in pages(&tree.join("site"))? {
        fs::write(&page, at_tag(&fs::read_to_string(&page)?))?;
    }
    pack(&tree, &["site"], &folder.join(ARCHIVE)).map(drop)
}

/// Returns the rendered pages.
fn pages(site: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(site, &mut files)?;
    files.retain(|file| file.extension().is_some_and(|it| it == "html"));
    Ok(files)
}

/// Returns the links to files or headings that do not exist: page and link of each.
fn dead_links(site: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(site, &mut files)?;
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file)?;
        Ok((file, text))
    };
    let pages = pages(site)?.into_iter().map(read).collect::<Result<BTreeMap<_, _>>>()?;
    let anchors: BTreeMap<&PathBuf, BTreeSet<&str>> =
        pages.iter().map(|(page, text)| (page, values(text, "id").into_iter().collect())).collect();
    let files: BTreeSet<&PathBuf> = files.iter().collect();
    let is_dead = |page: &Path, link: &str| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = target(page, file);
        let has_anchor = || anchors.get(&target).is_some_and(|all| all.contains(anchor));
        !files.contains(&target) || !(anchor.is_empty() || has_anchor())
    };
    let mut dead = Vec::new();
    for (page, text) in &pages {
        let links = [values(text, "href"), values(text, "src")].concat();
        for link in links.into_iter().filter(|link| !is_external(link) && is_dead(page, link)) {
            dead.push(format!("{}: {link}", page.strip_prefix(site)?.display()));
        }
    }
    Ok(dead)
}

/// Returns the values of all attributes of a name. mdBook writes them in double quotes, and no
/// others in text.
fn values<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    page.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

/// Returns whether a link leaves the site, or names its root, whose address the site does not know.
fn is_external(link: &str) -> bool {
    link.contains("://") || link.starts_with("mailto:") || link == "/"
}

/// Returns the file to which a link on a page leads.
fn target(page: &Path, link: &str) -> PathBuf {
    if link.is_empty() {
        return page.to_owned();
    }
    let mut target = page.to_owned();
    target.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(target.pop()),
            "." | "" => {}
            name => target.push(name),
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_missing_file_or_heading_is_dead() {
        let folder = std::env::temp_dir().join(format!("ferrolb-site-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("index.html"), r##"<h1 id="top"></h1> <a href="#top">"##).unwrap();
        fs::write(folder.join("d.svg"), "").unwrap();
        let links = [
            ("../index.html", true),
            ("../index.html#top", true),
            ("./page.html#here", true),
            ("#here", true),
            ("../d.svg", true),
            ("https://k8s.io/#none", true),
            ("mailto:a", true),
            ("/", true),
            ("../index.html#none", false),
            ("index.html", false),
            ("#none", false),
            ("../d.svg#none", false),
            ("../../index.html", false),
        ];
        let page: String = links.iter().map(|(it, _)| format!("<a href=\"{it}\">\n")).collect();
        let page = format!("<p id=\"here\">\n{page}<img src=\"none.svg\">");
        fs::write(folder.join("deep/page.html"), page).unwrap();
        let found = dead_links(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let dead = links.iter().filter(|(_, exists)| !exists).map(|(link, _)| *link);
        let expect: Vec<_> =
            dead.chain(["none.svg"]).map(|it| format!("deep/page.html: {it}")).collect();
        assert_eq!(found.unwrap(), expect);
    }
}
