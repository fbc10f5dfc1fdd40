//! Parts of the scenario about kube-router's BGP: second addresses of the nodes, routers with their
//! neighbors, arguments of kube-router, and FerroLB's objects.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{BgpNeighbor, Peering, Router, RouterKind};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Maximum time until sessions and routes are as expected: kube-router repeats a failed attempt
/// after seconds, and restarts node by node.
pub(super) const BGP_MAX: Duration = Duration::from_secs(120);
const ROLLOUT_MAX: &str = "--timeout=240s";
const DAEMON_SET: &str = "daemonset/kube-router";

/// Returns the IPv4 addresses of the nodes.
pub(super) fn addresses(lab: &Lab) -> BTreeSet<IpAddr> {
    let nodes = lab.nodes();
    nodes.iter().filter_map(|node| Some(IpAddr::V4(Host::named(node)?.v4()))).collect()
}

/// Returns the second address of a node.
pub(super) fn source_of(node: &str) -> Result<Ipv4Addr> {
    let [a, b, c, d] = Host::named(node).context("the lab has the node")?.v4().octets();
    Ok(Ipv4Addr::new(a, b, c, d + 50))
}

/// Gives each node a second address, and returns these addresses.
pub(super) fn add_addresses(lab: &Lab) -> Result<BTreeSet<IpAddr>> {
    let add = |node: &String| {
        let source = source_of(node)?;
        lab.exec(node, &["ip", "address", "add", &format!("{source}/24"), "dev", "eth0"])?;
        Ok(source.into())
    };
    lab.nodes().iter().map(add).collect()
}

pub(super) fn first_router(lab: &Lab) -> Result<Host> {
    let hosts = lab.state().facts()?.hosts();
    hosts.into_iter().find(|host| host.name == ROUTERS[0]).context("the lab has a router")
}

/// Starts FRR with these neighbors.
pub(super) fn start_router<'a, 'n>(
    lab: &'a Lab,
    host: &str,
    neighbors: impl Iterator<Item = &'n IpAddr>,
) -> Result<Router<'a>> {
    let neighbors = neighbors.map(|address| BgpNeighbor::new(*address, NODE_AS)).collect();
    let peering = Peering { neighbors, ..Peering::with_nodes(lab, host)? };
    Router::start_with_peering(lab, RouterKind::Frr, host, &peering)
}

/// Adds arguments to kube-router, and waits for its pods.
pub(super) fn add_arguments(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let path = "/spec/template/spec/containers/0/args/-";
    let add = |argument: &&str| json!({"op": "add", "path": path, "value": argument});
    let patch = Value::from_iter(arguments.iter().map(add)).to_string();
    lab.kubectl(&["-n", "kube-system", "patch", DAEMON_SET, "--type=json", "-p", &patch])?;
    lab.kubectl(&["-n", "kube-system", "rollout", "status", DAEMON_SET, ROLLOUT_MAX]).map(drop)
}

/// Waits until a router has established sessions with exactly these neighbors.
pub(super) fn wait_sessions(router: &Router, expect: &BTreeSet<IpAddr>) -> Result<()> {
    wait::until(&format!("{router} has its sessions"), BGP_MAX, || {
        let sessions = router.sessions()?;
        let up = sessions.iter().filter(|session| session.established);
        let up: BTreeSet<IpAddr> = up.map(|session| session.neighbor).collect();
        ensure!(up == *expect, "the router has {sessions:?}");
        Ok(Some(()))
    })
}

pub(super) fn peer(name: &str, router: &Host, more: Value) -> Value {
    let mut spec = json!({
        "myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": router.v4(), "holdTime": "3s", "connectTime": "1s",
    });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    object("v1beta2", "BGPPeer", name, &spec)
}

pub(super) fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind, "metadata": metadata, "spec": spec})
}
