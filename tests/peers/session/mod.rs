//! What objects say, FRR, BIRD and GoBGP see; the drawing is in README.md.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::said;
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::routers::{Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, Signal, wait};
use serde_json::{Value, json};

/// The router that is announced to in another way.
const OTHER: &str = ROUTERS[1];
/// The BGPPeer whose terms are changed.
const CHANGED: &str = "tor3-v6";

#[test]
fn each_router_sees_what_the_objects_say_as_long_as_it_is_so() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("session") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let mut routers = step("FRR, BIRD and GoBGP run", || expect::one_of_each(lab))?;
        step("a Service with a pod, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&said(lab)?)
        })?;
        step("each router has a session by either family, and sees the paths, whole", || {
            established(&routers, true)?;
            all_see(&routers, &node, true)
        })?;
        let before = step("the speaker says so", || told(lab, &node, |_| true))?;
        step("a pod that is not ready takes the paths with it, and brings them back", || {
            let start = wait::now();
            lab.set_ready("web", false)?;
            all_see(&routers, &node, false)?;
            measured(&format!("a pod that is not ready: gone at three routers within {:?}", wait::now() - start));
            lab.set_ready("web", true)?;
            all_see(&routers, &node, true)
        })?;
        step("a speaker that dies and comes back ends no session", || {
            lab.stop(&speaker_name(&node.name), Signal::KILL)?;
            lab.restart(&speaker_name(&node.name))?;
            lab.set_ready("web", false)?;
            all_see(&routers, &node, false)?;
            lab.set_ready("web", true)?;
            all_see(&routers, &node, true)?;
            unmoved(&before, &told(lab, &node, |_| true)?, |_| true)
        })?;
        step("one that is of another AS than its BGPPeer says has no session, and the rest goes on", || {
            change(lab, ROUTER_AS + 1)?;
            let now = told(lab, &node, |peer| peer != CHANGED)?;
            unmoved(&before, &now, |peer| peer != CHANGED)?;
            wait::until("why", BGP_MAX, || {
                let why = session(&objects::sessions(lab, &node.name)?, CHANGED)["message"].to_string();
                ensure!(why.contains(&format!("is its AS {}?", ROUTER_AS + 1)), "{why}");
                Ok(Some(()))
            })?;
            change(lab, ROUTER_AS)?;
            all_see(&routers, &node, true)
        })?;
        step("a gobgpd that dies has all again when it is back", || {
            let name = format!("gobgpd-{}", node.name);
            lab.stop(&name, Signal::KILL)?;
            established(&routers, false)?;
            lab.restart(&name)?;
            all_see(&routers, &node, true)
        })?;
        let last = routers.pop().context("a router")?;
        step(
            "of a router that is stopped it is said in time that nobody answers, whatever was counted before",
            || {
                last.stop()?;
                let peers = ADDRESSES.map(|address| peer_name(ROUTERS[2], address));
                peers
                    .iter()
                    .try_for_each(|peer| said::wait_why(lab, &node.name, peer, &["no connection to the router"]))
            },
        )?;
        step("a node without power has no session left", || {
            lab.power_off(&node.name)?;
            let off = wait::now();
            established(&routers, false)?;
            measured(&format!("a node without power: the last session ended after {:?}", wait::now() - off));
            Ok(())
        })?;
        step("each router ends when it is told", || std::mem::take(&mut routers).into_iter().try_for_each(Router::stop))
    });
}

/// All that is said of BGP. What the one advertisement says tor2 is not to see, and the other way round.
fn said(lab: &Lab) -> Result<Vec<Value>> {
    let names = |of: &dyn Fn(&str) -> bool| -> Vec<String> {
        let routers = ROUTERS.into_iter().filter(|router| of(router));
        routers.flat_map(|router| ADDRESSES.map(|address| peer_name(router, address))).collect()
    };
    let rich = json!({"peers": names(&|router| router != OTHER), "communities": ["ours", "large:64512:1:2"], "med": 7});
    let poor = json!({"peers": names(&|router| router == OTHER), "asPathPrepend": 2});
    let mut all = objects::service().to_vec();
    all.push(object(
        "v1beta1",
        "Community",
        "names",
        &json!({"communities": [{"name": "ours", "value": "64512:100"}]}),
    ));
    all.push(object("v1beta1", "BGPAdvertisement", "rich", &rich));
    all.push(object("v1beta1", "BGPAdvertisement", "poor", &poor));
    for router in ROUTERS {
        all.extend(objects::peers(lab, router)?);
    }
    Ok(all)
}

/// The AS that one BGPPeer expects.
fn change(lab: &Lab, asn: u32) -> Result<()> {
    let mut peers = objects::peers(lab, ROUTERS[2])?;
    peers.retain(|peer| peer["metadata"]["name"] == CHANGED);
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = asn.into());
    lab.apply_objects(&peers)
}

/// Waits until all sessions of all routers stand, or none does.
fn established(routers: &[Router], all: bool) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the sessions", BGP_MAX, || {
            let sessions = router.sessions()?;
            let good = sessions.len() == ADDRESSES.len() && sessions.iter().all(|session| session.established == all);
            ensure!(good, "{router} has {sessions:?}");
            Ok(Some(()))
        })
    })
}

/// Waits until the speaker tells that the sessions of these BGPPeers are established and announce one prefix each; all that it tells.
fn told(lab: &Lab, node: &Host, of: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
    wait::until("the speaker's word", BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let stands = |session: &&Value| session["state"] == "Established" && session["prefixes"] == 1;
        let standing =
            sessions.iter().filter(|session| of(session["peer"].as_str().unwrap_or_default())).filter(stands);
        let all = ROUTERS.iter().flat_map(|router| ADDRESSES.map(|address| peer_name(router, address)));
        let expect = all.filter(|peer| of(peer)).count();
        ensure!(standing.count() == expect, "{expect} of these should stand: {sessions:#?}");
        Ok(Some(sessions))
    })
}

fn session<'a>(sessions: &'a [Value], peer: &str) -> &'a Value {
    sessions.iter().find(|session| session["peer"] == peer).unwrap_or(&Value::Null)
}

/// The sessions of these BGPPeers are the same as before: they have not begun anew.
fn unmoved(before: &[Value], now: &[Value], of: impl Fn(&str) -> bool) -> Result<()> {
    for was in before.iter().filter(|was| of(was["peer"].as_str().unwrap_or_default())) {
        let is = session(now, was["peer"].as_str().unwrap_or_default());
        ensure!(was["since"].is_string() && is["since"] == was["since"], "{was} began anew: {is}");
    }
    Ok(())
}

/// Waits until every router sees what the node announces to it, exactly that, or nothing, and forwards accordingly.
fn all_see(routers: &[Router], own: &Host, there: bool) -> Result<()> {
    for (router, host) in routers.iter().zip(ROUTERS) {
        let paths: Vec<Route> = expected(router, host, own).into_iter().filter(|_| there).collect();
        wait::until("the paths", BGP_MAX, || {
            let routes = router.routes()?;
            ensure!(routes == paths, "{router} sees {routes:#?}, not {paths:#?}");
            Ok(Some(()))
        })?;
    }
    let nodes = if there { std::slice::from_ref(own) } else { &[] };
    routers.iter().try_for_each(|router| expect::forwards_all(router, nodes))
}

fn expected(router: &Router, host: &str, own: &Host) -> Vec<Route> {
    let rich = host != OTHER;
    let words = |word: &str| if rich { vec![word.to_owned()] } else { vec![] };
    let paths = ADDRESSES.into_iter().zip(own.addresses()).map(|(address, hop)| Route {
        prefix: objects::prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if rich { 1 } else { 3 }],
        communities: words("64512:100"),
        large_communities: words("64512:1:2"),
        local_pref: router.kind().local_pref_outside(),
        med: rich.then_some(7),
    });
    let mut paths: Vec<Route> = paths.collect();
    paths.sort();
    paths
}
