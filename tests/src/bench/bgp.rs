//! BGP: how soon a router knows that an endpoint is gone, with one Service and with ten thousand; and ten thousand routes: until the router has
//! them, what is held in memory for them, and how many it loses when the speakers start anew. The router is BIRD; FRR keeps what it hears for 50 ms
//! before it looks at it, and has one row.

mod gone;
mod routes;
mod ten_thousand;

use super::budgets::{BGP_GONE, BGP_GONE_FRR};
use super::report::Findings;
use super::{in_lab, rest};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER};
use crate::routers::{Kind, Peering, Router};
use crate::setup::Tools;
use crate::topology::CONTROL_PLANE;
use crate::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use crate::{Lab, Options};
use anyhow::{Context, Result};
use serde_json::json;

/// Where the router runs.
const ROUTER: &str = ROUTERS[0];
/// The addresses of all: no network of the lab has them.
const POOL: &str = "10.200.0.0/16";
/// How long a node that drains is the last resort: the default would make the run wait for a minute.
const DRAIN: [&str; 2] = ["--drain-delay", "5s"];

/// Raises a lab without kube-proxies, for nobody connects and they would only be kept busy.
///
/// # Errors
/// When a session does not come up, or routes do not come and go.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    in_lab(tools, &Options { bgp: true, proxy_mode: None, ..options.clone() }, |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
        say(lab)?;
        rest::wait_for_pools(lab)?;
        let nodes = lab.nodes();
        nodes.iter().try_for_each(|node| lab.start_speaker(node, &DRAIN))?;
        rest::wait_for(lab)?;
        let mut findings = beside(lab, Kind::Bird, |_| gone::run(lab, &BGP_GONE))?;
        findings.extend(beside(lab, Kind::Frr, |_| gone::run(lab, &BGP_GONE_FRR))?);
        findings.extend(beside(lab, Kind::Bird, |router| ten_thousand::run(lab, router))?);
        Ok(findings)
    })
}

fn beside(lab: &Lab, kind: Kind, work: impl FnOnce(&Router<'_>) -> Result<Findings>) -> Result<Findings> {
    let router = Router::with(lab, kind, ROUTER, &Peering::with_nodes(lab, ROUTER)?)?;
    let findings = work(&router).with_context(|| format!("{router}"))?;
    router.stop()?;
    Ok(findings)
}

/// The pool, the router, and that all is announced to it.
fn say(lab: &Lab) -> Result<()> {
    let object = |version: &str, kind: &str, spec| {
        json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind,
            "metadata": {"name": "bench", "namespace": "ferrolb-system"}, "spec": spec})
    };
    let address = lab.host(ROUTER)?.v4();
    let peer = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "connectTime": "1s"});
    lab.apply_objects(&[
        object("v1beta1", "IPAddressPool", json!({"addresses": [POOL]})),
        object("v1beta1", "BGPAdvertisement", json!({})),
        object("v1beta2", "BGPPeer", peer),
    ])
}
