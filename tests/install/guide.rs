//! Commands of README.md and docs/ that need only Helm or kustomize, and the Helm values and
//! overlays of the pages.

use crate::{chart, kustomize};
use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::scenario::print_measured;
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Marker, Page, Topology, pages};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Line of an overlay on a page, and the overlay to which it adds images.
const OVERLAY: &str = "kind: Kustomization";
const BASE: &str = "l2";
/// Tag of FerroLB's images in `deploy/`.
const TAG: &str = "0.1.0";
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

#[test]
fn kustomize_replaces_the_images_of_the_overlays_of_the_pages() {
    let pages = pages().unwrap_or_else(|error| panic!("{error:#}"));
    let overlays = pages.iter().flat_map(|page| page.blocks.iter().map(move |block| (page, block)));
    let overlays: Vec<_> =
        overlays.filter(|(_, block)| block.text.lines().any(|line| line == OVERLAY)).collect();
    for (page, block) in &overlays {
        check_overlay(&block.text)
            .unwrap_or_else(|error| panic!("{}: {error:#}", page.position(block)));
    }
    assert!(!overlays.is_empty(), "no page has an overlay");
    print_measured(&format!("kustomize renders {} overlays of the pages", overlays.len()));
}

/// Renders an overlay. Checks that it differs from [`BASE`] in its images only.
fn check_overlay(kustomization: &str) -> Result<()> {
    let overlay: Value = serde_saphyr::from_str(kustomization)?;
    let mut expect = kustomize::build(BASE)?;
    for image in overlay["images"].as_array().context("the overlay has no images")? {
        let name = image["name"].as_str().context("an image has no name")?;
        let old = format!("image: {name}:{TAG}\n");
        ensure!(expect.contains(&old), "the overlay {BASE} has no line {old:?}");
        let new_name = image["newName"].as_str().unwrap_or(name);
        let new_tag = image["newTag"].as_str().unwrap_or(TAG);
        expect = expect.replace(&old, &format!("image: {new_name}:{new_tag}\n"));
    }
    let [found, expect] =
        [kustomize::build_mine(kustomization)?, expect].map(|yaml| sorted_objects(&yaml));
    ensure!(found? == expect?, "other parts than images differ");
    Ok(())
}

/// Returns the objects in the order of their kinds and names: an overlay may have its own order.
fn sorted_objects(yaml: &str) -> Result<Vec<Value>> {
    let mut objects = apply::objects(yaml)?;
    objects.sort_by_key(chart::kind_and_name);
    Ok(objects)
}
