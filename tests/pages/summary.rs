//! Numbers of blocks that run and do not run, for the output of a test.

use ferrolb_markdown::{Block, Marker, Page, SHELL, Topology, YAML};
use std::collections::BTreeMap;
use std::fmt;

/// Numbers of blocks by their markers.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn of<'a>(blocks: impl Iterator<Item = &'a Block>) -> Self {
        let mut counts = Self::default();
        for block in blocks.filter(|block| [SHELL, YAML].contains(&block.language.as_str())) {
            *counts.0.entry(name(block)).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.0.iter().map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(&counts.join(", "))
    }
}

fn name(block: &Block) -> String {
    match &block.marker {
        Some(Marker::Run(place)) => format!("run: {}", place.name()),
        Some(Marker::NotRun(reason)) => format!("not run: {reason}"),
        Some(Marker::NotApplied(reason)) => format!("not applied: {reason}"),
        Some(Marker::HelmValues) => "helm values".to_owned(),
        None if block.is_applied() => "applied".to_owned(),
        None => "without a marker".to_owned(),
    }
}

/// Returns a line for each page with blocks, and a line with the sums.
fn summary(pages: &[Page]) -> Vec<String> {
    let line = |page: &Page| (page.path.clone(), Counts::of(page.blocks.iter()));
    let lines = pages.iter().map(line).filter(|(_, counts)| !counts.0.is_empty());
    let mut lines: Vec<String> = lines.map(|(path, counts)| format!("{path}: {counts}")).collect();
    let run = |topology: Topology| {
        let blocks = pages.iter().flat_map(|page| &page.blocks);
        let count = blocks.filter(|block| block.runs_in(topology)).count();
        format!("{count} in the topology {topology}")
    };
    let blocks = pages.iter().flat_map(|page| &page.blocks);
    let not_run = blocks.filter(|block| matches!(block.marker, Some(Marker::NotRun(_)))).count();
    lines.push(format!(
        "blocks that run: {}; not run: {not_run}",
        Topology::ALL.map(run).join(", ")
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages;
    use ferrolb_lab::scenario::print_measured;

    #[test]
    fn every_marker_of_the_pages_selects_a_test() {
        let pages = pages().unwrap_or_else(|error| panic!("{error:#}"));
        let lines = summary(&pages);
        lines.iter().for_each(|line| println!("{line}"));
        print_measured(&lines[lines.len() - 1]);
        for topology in Topology::ALL {
            assert!(pages.iter().any(|page| page.needs(topology)), "no block runs in {topology}");
        }
    }

    #[test]
    fn blocks_are_counted_by_their_markers() {
        let text = "<!-- run: lab -->\n```sh\n```\n<!-- run: lab -->\n```yaml\n```\n<!-- not run: a -->\n```sh\n```\n```yaml\nkind: A\n```\n```text\n```\n";
        let page = Page::parse("a.md", text);
        assert_eq!(
            summary(&[page]),
            [
                "a.md: 1 applied, 1 not run: a, 2 run: lab",
                "blocks that run: 0 in the topology install, 2 in the topology lab, 0 in the topology bgp, 0 in the topology kubeadm; not run: 1"
            ]
        );
    }
}
