//! How far away a router may be, by what the two ends ask of packets' hops; the drawing is in README.md.

use crate::expect::{sees, standing};
use crate::knocks;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, prefix};
use crate::said;
use anyhow::{Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Route, Router};
use ferrolb_tests::stage::{play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, OUTSIDE, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};

/// The router that takes packets of a neighbour alone, and that between the node and the one behind it.
const NEAR: &str = ROUTERS[0];
/// A router that asks for nothing.
const PLAIN: &str = ROUTERS[1];

#[test]
fn a_session_goes_as_far_as_both_ends_have_it() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("distance") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("a Service, announced to all", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])
        })?;
        let far = step("FRR behind a router", || {
            [NEAR, OUTSIDE].into_iter().try_for_each(|host| knocks::count(lab, host))?;
            start(lab, OUTSIDE, "ebgp-multihop")
        })?;
        step("no packet reaches it that is for a neighbour", || {
            say(lab, OUTSIDE, &json!({}))?;
            wait::until("attempts that do not get through", BGP_MAX, || {
                Ok(knocks::counted(lab, NEAR)?.iter().all(|count| *count > 0).then_some(()))
            })?;
            let through = knocks::counted(lab, OUTSIDE)?;
            ensure!(through == [0, 0], "{through:?} attempts got through");
            standing(&far, &[])?;
            unheard(lab, &node, OUTSIDE, "no connection to the router")
        })?;
        step("with ebgpMultiHop there are sessions", || {
            say(lab, OUTSIDE, &json!({"ebgpMultiHop": true}))?;
            all_there(&far, &node)
        })?;
        let near = step("FRR that takes packets of a neighbour alone", || start(lab, NEAR, "ttl-security hops 1"))?;
        let plain = step("BIRD that asks for nothing", || {
            Router::with(lab, Kind::Bird, PLAIN, &Peering::with_nodes(lab, PLAIN)?)
        })?;
        step("of two ends of which one alone asks for it none hears the other", || {
            say(lab, NEAR, &json!({}))?;
            say(lab, PLAIN, &json!({"ttlSecurityHops": 1}))?;
            // FRR looks at hops a moment after it took a connection: the node's first word may get through, and none after it.
            unheard(lab, &node, NEAR, "nothing")?;
            unheard(lab, &node, PLAIN, "TTL security")?;
            standing(&near, &[])?;
            standing(&plain, &[])
        })?;
        step("where both ask for it, or none does, there are sessions", || {
            say(lab, NEAR, &json!({"ttlSecurityHops": 1}))?;
            say(lab, PLAIN, &json!({}))?;
            all_there(&near, &node)?;
            all_there(&plain, &node)
        })
    });
}

/// FRR with one line more for each neighbour.
fn start<'a>(lab: &'a Lab, host: &str, line: &str) -> Result<Router<'a>> {
    let peering = Peering::with_nodes(lab, host)?;
    let lines = peering.neighbours.iter().map(|neighbour| format!(" neighbor {} {line}\n", neighbour.address));
    let config = format!("{}router bgp {ROUTER_AS}\n{}", Kind::Frr.config(&peering), lines.collect::<String>());
    Router::start(lab, Kind::Frr, host, &config)
}

/// The BGPPeers of a router, with these fields besides.
fn say(lab: &Lab, host: &str, more: &Value) -> Result<()> {
    let mut peers = objects::peers(lab, host)?;
    for spec in peers.iter_mut().filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.extend(more.as_object().cloned().unwrap_or_default());
    }
    lab.apply_objects(&peers)
}

/// Waits until the speaker says that there is no session with a router, and why.
fn unheard(lab: &Lab, node: &Host, host: &str, why: &str) -> Result<()> {
    let names = ADDRESSES.map(|address| objects::peer_name(host, address));
    names.iter().try_for_each(|peer| said::wait_why(lab, &node.name, peer, &[why]))
}

fn all_there(router: &Router, node: &Host) -> Result<()> {
    standing(router, &node.addresses())?;
    let path = |(address, hop)| Route {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: router.kind().local_pref_outside(),
        ..Route::default()
    };
    sees(router, ADDRESSES.into_iter().zip(node.addresses()).map(path).collect())
}
