//! Hop count between node and router: ebgpMultiHop and TTL security at both ends; README.md has the
//! drawing.

use crate::connection_attempts;
use crate::expect::{wait_exact_paths, wait_sessions_with};
use crate::in_containers;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, prefix};
use crate::reported;
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};

/// The router that accepts packets of direct neighbors only. It forwards between the node and the
/// far router.
const NEAR_ROUTER: &str = ROUTERS[0];
/// A router without a hop limit.
const UNLIMITED_ROUTER: &str = ROUTERS[1];

#[test]
fn a_session_needs_the_same_hop_limits_at_both_ends() {
    run_scenario(&in_containers("hoplimits"), |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("a Service is advertised to all routers", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])
        })?;
        let far = step("FRR starts behind a router", || {
            [NEAR_ROUTER, OUTSIDE]
                .into_iter()
                .try_for_each(|host| connection_attempts::start(lab, host))?;
            start_frr(lab, OUTSIDE, "ebgp-multihop")
        })?;
        step("without ebgpMultiHop, no packet reaches the far router", || {
            apply_peers(lab, OUTSIDE, &json!({}))?;
            wait::until("the near router receives connection attempts", BGP_MAX, || {
                Ok(connection_attempts::counted(lab, NEAR_ROUTER)?
                    .iter()
                    .all(|count| *count > 0)
                    .then_some(()))
            })?;
            let forwarded = connection_attempts::counted(lab, OUTSIDE)?;
            ensure!(forwarded == [0, 0], "{forwarded:?} attempts reached the far router");
            wait_sessions_with(&far, &[])?;
            wait_no_session(lab, &node, OUTSIDE, &["no connection to the router"])
        })?;
        step("with ebgpMultiHop, the sessions with the far router are established", || {
            apply_peers(lab, OUTSIDE, &json!({"ebgpMultiHop": true}))?;
            wait_sessions_and_paths(&far, &node)
        })?;
        let near = step("FRR starts with TTL security for direct neighbors", || {
            start_frr(lab, NEAR_ROUTER, "ttl-security hops 1")
        })?;
        let plain = step("BIRD starts without a hop limit", || {
            Router::start_with_peering(
                lab,
                RouterKind::Bird,
                UNLIMITED_ROUTER,
                &Peering::with_nodes(lab, UNLIMITED_ROUTER)?,
            )
        })?;
        step("with TTL security at one end only, no session is established", || {
            apply_peers(lab, NEAR_ROUTER, &json!({}))?;
            apply_peers(lab, UNLIMITED_ROUTER, &json!({"ttlSecurityHops": 1}))?;
            // FRR applies the hop limit only some time after it accepts a connection, so the node's
            // first message may arrive, but no later one.
            let causes = ["sends no OPEN", "the hold time expired"];
            wait_no_session(lab, &node, NEAR_ROUTER, &causes)?;
            wait_no_session(lab, &node, UNLIMITED_ROUTER, &["TTL security"])?;
            wait_sessions_with(&near, &[])?;
            wait_sessions_with(&plain, &[])
        })?;
        step("with TTL security at both ends or none, the sessions are established", || {
            apply_peers(lab, NEAR_ROUTER, &json!({"ttlSecurityHops": 1}))?;
            apply_peers(lab, UNLIMITED_ROUTER, &json!({}))?;
            wait_sessions_and_paths(&near, &node)?;
            wait_sessions_and_paths(&plain, &node)
        })
    });
}

/// Starts FRR with an additional configuration line for each neighbor.
fn start_frr<'a>(lab: &'a Lab, host: &str, line: &str) -> Result<Router<'a>> {
    let peering = Peering::with_nodes(lab, host)?;
    let lines =
        peering.neighbors.iter().map(|neighbor| format!(" neighbor {} {line}\n", neighbor.address));
    let config = format!(
        "{}router bgp {ROUTER_AS}\n{}",
        RouterKind::Frr.config(&peering),
        lines.collect::<String>()
    );
    Router::start(lab, RouterKind::Frr, host, &config)
}

/// Applies the BGPPeers of a router, with these additional fields.
fn apply_peers(lab: &Lab, host: &str, fields: &Value) -> Result<()> {
    let mut peers = objects::peers(lab, host)?;
    for spec in peers.iter_mut().filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.extend(fields.as_object().cloned().unwrap_or_default());
    }
    lab.apply_objects(&peers)
}

/// Waits until the speaker reports the sessions with a router as not established, with one of these
/// causes.
fn wait_no_session(lab: &Lab, node: &Host, host: &str, causes: &[&str]) -> Result<()> {
    let names = ADDRESSES.map(|address| objects::peer_name(host, address));
    names.iter().try_for_each(|peer| reported::wait_no_session(lab, &node.name, peer, causes))
}

/// Waits until a router has both sessions and the paths of both addresses.
fn wait_sessions_and_paths(router: &Router, node: &Host) -> Result<()> {
    wait_sessions_with(router, &node.addresses())?;
    let path = |(address, hop)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: router.kind().default_local_pref(),
        ..BgpRoute::default()
    };
    wait_exact_paths(router, ADDRESSES.into_iter().zip(node.addresses()).map(path).collect())
}
