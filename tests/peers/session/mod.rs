//! Sessions with FRR, BIRD and GoBGP, and the paths that each of them has; README.md has the
//! drawing.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::reported;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::routers::{BgpRoute, Router};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::{Value, json};

/// The router with another advertisement.
const OTHER: &str = ROUTERS[1];
/// The BGPPeer whose spec is changed.
const CHANGED: &str = "tor3-v6";

#[test]
fn each_router_has_exactly_the_paths_of_the_objects() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("session") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP run", || expect::one_of_each(lab))?;
        step("a Service with a pod, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects_of_test(lab)?)
        })?;
        step("each router has a session by either family, and sees the paths, whole", || {
            established(&routers, true)?;
            wait_paths(&routers, &node, true)
        })?;
        let before = step("the speaker says so", || wait_established(lab, &node, |_| true))?;
        check_restarts(lab, &node, &routers, &before)?;
        check_wrong_as(lab, &node, &routers, &before)?;
        check_failures(lab, &node, routers)
    });
}

/// Steps in which the pod is not ready for a while, and in which the speaker is restarted. `before`
/// has the sessions, which must continue.
fn check_restarts(lab: &Lab, node: &Host, routers: &[Router], before: &[Value]) -> Result<()> {
    step("a pod that is not ready takes the paths with it, and brings them back", || {
        let start = wait::now();
        lab.set_ready("web", false)?;
        wait_paths(routers, node, false)?;
        print_measured(&format!(
            "a pod that is not ready: gone at three routers within {:?}",
            wait::now() - start
        ));
        lab.set_ready("web", true)?;
        wait_paths(routers, node, true)
    })?;
    step("a speaker that dies and comes back ends no session", || {
        lab.stop(&speaker_name(&node.name), Signal::KILL)?;
        lab.restart(&speaker_name(&node.name))?;
        lab.set_ready("web", false)?;
        wait_paths(routers, node, false)?;
        lab.set_ready("web", true)?;
        wait_paths(routers, node, true)?;
        check_unchanged(before, &wait_established(lab, node, |_| true)?, |_| true)
    })
}

/// Step in which one BGPPeer has another AS than its router. The other sessions must continue.
fn check_wrong_as(lab: &Lab, node: &Host, routers: &[Router], before: &[Value]) -> Result<()> {
    step(
        "one that is of another AS than its BGPPeer says has no session, and the rest goes on",
        || {
            change(lab, ROUTER_AS + 1)?;
            let now = wait_established(lab, node, |peer| peer != CHANGED)?;
            check_unchanged(before, &now, |peer| peer != CHANGED)?;
            wait::until("why", BGP_MAX, || {
                let why =
                    reported::messages(session(&objects::sessions(lab, &node.name)?, CHANGED));
                ensure!(
                    why.contains(&format!("check that the router's AS is {}", ROUTER_AS + 1)),
                    "{why}"
                );
                Ok(Some(()))
            })?;
            change(lab, ROUTER_AS)?;
            wait_paths(routers, node, true)
        },
    )
}

/// Steps in which gobgpd fails, then a router, then the node.
fn check_failures(lab: &Lab, node: &Host, mut routers: Vec<Router>) -> Result<()> {
    step("a gobgpd that dies has all again when it is back", || {
        let name = format!("gobgpd-{}", node.name);
        lab.stop(&name, Signal::KILL)?;
        established(&routers, false)?;
        lab.restart(&name)?;
        wait_paths(&routers, node, true)
    })?;
    let last = routers.pop().context("a router")?;
    step(
        "of a router that is stopped it is said in time that nobody answers, whatever was counted before",
        || {
            last.stop()?;
            let peers = ADDRESSES.map(|address| peer_name(ROUTERS[2], address));
            peers.iter().try_for_each(|peer| {
                reported::wait_no_session(lab, &node.name, peer, &["no connection to the router"])
            })
        },
    )?;
    step("a node without power has no session left", || {
        lab.power_off(&node.name)?;
        let off = wait::now();
        established(&routers, false)?;
        print_measured(&format!(
            "a node without power: the last session ended after {:?}",
            wait::now() - off
        ));
        Ok(())
    })?;
    step("each router ends when it is told", || routers.into_iter().try_for_each(Router::stop))
}

/// Returns all objects of BGP. tor2 must not receive the paths of the first advertisement, nor the
/// others those of the second.
fn objects_of_test(lab: &Lab) -> Result<Vec<Value>> {
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

/// Sets the AS that one BGPPeer expects.
fn change(lab: &Lab, asn: u32) -> Result<()> {
    let mut peers = objects::peers(lab, ROUTERS[2])?;
    peers.retain(|peer| peer["metadata"]["name"] == CHANGED);
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = asn.into());
    lab.apply_objects(&peers)
}

/// Waits until all sessions of all routers are established, or none is.
fn established(routers: &[Router], all: bool) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the sessions", BGP_MAX, || {
            let sessions = router.sessions()?;
            let good = sessions.len() == ADDRESSES.len()
                && sessions.iter().all(|session| session.established == all);
            ensure!(good, "{router} has {sessions:?}");
            Ok(Some(()))
        })
    })
}

/// Waits until the speaker reports that the sessions of these BGPPeers are established and
/// advertise one prefix each. Returns all sessions.
fn wait_established(lab: &Lab, node: &Host, of: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
    wait::until("the speaker's word", BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let stands =
            |session: &&Value| session["state"] == "Established" && session["prefixes"] == 1;
        let standing = sessions
            .iter()
            .filter(|session| of(session["peer"].as_str().unwrap_or_default()))
            .filter(stands);
        let all =
            ROUTERS.iter().flat_map(|router| ADDRESSES.map(|address| peer_name(router, address)));
        let expect = all.filter(|peer| of(peer)).count();
        ensure!(standing.count() == expect, "{expect} of these must be established: {sessions:#?}");
        Ok(Some(sessions))
    })
}

fn session<'a>(sessions: &'a [Value], peer: &str) -> &'a Value {
    sessions.iter().find(|session| session["peer"] == peer).unwrap_or(&Value::Null)
}

/// Checks that the sessions of these BGPPeers were not established again.
fn check_unchanged(before: &[Value], now: &[Value], of: impl Fn(&str) -> bool) -> Result<()> {
    for was in before.iter().filter(|was| of(was["peer"].as_str().unwrap_or_default())) {
        let is = session(now, was["peer"].as_str().unwrap_or_default());
        ensure!(
            was["since"].is_string() && is["since"] == was["since"],
            "{was} was established again: {is}"
        );
    }
    Ok(())
}

/// Waits until every router has exactly the node's paths for it, or none, and forwards accordingly.
fn wait_paths(routers: &[Router], own: &Host, there: bool) -> Result<()> {
    for (router, host) in routers.iter().zip(ROUTERS) {
        let paths: Vec<BgpRoute> =
            expected(router, host, own).into_iter().filter(|_| there).collect();
        wait::until("the paths", BGP_MAX, || {
            let routes = router.routes()?;
            ensure!(routes == paths, "{router} sees {routes:#?}, not {paths:#?}");
            Ok(Some(()))
        })?;
    }
    let nodes = if there { std::slice::from_ref(own) } else { &[] };
    routers.iter().try_for_each(|router| expect::forwards_all(router, nodes))
}

fn expected(router: &Router, host: &str, own: &Host) -> Vec<BgpRoute> {
    let rich = host != OTHER;
    let words = |word: &str| if rich { vec![word.to_owned()] } else { vec![] };
    let paths = ADDRESSES.into_iter().zip(own.addresses()).map(|(address, hop)| BgpRoute {
        prefix: objects::prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if rich { 1 } else { 3 }],
        communities: words("64512:100"),
        large_communities: words("64512:1:2"),
        local_pref: router.kind().local_pref_outside(),
        med: rich.then_some(7),
    });
    let mut paths: Vec<BgpRoute> = paths.collect();
    paths.sort();
    paths
}
