//! Scenarios of the pages: one lab for each page whose commands need it.

use super::run::Runner;
use super::{Page, Topology, all};
use crate::scenario::{print_measured, run_scenario};
use crate::{Lab, Options, wait};
use anyhow::Result;

/// Label of the pods that the Services of all pages select.
const POD_LABEL: (&str, &str) = ("app", "web");

/// Runs every page that needs `topology`, each in a lab of its own: first `prepare`, then the
/// blocks of the page. The labs wait for slots. `options` has the prefix of the labs' names.
///
/// # Panics
/// If a page fails, after all others have run.
pub fn run_pages(
    topology: Topology,
    options: &Options,
    prepare: impl Fn(&Lab, &Page) -> Result<()> + Sync,
) {
    let pages = all().unwrap_or_else(|error| panic!("{error:#}"));
    let pages: Vec<&Page> = pages.iter().filter(|page| page.needs(topology)).collect();
    assert!(!pages.is_empty(), "no page has commands for {topology}");
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let started = pages.iter().copied().enumerate().map(|(index, page)| {
            let name = format!("{}{index}", options.name);
            let (options, prepare) = (Options { name, ..options.clone() }, &prepare);
            (page, scope.spawn(move || run_page(topology, &options, page, prepare)))
        });
        let started: Vec<_> = started.collect();
        let results = started.into_iter().map(|(page, thread)| (page, thread.join()));
        results.filter(|(_, result)| result.is_err()).map(|(page, _)| page.path.as_str()).collect()
    });
    assert!(failed.is_empty(), "blocks of these pages fail: {failed:?}");
}

fn run_page(
    topology: Topology,
    options: &Options,
    page: &Page,
    prepare: impl Fn(&Lab, &Page) -> Result<()>,
) {
    run_scenario(options, |lab| {
        let start = wait::now();
        prepare(lab, page)?;
        let ready = wait::now();
        let count = Runner::in_lab(lab)?.page(page, topology)?;
        print_measured(&format!(
            "{}: {count} blocks in {:.1} s, after {:.1} s for FerroLB and pods",
            page.path,
            ready.elapsed().as_secs_f64(),
            (ready - start).as_secs_f64()
        ));
        Ok(())
    });
}

/// Starts FerroLB on a lab, and a web pod on each node.
///
/// # Errors
/// If a component does not become ready, or a pod cannot be started.
pub fn start_ferrolb_and_pods(lab: &Lab) -> Result<()> {
    lab.start_ferrolb()?;
    let mut pods = (1..).zip(lab.nodes());
    pods.try_for_each(|(index, node)| lab.pod(&format!("web-{index}"), &node, &[POD_LABEL]))
}
