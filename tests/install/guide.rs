//! Commands of README.md and docs/ that need only Helm or kustomize, and the Helm values of the
//! pages.

use crate::chart;
use anyhow::{Context, Result, anyhow};
use ferrolb_lab::scenario::print_measured;
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Marker, Page, Topology, pages};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Directory of this test's files.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/pages");

#[test]
fn commands_without_a_cluster_print_the_outputs_of_the_pages() {
    run_all().unwrap_or_else(|error| panic!("{error:#}"));
}

fn run_all() -> Result<()> {
    let pages = pages()?;
    let pages: Vec<&Page> = pages.iter().filter(|page| page.needs(Topology::Install)).collect();
    let mut count = 0;
    for (index, page) in pages.iter().enumerate() {
        let folder = Path::new(FOLDER).join(index.to_string());
        // A failed run left its files.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        count += Runner::without_cluster(folder)?.page(page, Topology::Install)?;
    }
    fs::remove_dir_all(FOLDER).context("no page has commands")?;
    print_measured(&format!("{count} blocks of {} pages ran without a cluster", pages.len()));
    Ok(())
}

#[test]
fn the_chart_accepts_the_values_of_the_pages() {
    let (mut count, mut problems) = (0, Vec::new());
    for page in pages().unwrap_or_else(|error| panic!("{error:#}")) {
        let blocks = page.blocks.iter().filter(|block| block.marker == Some(Marker::HelmValues));
        for block in blocks {
            count += 1;
            let values = serde_saphyr::from_str::<Value>(&block.text);
            let rendered = values
                .map_err(|error| anyhow!("not YAML: {error}"))
                .and_then(|values| chart::objects(&values));
            if let Err(error) = rendered {
                problems.push(format!("{}: {error:#}", page.position(block)));
            }
        }
    }
    assert!(problems.is_empty(), "the chart refuses these values:\n{}", problems.join("\n"));
    print_measured(&format!("the chart accepts {count} blocks of values"));
}
