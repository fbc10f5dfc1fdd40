//! docs/migrate-from-metallb.md on a kubeadm cluster: all its commands run, with pods that stand in
//! for those of MetalLB, which serve nothing. The objects and Services of MetalLB are real. After
//! its rollback, the commands of the runbook of `migrate metallb --node-by-node` and those of
//! docs/migrate-in-place-from-metallb.md run.

use crate::metallb::{self, LAN, ROUTED};
use crate::scenario::{print_measured, run_scenario, step};
use crate::{bgp_migration, three_nodes, uninstall};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::node_name;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, Topology, read_page};
use serde_json::{Value, json};

const PAGE: &str = "docs/migrate-from-metallb.md";
const IN_PLACE: &str = "docs/migrate-in-place-from-metallb.md";
const HELM: &str = "docs/install/helm.md";
/// Part of the page about Helm for an installation side by side with MetalLB.
pub(crate) const SIDE_BY_SIDE: &str = "--set loadBalancerClass=ferrolb.io/ferrolb --set";
/// Part of the block that runs after all others of the page, before the in-place migration: the
/// deletion of MetalLB.
const LAST: &str = "delete deployment,daemonset --all";
/// Part of the block that stops MetalLB's speakers and starts FerroLB's BGP sessions.
const PEERS: &str = "|| kubectl apply -f peers.json";
/// Part of the installation, and the flag that the page adds for BGP.
const INSTALLATION: &str = "--set loadBalancerClass=ferrolb.io/ferrolb";
const WITH_BGP: &str = "--set loadBalancerClass=ferrolb.io/ferrolb --set bgp.enabled=true";

#[test]
fn commands_of_the_migration_pages_run_with_a_stand_in_for_metallb() {
    run_scenario(&Options { bgp: true, ..three_nodes("kubemetallb") }, |lab| {
        step("MetalLB's objects exist, and Services with addresses", || start_metallb(lab))?;
        let routers = step("routers for MetalLB's peers start", || metallb::start_routers(lab))?;
        let runner = Runner::in_lab(lab)?;
        step("Helm installs FerroLB side by side with MetalLB", || {
            let page = read_page(HELM)?;
            runner.block(&page, page.commands_with(SIDE_BY_SIDE)?)?;
            lab.kubectl(&["-n", "ferrolb-system", "rollout", "status", "daemonset/speaker"])?;
            uninstall::remove(lab, uninstall::BY_HELM)
        })?;
        let (page, start) = (read_page(PAGE)?, wait::now());
        let blocks = page.blocks_for(Topology::Kubeadm);
        for block in blocks.iter().filter(|block| !block.text.contains(LAST)) {
            let text = block.text.replace(INSTALLATION, WITH_BGP);
            runner.block(&page, &Block { text, ..(*block).clone() })?;
            if block.text.contains("kubectl annotate services") {
                step("FerroLB serves a Service on layer 2", || metallb::wait_served(lab, LAN))?;
            }
            if block.text.contains(PEERS) {
                step("FerroLB serves a Service by BGP", || {
                    metallb::wait_routes(&routers, ROUTED.1, &[1, 2, 3])
                })?;
            }
        }
        let took = start.elapsed().as_secs_f64();
        step("MetalLB's controller annotates the Services, and FerroLB leaves them", || {
            metallb::serve(lab)?;
            metallb::wait_reported(lab)
        })?;
        bgp_migration::run(lab, &routers)?;
        step("MetalLB's objects return, and FerroLB is removed", || {
            metallb::create_objects(lab)?;
            uninstall::remove(lab, uninstall::BY_HELM)
        })?;
        runner.block(&page, page.commands_with(LAST)?)?;
        runner.page(&read_page(IN_PLACE)?, Topology::Kubeadm)?;
        step("FerroLB serves the Services with MetalLB's objects", || {
            metallb::wait_served(lab, LAN)?;
            metallb::wait_routes(&routers, ROUTED.1, &[1, 2, 3])
        })?;
        step("kubectl ferrolb shows the use of the pools", || {
            let status = lab.shell("kubectl ferrolb status -o json")?;
            let status: Value = serde_json::from_str(&status)?;
            let used: Vec<_> = status["pools"].as_array().into_iter().flatten().collect();
            let used: Vec<_> = used.iter().map(|it| (&it["pool"], &it["services"])).collect();
            let expect = [(&json!(LAN.0), &json!(1)), (&json!(ROUTED.0), &json!(1))];
            ensure!(used == expect, "the pools are {used:?}");
            Ok(())
        })?;
        print_measured(&format!("{PAGE}: {} blocks in {took:.1} s", blocks.len()));
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::remove(lab, &[uninstall::BY_HELM, &[uninstall::METALLB_NAMESPACE]].concat())
        })
    });
}

/// Creates MetalLB's objects. All nodes may announce, also the control plane.
fn start_metallb(lab: &Lab) -> Result<()> {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers-";
    lab.kubectl(&["label", "node", &node_name(1), label])?;
    metallb::start(lab)
}

/// Returns the blocks of a page that this scenario runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    Ok(match page.path.as_str() {
        PAGE | IN_PLACE => page.blocks_for(Topology::Kubeadm),
        HELM => vec![page.commands_with(SIDE_BY_SIDE)?],
        uninstall::PAGE => vec![page.commands_with(uninstall::METALLB_NAMESPACE)?],
        _ => Vec::new(),
    })
}
