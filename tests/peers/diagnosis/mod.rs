//! `kubectl ferrolb check` and `why` name five injected faults, without logs; README.md has the
//! drawing and the faults.

use crate::expect::wait_sessions_with;
use crate::objects::{NAMESPACE, host, object};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::nodes::proxy_name;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS};
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// Maximum time until a fault is found, and until it is found no more: a BGP session needs the
/// most.
const FOUND_MAX: Duration = Duration::from_secs(60);
const ROUTER: &str = "tor1";
const RANGE: &str = "172.30.0.200-172.30.0.209";
/// Node of the only pod.
const NODE: &str = "node1";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A fault, and the texts that name it.
struct Fault<'a> {
    name: &'a str,
    /// Code of the finding of `check`.
    code: &'a str,
    /// Text in the explanation of the Service; empty: the Service is not affected.
    why: &'a str,
    inject: &'a dyn Fn(&Lab) -> Result<()>,
    remove: &'a dyn Fn(&Lab) -> Result<()>,
}

#[test]
fn check_and_why_name_five_injected_faults() {
    run_scenario(&Options { bgp: true, ..Options::named("diagnosis") }, |lab| {
        lab.start_ferrolb()?;
        let config = RouterKind::Gobgp.config(&Peering::with_nodes(lab, ROUTER)?);
        let router = Router::start(lab, RouterKind::Gobgp, ROUTER, &config)?;
        step("a Service is announced on layer 2 and by BGP", || set_up(lab, &router))?;
        for fault in faults() {
            step(fault.name, || {
                (fault.inject)(lab)?;
                wait_found(lab, &fault, true)?;
                (fault.remove)(lab)?;
                wait_found(lab, &fault, false)
            })?;
        }
        router.stop()
    });
}

fn faults() -> [Fault<'static>; 5] {
    [
        Fault {
            name: "wrong range",
            code: "FLB033",
            why: "no interface that announces 10.99.0.0 has a subnet with it",
            inject: &|lab| lab.apply_objects(&[pool("10.99.0.0/28")]),
            remove: &|lab| lab.apply_objects(&[pool(RANGE)]),
        },
        Fault {
            name: "exclude label",
            code: "FLB071",
            why: "no: labeled exclude-from-external-load-balancers",
            inject: &|lab| lab.kubectl(&["label", "node", NODE, &format!("{EXCLUDE}=")]).map(drop),
            remove: &|lab| lab.kubectl(&["label", "node", NODE, &format!("{EXCLUDE}-")]).map(drop),
        },
        Fault {
            name: "kube-proxy down",
            code: "FLB014",
            why: "kube-proxy unhealthy",
            inject: &|lab| lab.stop(&proxy_name(NODE), Signal::TERM),
            remove: &|lab| lab.restart(&proxy_name(NODE)),
        },
        Fault {
            name: "ServiceLB",
            code: "FLB023",
            why: "",
            inject: &|lab| lab.apply_objects(&[service_lb()]),
            remove: &|lab| {
                lab.kubectl(&["-n", "kube-system", "delete", "daemonset", "svclb-web"]).map(drop)
            },
        },
        Fault {
            name: "BGPPeer with a wrong AS",
            code: "FLB052",
            why: "no session with tor1 (",
            inject: &|lab| lab.apply_objects(&[peer(lab, ROUTER_AS + 1)?]),
            remove: &|lab| lab.apply_objects(&[peer(lab, ROUTER_AS)?]),
        },
    ]
}

fn set_up(lab: &Lab, router: &Router<'_>) -> Result<()> {
    lab.pod("web", NODE, &[("app", "web")])?;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
    lab.apply_objects(&[
        pool(RANGE),
        object("v1beta1", "L2Advertisement", "all", &json!({})),
        object("v1beta1", "BGPAdvertisement", "all", &json!({})),
        peer(lab, ROUTER_AS)?,
        json!({"apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": "web", "namespace": "default"}}),
    ])?;
    let nodes = lab.nodes();
    let nodes = nodes.iter().filter_map(|name| Host::named(name));
    let addresses: Vec<_> = nodes.map(|node| IpAddr::V4(node.v4())).collect();
    wait_sessions_with(router, &addresses)?;
    wait::until("no fault is found", FOUND_MAX, || {
        let check = lab.shell("kubectl ferrolb check --strict -o short || true")?;
        ensure!(check.trim().is_empty(), "check finds: {check}");
        let why = lab.shell("kubectl ferrolb why web")?;
        ensure!(why.contains("default/web: Announced"), "{why}");
        Ok(Some(()))
    })
}

fn pool(range: &str) -> Value {
    object("v1beta1", "IPAddressPool", "lan", &json!({"addresses": [range]}))
}

fn peer(lab: &Lab, asn: u32) -> Result<Value> {
    let spec = json!({"myASN": NODE_AS, "peerASN": asn, "peerAddress": host(lab, ROUTER)?.v4(),
        "holdTime": "3s", "connectTime": "1s"});
    Ok(object("v1beta2", "BGPPeer", ROUTER, &spec))
}

/// Returns a DaemonSet as k3s creates it for a Service.
fn service_lb() -> Value {
    let labels = json!({"app": "svclb-web"});
    let container = json!({"name": "lb-tcp-80", "image": "rancher/klipper-lb:v0.4.13"});
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "svclb-web", "namespace": "kube-system", "labels": {
            "svccontroller.k3s.cattle.io/svcname": "web",
            "svccontroller.k3s.cattle.io/svcnamespace": "default"}},
        "spec": {"selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}})
}

/// Waits until `check` and `why` name a fault, or none of them does and the Service is announced.
fn wait_found(lab: &Lab, fault: &Fault<'_>, is_found: bool) -> Result<()> {
    wait::until(&format!("the fault is found: {is_found}"), FOUND_MAX, || {
        let check = lab.shell("kubectl ferrolb check --strict -o short || true")?;
        let why = lab.shell("kubectl ferrolb why web || true")?;
        let found = check.contains(fault.code);
        ensure!(found == is_found, "found by check: {found}\n{check}");
        let explained = !fault.why.is_empty() && why.contains(fault.why);
        let expected = is_found && !fault.why.is_empty();
        ensure!(explained == expected, "explained by why: {explained}\n{why}");
        ensure!(is_found || check.trim().is_empty(), "check still finds: {check}");
        ensure!(is_found || why.contains("default/web: Announced"), "{NAMESPACE}: {why}");
        Ok(Some(()))
    })
}
