//! Sessions with FRR, BIRD and GoBGP, and the paths that each router receives; README.md has the
//! drawing.

use crate::expect;
use crate::in_containers;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::reported;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::routers::{BgpRoute, Router};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::{Value, json};

/// The router that the second advertisement selects.
const SECOND_AD_ROUTER: &str = ROUTERS[1];
/// The BGPPeer that gets a wrong AS for a while.
const CHANGED_PEER: &str = "tor3-v6";

#[test]
fn each_router_has_exactly_the_paths_of_its_advertisement() {
    run_scenario(&in_containers("session"), |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP start", || expect::start_one_of_each(lab))?;
        step("a Service with a pod, advertisements and BGPPeers are created", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&scenario_objects(lab)?)
        })?;
        step("each router has a session of each family and the paths with all attributes", || {
            wait_sessions(&routers, true)?;
            wait_paths(&routers, &node, true)
        })?;
        let before = step("the speaker reports all sessions as established", || {
            wait_established(lab, &node, |_| true)
        })?;
        check_restarts(lab, &node, &routers, &before)?;
        check_wrong_as(lab, &node, &routers, &before)?;
        check_failures(lab, &node, routers)
    });
}

/// Runs the steps in which the pod is unready for a while, and in which the speaker is restarted.
/// The sessions in `before` must stay.
fn check_restarts(lab: &Lab, node: &Host, routers: &[Router], before: &[Value]) -> Result<()> {
    step("the paths are withdrawn while the pod is unready", || {
        let start = wait::now();
        lab.set_ready("web", false)?;
        wait_paths(routers, node, false)?;
        print_measured(&format!(
            "pod unready: paths withdrawn at three routers within {:?}",
            wait::now() - start
        ));
        lab.set_ready("web", true)?;
        wait_paths(routers, node, true)
    })?;
    step("a killed and restarted speaker ends no session", || {
        lab.stop(&speaker_name(&node.name), Signal::KILL)?;
        lab.restart(&speaker_name(&node.name))?;
        lab.set_ready("web", false)?;
        wait_paths(routers, node, false)?;
        lab.set_ready("web", true)?;
        wait_paths(routers, node, true)?;
        check_unchanged(before, &wait_established(lab, node, |_| true)?, |_| true)
    })
}

/// Runs the step in which the AS of one BGPPeer is not that of its router. The other sessions must
/// stay.
fn check_wrong_as(lab: &Lab, node: &Host, routers: &[Router], before: &[Value]) -> Result<()> {
    step(
        "a BGPPeer with a wrong AS has no session and reports it, and the other sessions stay",
        || {
            set_peer_as(lab, ROUTER_AS + 1)?;
            let now = wait_established(lab, node, |peer| peer != CHANGED_PEER)?;
            check_unchanged(before, &now, |peer| peer != CHANGED_PEER)?;
            wait::until(
                "the speaker reports that the router has another AS number",
                BGP_MAX,
                || {
                    let issues = reported::messages(session(
                        &objects::sessions(lab, &node.name)?,
                        CHANGED_PEER,
                    ));
                    ensure!(
                        issues
                            .contains(&format!("check that the router's AS is {}", ROUTER_AS + 1)),
                        "{issues}"
                    );
                    Ok(Some(()))
                },
            )?;
            set_peer_as(lab, ROUTER_AS)?;
            wait_paths(routers, node, true)
        },
    )
}

/// Runs the steps in which gobgpd fails, then a router, then the node.
fn check_failures(lab: &Lab, node: &Host, mut routers: Vec<Router>) -> Result<()> {
    step("a killed and restarted gobgpd gets all sessions and paths again", || {
        let name = format!("gobgpd-{}", node.name);
        lab.stop(&name, Signal::KILL)?;
        wait_sessions(&routers, false)?;
        lab.restart(&name)?;
        wait_paths(&routers, node, true)
    })?;
    let last = routers.pop().context("no router runs")?;
    step("a stopped router is reported as not reachable", || {
        last.stop()?;
        let peers = ADDRESSES.map(|address| peer_name(ROUTERS[2], address));
        peers.iter().try_for_each(|peer| {
            reported::wait_no_session(lab, &node.name, peer, &["no connection to the router"])
        })
    })?;
    step("a node that loses power has no session left", || {
        lab.power_off(&node.name)?;
        let off = wait::now();
        wait_sessions(&routers, false)?;
        print_measured(&format!(
            "node powered off: the last session ended after {:?}",
            wait::now() - off
        ));
        Ok(())
    })?;
    step("all routers stop", || routers.into_iter().try_for_each(Router::stop))
}

/// Returns the objects of the scenario. The first advertisement selects tor1 and tor3, and the
/// second one tor2.
fn scenario_objects(lab: &Lab) -> Result<Vec<Value>> {
    let peers_of = |selects: &dyn Fn(&str) -> bool| -> Vec<String> {
        let routers = ROUTERS.into_iter().filter(|router| selects(router));
        routers.flat_map(|router| ADDRESSES.map(|address| peer_name(router, address))).collect()
    };
    let first = json!({"peers": peers_of(&|router| router != SECOND_AD_ROUTER), "communities": ["own", "large:64512:1:2"], "med": 7});
    let second =
        json!({"peers": peers_of(&|router| router == SECOND_AD_ROUTER), "asPathPrepend": 2});
    let mut created = objects::service().to_vec();
    created.push(object(
        "v1beta1",
        "Community",
        "names",
        &json!({"communities": [{"name": "own", "value": "64512:100"}]}),
    ));
    created.push(object("v1beta1", "BGPAdvertisement", "first", &first));
    created.push(object("v1beta1", "BGPAdvertisement", "second", &second));
    for router in ROUTERS {
        created.extend(objects::peers(lab, router)?);
    }
    Ok(created)
}

/// Sets the `peerASN` of [`CHANGED_PEER`].
fn set_peer_as(lab: &Lab, asn: u32) -> Result<()> {
    let mut peers = objects::peers(lab, ROUTERS[2])?;
    peers.retain(|peer| peer["metadata"]["name"] == CHANGED_PEER);
    peers.iter_mut().for_each(|peer| peer["spec"]["peerASN"] = asn.into());
    lab.apply_objects(&peers)
}

/// Waits until all sessions of all routers are established, or none of them if `all` is false.
fn wait_sessions(routers: &[Router], all: bool) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("the sessions have the expected state", BGP_MAX, || {
            let sessions = router.sessions()?;
            let matches = sessions.len() == ADDRESSES.len()
                && sessions.iter().all(|session| session.established == all);
            ensure!(matches, "{router} has the sessions {sessions:?}");
            Ok(Some(()))
        })
    })
}

/// Waits until the speaker reports that each session of the BGPPeers that `selects` accepts is
/// established and has one prefix. Returns all sessions.
fn wait_established(lab: &Lab, node: &Host, selects: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
    wait::until("the speaker reports established sessions", BGP_MAX, || {
        let sessions = objects::sessions(lab, &node.name)?;
        let is_established =
            |session: &&Value| session["state"] == "Established" && session["prefixes"] == 1;
        let established = sessions
            .iter()
            .filter(|session| selects(session["peer"].as_str().unwrap_or_default()))
            .filter(is_established);
        let all =
            ROUTERS.iter().flat_map(|router| ADDRESSES.map(|address| peer_name(router, address)));
        let expect = all.filter(|peer| selects(peer)).count();
        ensure!(
            established.count() == expect,
            "{expect} of these sessions must be established: {sessions:#?}"
        );
        Ok(Some(sessions))
    })
}

/// Returns the session of a BGPPeer, or null.
fn session<'a>(sessions: &'a [Value], peer: &str) -> &'a Value {
    sessions.iter().find(|session| session["peer"] == peer).unwrap_or(&Value::Null)
}

/// Checks that the sessions of the BGPPeers that `selects` accepts were not established again.
fn check_unchanged(before: &[Value], now: &[Value], selects: impl Fn(&str) -> bool) -> Result<()> {
    for old in before.iter().filter(|old| selects(old["peer"].as_str().unwrap_or_default())) {
        let new = session(now, old["peer"].as_str().unwrap_or_default());
        ensure!(
            old["since"].is_string() && new["since"] == old["since"],
            "the session {old} was established again: {new}"
        );
    }
    Ok(())
}

/// Waits until every router has exactly its paths of the node, or no path if `advertised` is false,
/// and its kernel forwards accordingly.
fn wait_paths(routers: &[Router], node: &Host, advertised: bool) -> Result<()> {
    for (router, host) in routers.iter().zip(ROUTERS) {
        let paths: Vec<BgpRoute> =
            expected_paths(router, host, node).into_iter().filter(|_| advertised).collect();
        wait::until("the router has the paths", BGP_MAX, || {
            let routes = router.routes()?;
            ensure!(routes == paths, "{router} has the paths {routes:#?}, not {paths:#?}");
            Ok(Some(()))
        })?;
    }
    let nodes = if advertised { std::slice::from_ref(node) } else { &[] };
    routers.iter().try_for_each(|router| expect::wait_forwards_all(router, nodes))
}

/// Returns the paths of the node that a router must have.
fn expected_paths(router: &Router, host: &str, node: &Host) -> Vec<BgpRoute> {
    let is_first = host != SECOND_AD_ROUTER;
    let communities = |word: &str| if is_first { vec![word.to_owned()] } else { vec![] };
    let paths = ADDRESSES.into_iter().zip(node.addresses()).map(|(address, hop)| BgpRoute {
        prefix: objects::prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS; if is_first { 1 } else { 3 }],
        communities: communities("64512:100"),
        large_communities: communities("64512:1:2"),
        local_pref: router.kind().default_local_pref(),
        med: is_first.then_some(7),
    });
    let mut paths: Vec<BgpRoute> = paths.collect();
    paths.sort();
    paths
}
