//! docs/migrate-from-metallb.md on a kubeadm cluster: all its commands run, with pods that stand in
//! for those of MetalLB, which serve nothing. The objects and a Service of MetalLB are real.

use crate::scenario::{print_measured, run_scenario, step};
use crate::{three_nodes, uninstall, web};
use anyhow::{Result, ensure};
use ferrolb_lab::pages::run::Runner;
use ferrolb_lab::pages::{Block, Page, Topology};
use ferrolb_lab::setup::repository;
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};

const PAGE: &str = "docs/migrate-from-metallb.md";
const METALLB: &str = "metallb-system";
/// CustomResourceDefinitions of MetalLB.
const CRDS: [&str; 2] =
    ["tests/cluster/fixtures/metallb_crds.yaml", "tests/peers/metallb_migration/metallb_crds.yaml"];
/// Service of MetalLB, and its address.
const SERVICE: &str = "old";
const ADDRESS: &str = "172.30.0.230";
/// Parts of the blocks that run after all others of the page: the deletion of MetalLB and the
/// in-place migration.
const LAST: [&str; 2] = ["delete deployment,daemonset --all", "--set metallbNamespace"];

#[test]
fn commands_of_the_migration_page_run_with_a_stand_in_for_metallb() {
    run_scenario(&Options { bgp: true, ..three_nodes("kubemetallb") }, |lab| {
        step("MetalLB's objects exist, and a Service with an address", || start_metallb(lab))?;
        let (runner, page, start) = (Runner::in_lab(lab)?, Page::read(PAGE)?, wait::now());
        let is_last = |block: &Block| LAST.iter().any(|part| block.text.contains(part));
        let blocks = page.blocks_for(Topology::Kubeadm);
        for block in blocks.iter().filter(|block| !is_last(block)) {
            runner.block(&page, block)?;
            if block.text.contains("kubectl annotate services") {
                step("FerroLB serves the Service at its address", || wait_served(lab))?;
            }
        }
        step("FerroLB is removed", || uninstall::remove(lab, uninstall::BY_HELM))?;
        for part in LAST {
            runner.block(&page, page.commands_with(part)?)?;
        }
        step("FerroLB serves the Service with MetalLB's objects", || wait_served(lab))?;
        print_measured(&format!(
            "{PAGE}: {} blocks in {:.1} s",
            blocks.len(),
            start.elapsed().as_secs_f64()
        ));
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::remove(lab, &[uninstall::BY_HELM, &[uninstall::METALLB_NAMESPACE]].concat())
        })
    });
}

fn wait_served(lab: &Lab) -> Result<()> {
    let servers = web::wait_pages(lab, SERVICE)?;
    ensure!(servers[0].ip().to_string() == ADDRESS, "the Service has the addresses {servers:?}");
    Ok(())
}

/// Creates MetalLB's objects, and the state of a Service as MetalLB leaves it.
fn start_metallb(lab: &Lab) -> Result<()> {
    web::run_deployment(lab)?;
    CRDS.iter().try_for_each(|file| lab.apply_file(&repository().join(file)))?;
    lab.apply_objects(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": METALLB}}),
        frr_configurations(),
    ])?;
    lab.apply_objects(&objects())?;
    lab.apply_objects(&[
        web::stand_in("Deployment", METALLB, "controller"),
        web::stand_in("DaemonSet", METALLB, "speaker"),
        web::stand_in("DaemonSet", METALLB, "frr-k8s"),
        service(),
    ])?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}).to_string();
    lab.kubectl(&["patch", "service", SERVICE, "--subresource=status", "-p", &status])?;
    lab.kubectl(&["-n", METALLB, "rollout", "status", "daemonset/speaker", web::ROLLOUT_MAX])
        .map(drop)
}

/// Returns one object of each kind that MetalLB has, and the Secret of the BGPPeer.
fn objects() -> Vec<Value> {
    let object = |version: &str, kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": format!("metallb.io/{version}"), "kind": kind,
            "metadata": {"name": name, "namespace": METALLB}, "spec": spec,
        })
    };
    vec![
        object("v1beta1", "IPAddressPool", "old", json!({"addresses": [format!("{ADDRESS}/31")]})),
        object("v1beta1", "L2Advertisement", "old", json!({"ipAddressPools": ["old"]})),
        object("v1beta1", "BGPAdvertisement", "old", json!({"communities": ["ours"]})),
        object("v1beta1", "BFDProfile", "fast", json!({"detectMultiplier": 3})),
        object(
            "v1beta1",
            "Community",
            "names",
            json!({"communities": [{"name": "ours", "value": "64500:100"}]}),
        ),
        object(
            "v1beta2",
            "BGPPeer",
            "tor",
            json!({
                "myASN": 64500, "peerASN": 64512, "peerAddress": "172.30.0.101",
                "ebgpMultiHop": true, "passwordSecret": {"name": "tor"},
            }),
        ),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
            "metadata": {"name": "tor", "namespace": METALLB}, "stringData": {"password": "secret"},
        }),
    ]
}

/// Returns the CustomResourceDefinition of FRR-K8s that the page checks for.
fn frr_configurations() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "frrconfigurations.frrk8s.metallb.io",
        },
        "spec": {
            "group": "frrk8s.metallb.io", "scope": "Namespaced",
            "names": {"kind": "FRRConfiguration", "plural": "frrconfigurations"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": SERVICE, "annotations": {"metallb.io/ip-allocated-from-pool": "old"},
        },
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}

/// Returns the blocks of a page that this scenario runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    Ok(match page.path.as_str() {
        PAGE => page.blocks_for(Topology::Kubeadm),
        uninstall::PAGE => vec![page.commands_with(uninstall::METALLB_NAMESPACE)?],
        _ => Vec::new(),
    })
}
