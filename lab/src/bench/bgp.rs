//! BGP: time from endpoint removed to route withdrawn at the router, with one Service and with ten
//! thousand; and ten thousand routes: time until the router has all of them, their memory, and
//! routes lost when the speakers restart.
//!
//! The lab has three nodes, each with a gobgpd, and one router. The router is BIRD. FRR has one row
//! only, because it delays every received route by 50 ms (a hold time of its queue for best paths),
//! with any announcer.

mod routes;
mod ten_thousand;
mod withdraw;

use super::report::Findings;
use super::targets::{BGP_ENDPOINT_CHANGE, BGP_ENDPOINT_CHANGE_FRR};
use super::{in_lab, settle};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER};
use crate::routers::{Peering, Router, RouterKind};
use crate::setup::Tools;
use crate::topology::CONTROL_PLANE;
use crate::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use crate::{Lab, Options};
use anyhow::{Context, Result};
use serde_json::json;

/// Host of the router.
const ROUTER: &str = ROUTERS[0];
/// Pool of all addresses; no network of the lab contains it.
const POOL: &str = "10.200.0.0/16";

/// Runs this benchmark in a lab without kube-proxies. No client connects, so kube-proxies would
/// only use processor time.
///
/// # Errors
/// If a session is not established, or the router does not receive or remove a route in time.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    in_lab(tools, &Options { bgp: true, proxy_mode: None, ..options.clone() }, |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
        apply_config(lab)?;
        settle::wait_for_pools(lab)?;
        let nodes = lab.nodes();
        nodes.iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
        settle::wait_settled(lab)?;
        let mut findings =
            with_router(lab, RouterKind::Bird, |_| withdraw::run(lab, &BGP_ENDPOINT_CHANGE))?;
        findings.extend(with_router(lab, RouterKind::Frr, |_| {
            withdraw::run(lab, &BGP_ENDPOINT_CHANGE_FRR)
        })?);
        findings
            .extend(with_router(lab, RouterKind::Bird, |router| ten_thousand::run(lab, router))?);
        Ok(findings)
    })
}

fn with_router(
    lab: &Lab,
    kind: RouterKind,
    work: impl FnOnce(&Router<'_>) -> Result<Findings>,
) -> Result<Findings> {
    let router = Router::start_with_peering(lab, kind, ROUTER, &Peering::with_nodes(lab, ROUTER)?)?;
    let findings = work(&router).with_context(|| format!("{router}"))?;
    router.stop()?;
    Ok(findings)
}

/// Applies the pool, the peer, and an advertisement of all addresses.
fn apply_config(lab: &Lab) -> Result<()> {
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
