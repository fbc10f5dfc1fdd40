//! Commands and objects of README.md and docs/ on a real cluster: the commands succeed and print
//! the outputs of the pages, and the API server accepts every object.

use crate::scenario::{print_measured, run_scenario, without_proxy};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::setup::repository;
use ferrolb_lab::{Lab, Options};
use ferrolb_tests::scenarios::{run_pages, start_ferrolb_and_pods};
use ferrolb_tests::{Block, Topology, pages};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// CustomResourceDefinitions of MetalLB, for objects of its group on the pages.
const METALLB_CRDS: &str = "tests/cluster/fixtures/metallb_crds.yaml";

#[test]
fn commands_of_the_pages_print_the_outputs_of_the_pages() {
    run_pages(Topology::Lab, &Options::named("page"), |lab, _| start_ferrolb_and_pods(lab));
}

#[test]
fn the_api_server_accepts_every_object_of_the_pages() {
    run_scenario(&without_proxy("objects"), |lab| {
        lab.install_ferrolb()?;
        lab.apply_file(&repository().join(METALLB_CRDS))?;
        let (mut count, mut problems) = (0, Vec::new());
        for page in pages()? {
            for block in page.blocks.iter().filter(|block| block.is_applied()) {
                count += 1;
                if let Err(error) = dry_run(lab, block) {
                    problems.push(format!("{}: {error:#}", page.position(block)));
                }
            }
        }
        ensure!(problems.is_empty(), "objects of the pages are refused:\n{}", problems.join("\n"));
        ensure!(count > 0, "the pages have no objects");
        print_measured(&format!("the API server accepts {count} blocks of the pages"));
        Ok(())
    });
}

/// Validates the objects of a block with the API server. Their namespaces are created.
fn dry_run(lab: &Lab, block: &Block) -> Result<()> {
    let objects = apply::objects(&block.text)?;
    let namespaces: BTreeSet<&str> =
        objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
    let namespaces: Vec<Value> = namespaces.into_iter().map(namespace).collect();
    lab.apply_objects(&namespaces)?;
    lab.api(async |client| apply::dry_run(&client, &objects).await)
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
