//! Hop count between node and router: ebgpMultiHop and TTL security at both ends; README.md has the
//! drawing.

use crate::connection_attempts;
use crate::expect::{has_paths, sessions_with};
use crate::objects::{self, ADDRESSES, BGP_MAX, object, prefix};
use crate::reported;
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};

/// The router that accepts packets from direct neighbors only, and that forwards between the node
/// and the router behind it.
const NEAR: &str = ROUTERS[0];
/// A router without a check of hops.
const PLAIN: &str = ROUTERS[1];

#[test]
fn a_session_needs_the_same_hop_limits_at_both_ends() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("distance") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("a Service, announced to all", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])
        })?;
        let far = step("FRR behind a router", || {
            [NEAR, OUTSIDE]
                .into_iter()
                .try_for_each(|host| connection_attempts::start(lab, host))?;
            start(lab, OUTSIDE, "ebgp-multihop")
        })?;
        step("no packet reaches it that is for a neighbour", || {
            apply_peers(lab, OUTSIDE, &json!({}))?;
            wait::until("attempts that do not get through", BGP_MAX, || {
                Ok(connection_attempts::counted(lab, NEAR)?
                    .iter()
                    .all(|count| *count > 0)
                    .then_some(()))
            })?;
            let through = connection_attempts::counted(lab, OUTSIDE)?;
            ensure!(through == [0, 0], "{through:?} attempts got through");
            sessions_with(&far, &[])?;
            wait_no_session(lab, &node, OUTSIDE, "no connection to the router")
        })?;
        step("with ebgpMultiHop there are sessions", || {
            apply_peers(lab, OUTSIDE, &json!({"ebgpMultiHop": true}))?;
            all_there(&far, &node)
        })?;
        let near = step("FRR that takes packets of a neighbour alone", || {
            start(lab, NEAR, "ttl-security hops 1")
        })?;
        let plain = step("BIRD that asks for nothing", || {
            Router::with(lab, RouterKind::Bird, PLAIN, &Peering::with_nodes(lab, PLAIN)?)
        })?;
        step("of two ends of which one alone asks for it none hears the other", || {
            apply_peers(lab, NEAR, &json!({}))?;
            apply_peers(lab, PLAIN, &json!({"ttlSecurityHops": 1}))?;
            // FRR checks hops only some time after it accepts a connection: the node's first
            // message may arrive, but none after it.
            wait_no_session(lab, &node, NEAR, "sends no OPEN")?;
            wait_no_session(lab, &node, PLAIN, "TTL security")?;
            sessions_with(&near, &[])?;
            sessions_with(&plain, &[])
        })?;
        step("where both ask for it, or none does, there are sessions", || {
            apply_peers(lab, NEAR, &json!({"ttlSecurityHops": 1}))?;
            apply_peers(lab, PLAIN, &json!({}))?;
            all_there(&near, &node)?;
            all_there(&plain, &node)
        })
    });
}

/// Starts FRR with an additional line for each neighbor.
fn start<'a>(lab: &'a Lab, host: &str, line: &str) -> Result<Router<'a>> {
    let peering = Peering::with_nodes(lab, host)?;
    let lines = peering
        .neighbours
        .iter()
        .map(|neighbour| format!(" neighbor {} {line}\n", neighbour.address));
    let config = format!(
        "{}router bgp {ROUTER_AS}\n{}",
        RouterKind::Frr.config(&peering),
        lines.collect::<String>()
    );
    Router::start(lab, RouterKind::Frr, host, &config)
}

/// Applies the BGPPeers of a router, with these additional fields.
fn apply_peers(lab: &Lab, host: &str, more: &Value) -> Result<()> {
    let mut peers = objects::peers(lab, host)?;
    for spec in peers.iter_mut().filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.extend(more.as_object().cloned().unwrap_or_default());
    }
    lab.apply_objects(&peers)
}

/// Waits until the speaker reports that there is no session with a router, and why.
fn wait_no_session(lab: &Lab, node: &Host, host: &str, why: &str) -> Result<()> {
    let names = ADDRESSES.map(|address| objects::peer_name(host, address));
    names.iter().try_for_each(|peer| reported::wait_no_session(lab, &node.name, peer, &[why]))
}

fn all_there(router: &Router, node: &Host) -> Result<()> {
    sessions_with(router, &node.addresses())?;
    let path = |(address, hop)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: router.kind().local_pref_outside(),
        ..BgpRoute::default()
    };
    has_paths(router, ADDRESSES.into_iter().zip(node.addresses()).map(path).collect())
}
