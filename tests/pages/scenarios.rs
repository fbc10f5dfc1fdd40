//! Scenarios of the pages: a lab for each page whose commands need it, and one lab for all pages
//! that leave no trace.

use crate::run::{self, Runner};
use crate::{DOCS, pages, to_lab};
use anyhow::{Context, Result};
use ferrolb_lab::scenario::{print_measured, run_scenario};
use ferrolb_lab::setup::repository;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_markdown::{Page, Topology};
use std::fs;
use std::path::Path;

/// Folder with the objects that a reader of a page already has: `NAME.yaml` for the page
/// `NAME.md` in `docs/`.
const OBJECTS: &str = "tests/pages/objects";
/// Label of the pods that the Services of all pages select.
const POD_LABEL: (&str, &str) = ("app", "web");

/// Runs every page that needs `topology`: first `prepare`, then the objects of the page's reader,
/// then the blocks of the page. Each page has a lab of its own, apart from those of
/// [`Topology::Lab`] that leave no trace, which share one. The labs wait for slots. `options` has
/// the prefix of the labs' names.
///
/// # Panics
/// If a page fails, after all others have run.
pub fn run_pages(
    topology: Topology,
    options: &Options,
    prepare: impl Fn(&Lab, &Page) -> Result<()> + Sync,
) {
    let pages = pages().unwrap_or_else(|error| panic!("{error:#}"));
    let pages = pages.iter().filter(|page| page.needs(topology));
    let (traceless, others): (Vec<&Page>, Vec<&Page>) =
        pages.partition(|page| topology == Topology::Lab && leaves_no_trace(page, topology));
    let mut groups: Vec<Vec<&Page>> = others.into_iter().map(|page| vec![page]).collect();
    groups.extend((!traceless.is_empty()).then_some(traceless));
    assert!(!groups.is_empty(), "no page has commands for {topology}");
    let failed: Vec<String> = std::thread::scope(|scope| {
        let started = groups.iter().enumerate().map(|(index, pages)| {
            let name = format!("{}{index}", options.name);
            let (options, prepare) = (Options { name, ..options.clone() }, &prepare);
            (pages, scope.spawn(move || run_group(topology, &options, pages, prepare)))
        });
        let started: Vec<_> = started.collect();
        let results = started.into_iter().map(|(pages, thread)| (pages, thread.join()));
        results.filter(|(_, result)| result.is_err()).map(|(pages, _)| paths(pages)).collect()
    });
    assert!(failed.is_empty(), "blocks of these pages fail: {failed:?}");
}

fn paths(pages: &[&Page]) -> String {
    pages.iter().map(|page| page.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns whether the page's commands change nothing, and its reader needs no objects.
fn leaves_no_trace(page: &Page, topology: Topology) -> bool {
    let blocks = page.blocks_for(topology);
    blocks.iter().all(|block| !run::changes(block))
        && !repository().join(objects_file(page)).exists()
}

fn run_group(
    topology: Topology,
    options: &Options,
    pages: &[&Page],
    prepare: impl Fn(&Lab, &Page) -> Result<()>,
) {
    run_scenario(options, |lab| {
        let start = wait::now();
        let first = pages.first().context("a group of pages is empty")?;
        prepare(lab, first)?;
        let ready = wait::now();
        let mut count = 0;
        for page in pages {
            apply_objects(lab, page)?;
            count += Runner::in_lab(lab)?.page(page, topology)?;
        }
        print_measured(&format!(
            "{}: {count} blocks in {:.1} s, after {:.1} s for FerroLB and pods",
            paths(pages),
            ready.elapsed().as_secs_f64(),
            (ready - start).as_secs_f64()
        ));
        Ok(())
    });
}

/// Applies the objects that a reader of a page already has, if there are any, with the lab's
/// addresses. Waits for nothing: commands of pages that only read are repeated.
///
/// # Errors
/// If the file cannot be read, or the API server rejects an object.
pub fn apply_objects(lab: &Lab, page: &Page) -> Result<()> {
    let file = objects_file(page);
    let path = repository().join(&file);
    if !path.exists() {
        return Ok(());
    }
    let yaml = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    lab.apply(&to_lab(&yaml)).with_context(|| format!("in {file}"))
}

/// Returns the path of the file with the objects of a page's reader, which need not exist.
fn objects_file(page: &Page) -> String {
    let path = page.path.strip_prefix(DOCS).unwrap_or(&page.path);
    format!(
        "{OBJECTS}/{}",
        Path::new(path.trim_start_matches('/')).with_extension("yaml").display()
    )
}

/// Starts FerroLB on a lab, and a web pod on each node.
///
/// # Errors
/// If a component does not become ready, or a pod cannot be started.
pub fn start_ferrolb_and_pods(lab: &Lab) -> Result<()> {
    lab.start_ferrolb()?;
    start_pods(lab)
}

/// Starts a web pod on each node.
///
/// # Errors
/// If a pod cannot be started.
pub fn start_pods(lab: &Lab) -> Result<()> {
    let mut pods = (1..).zip(lab.nodes());
    pods.try_for_each(|(index, node)| lab.pod(&format!("web-{index}"), &node, &[POD_LABEL]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_objects_belongs_to_one_page() {
        let pages = pages().unwrap_or_else(|error| panic!("{error:#}"));
        let needs_lab = |page: &&Page| page.needs(Topology::Lab) || page.needs(Topology::Bgp);
        let files: Vec<_> = pages.iter().filter(needs_lab).map(objects_file).collect();
        let mut paths = vec![repository().join(OBJECTS)];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let path = path.strip_prefix(repository()).unwrap().display().to_string();
            let count = files.iter().filter(|file| **file == path).count();
            assert_eq!(count, 1, "pages with commands and the objects of {path}");
        }
    }
}
