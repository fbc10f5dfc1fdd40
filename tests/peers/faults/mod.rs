//! Wrong objects, misbehaving routers and missing daemons: FerroLB reports each, and everything
//! else continues; README.md has the drawing.

mod flood;
mod misbehaving_servers;

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::reported::{self, ESTABLISHED, SessionSnapshot, VALID};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::setup::gobgp;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, Signal, wait};
use misbehaving_servers::{MisbehavingServers, Misbehavior};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Host of FRR.
const GOOD: &str = ROUTERS[0];
/// Host of the misbehaving servers.
const BAD: &str = ROUTERS[1];
/// Host of BIRD, which sends too many prefixes.
const FLOOD: &str = ROUTERS[2];
/// Addresses that no host has.
const UNUSED: [Ipv4Addr; 3] = [
    Ipv4Addr::new(172, 30, 0, 140),
    Ipv4Addr::new(172, 30, 0, 141),
    Ipv4Addr::new(172, 30, 0, 142),
];
/// The address that is announced on the local network.
const LAN: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
/// Time for which connections to the misbehaving servers are counted, and the maximum number for
/// each. GoBGP makes at most one per second.
const COUNTED: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 7;

#[test]
fn faults_are_reported_and_everything_else_continues() {
    run_scenario(&Options { nodes: 2, bgp: true, ..Options::named("faults") }, |lab| {
        let [whole, spoilt] = [1, 2].map(Host::node);
        step("one of two nodes has no gobgpd any more, but its socket", || {
            lab.stop(&bgp::process_name(&spoilt.name), Signal::KILL)
        })?;
        lab.start_ferrolb()?;
        let router =
            step("FRR runs, and all is said of BGP and of the local network", || start(lab))?;
        step("the other node announces", || expect::paths_by(&router, &[&whole]))?;
        let peers = ADDRESSES.map(|address| peer_name(GOOD, address));
        let witness = SessionSnapshot::take(lab, &whole.name, &peers)?;
        let unmoved = |more: &[&SessionSnapshot]| {
            [&witness].iter().chain(more).try_for_each(|witness| witness.check_unchanged(lab))
        };
        step("the first says so, and announces on the local network", || {
            no_daemon(lab, &spoilt.name, "gobgpd does not respond at")?;
            unmoved(&[])
        })?;
        step("a gobgpd that is too old is given no session, and is said", || {
            bgp::start(lab.state(), &gobgp::build_version(gobgp::TOO_OLD_VERSION)?, &spoilt.name)?;
            let version = gobgp::TOO_OLD_VERSION.trim_start_matches('v');
            let why = format!("gobgpd is GoBGP/{version}: install GoBGP 4.7 or newer");
            no_daemon(lab, &spoilt.name, &why)?;
            expect::paths_by(&router, &[&whole])?;
            unmoved(&[])
        })?;
        let other = step("with one that is new enough all is announced", || {
            stop_gobgpd(lab, &spoilt.name)?;
            bgp::start(lab.state(), &lab.state().facts()?.gobgp.context("GoBGP")?, &spoilt.name)?;
            expect::paths_by(&router, &[&whole, &spoilt])?;
            reported::wait_daemon(lab, &spoilt.name, "")?;
            peers.iter().try_for_each(|peer| reported::wait_count(lab, peer, "2/2"))?;
            SessionSnapshot::take(lab, &spoilt.name, &peers)
        })?;
        step("a router that is not there", || {
            unreachable(lab)?;
            unmoved(&[&other])
        })?;
        step(
            "two BGPPeers for one router, of two ASes, of two router ids: the older is in use",
            || {
                conflicts(lab)?;
                unmoved(&[&other])
            },
        )?;
        step("who is connected to and is no router", || {
            no_routers(lab, &whole.name)?;
            unmoved(&[&other])
        })?;
        step("a router that sends a hundred thousand prefixes", || {
            flood::check(lab, &whole.name, FLOOD)?;
            expect::paths_by(&router, &[&whole, &spoilt])?;
            unmoved(&[&other])
        })?;
        step(
            "without the older one the younger is in use, and the other family is not touched",
            || {
                let [four, six] = &peers;
                let kept = [&whole, &spoilt]
                    .map(|node| SessionSnapshot::take(lab, &node.name, std::slice::from_ref(six)));
                lab.kubectl(&["delete", "bgppeer", four, "-n", objects::NAMESPACE])?;
                reported::wait_count(lab, YOUNGER, "2/2")?;
                reported::wait_condition(lab, ("bgppeer", YOUNGER), VALID, ("Valid", ""))?;
                kept.into_iter().try_for_each(|kept| kept?.check_unchanged(lab))
            },
        )?;
        router.stop()
    });
}

/// Kills the gobgpd of a node. Its socket stays, and the speaker deletes it.
fn stop_gobgpd(lab: &Lab, node: &str) -> Result<()> {
    lab.stop(&bgp::process_name(node), Signal::KILL)?;
    let socket = bgp::socket(lab.state(), node);
    wait::until("its socket is taken away", BGP_MAX, || Ok((!fs::exists(&socket)?).then_some(())))
}

/// Starts FRR with a Service that has a pod on each node, and a Service on the local network whose
/// pod is on the node without gobgpd.
fn start(lab: &Lab) -> Result<Router<'_>> {
    let router = Router::start(
        lab,
        RouterKind::Frr,
        GOOD,
        &RouterKind::Frr.config(&Peering::with_nodes(lab, GOOD)?),
    )?;
    for node in lab.nodes() {
        lab.pod(&format!("web-{node}"), &node, &[("app", "web")])?;
    }
    lab.pod("lan", "node2", &[("app", "lan")])?;
    let service = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "lan"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    let mut all = objects::service().to_vec();
    all[0]["spec"]["serviceAllocation"] =
        json!({"serviceSelectors": [{"matchLabels": {"way": "routed"}}]});
    all[1]["metadata"]["labels"] = json!({"way": "routed"});
    all.extend([
        object("v1beta1", "IPAddressPool", "lan", &json!({"addresses": [format!("{LAN}/32")]})),
        object("v1beta1", "L2Advertisement", "lan", &json!({"ipAddressPools": ["lan"]})),
        object("v1beta1", "BGPAdvertisement", "routed", &json!({"ipAddressPools": ["routed"]})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lan"}, "spec": service}),
    ]);
    all.extend(objects::peers(lab, GOOD)?);
    lab.apply_objects(&all)?;
    Ok(router)
}

/// Checks a node without a usable gobgpd. Its speaker and the BGPPeers report why, and the BGPPeers
/// count its session as missing. The node still announces its address on the local network.
fn no_daemon(lab: &Lab, node: &str, why: &str) -> Result<()> {
    reported::wait_daemon(lab, node, why)?;
    for peer in ADDRESSES.map(|address| peer_name(GOOD, address)) {
        reported::wait_count(lab, &peer, "1/2")?;
        let words = format!("no session on {node}; {node}: {why}");
        reported::wait_condition(lab, ("bgppeer", &peer), ESTABLISHED, ("NoSession", &words))?;
    }
    wait::until("the page on the local network", BGP_MAX, || {
        let owner = lab.owner_of(LAN.into())?;
        ensure!(owner.as_deref() == Some(node), "{owner:?} owns the address");
        let page = lab.http_get(CLIENT, SocketAddr::new(LAN.into(), 80), "/")?;
        let pod = page.pod();
        ensure!(pod.as_deref() == Some("lan"), "{pod:?} serves");
        Ok(Some(()))
    })
}

fn peer(name: &str, address: IpAddr, fields: Value) -> Value {
    let mut spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s"});
    if let (Some(spec), Value::Object(fields)) = (spec.as_object_mut(), fields) {
        spec.extend(fields);
    }
    object("v1beta2", "BGPPeer", name, &spec)
}

fn unreachable(lab: &Lab) -> Result<()> {
    let why = "no connection to the router: check the route to it, and that it listens on port 179";
    lab.apply_objects(&[peer("nobody", UNUSED[0].into(), json!({}))])?;
    lab.nodes()
        .iter()
        .try_for_each(|node| reported::wait_no_session(lab, node, "nobody", &[why]))?;
    reported::wait_count(lab, "nobody", "0/2")?;
    reported::wait_condition(lab, ("bgppeer", "nobody"), VALID, ("Valid", ""))?;
    let words = format!("no session on node1, node2; node1: {why}");
    reported::wait_condition(lab, ("bgppeer", "nobody"), ESTABLISHED, ("NoSession", &words))
}

/// Name of the younger BGPPeer of the good router. It would be the first by name.
const YOUNGER: &str = "a-twin";

fn conflicts(lab: &Lab) -> Result<()> {
    let (first, [four, _]) = (peer_name(GOOD, ADDRESSES[0]), objects::host(lab, GOOD)?.addresses());
    let younger = [
        (
            peer(YOUNGER, four, json!({})),
            format!("BGPPeer {first}, which is older, selects the same router"),
        ),
        (
            peer("b-as", UNUSED[1].into(), json!({"myASN": 64999})),
            "spec.myASN: BGPPeer tor1-v".to_owned(),
        ),
        (
            peer("c-id", UNUSED[2].into(), json!({"routerID": "192.0.2.1"})),
            "spec.routerID: BGPPeer tor1-v".to_owned(),
        ),
    ];
    for (peer, why) in younger {
        let name = peer["metadata"]["name"].as_str().context("a name")?.to_owned();
        lab.apply_objects(&[peer])?;
        reported::wait_condition(lab, ("bgppeer", &name), VALID, ("Conflict", &why))?;
        reported::wait_count(lab, &name, "0/2")?;
        for node in lab.nodes() {
            let sessions = objects::sessions(lab, &node)?;
            ensure!(
                sessions.iter().all(|session| session["peer"] != *name),
                "{node} has {sessions:#?}"
            );
        }
    }
    reported::wait_condition(lab, ("bgppeer", &first), VALID, ("Valid", ""))
}

/// Checks that the reason is reported for each server, and that the node limits its connection
/// attempts.
fn no_routers(lab: &Lab, node: &str) -> Result<()> {
    let servers = MisbehavingServers::start(lab, BAD)?;
    let only = json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": node}}]});
    let peers =
        Misbehavior::ALL.map(|manner| peer(manner.name(), manner.address().into(), only.clone()));
    lab.apply_objects(&peers)?;
    for manner in Misbehavior::ALL {
        reported::wait_no_session(lab, node, manner.name(), &[manner.issue()])?;
        reported::wait_count(lab, manner.name(), "0/1")?;
        reported::wait_condition(
            lab,
            ("bgppeer", manner.name()),
            ESTABLISHED,
            ("NoSession", manner.issue()),
        )?;
    }
    let before = servers.connections();
    wait::during(COUNTED, || Ok(()))?;
    let met: Vec<usize> =
        servers.connections().iter().zip(before).map(|(now, before)| now - before).collect();
    print_measured(&format!("connections to {:?} within {COUNTED:?}: {met:?}", Misbehavior::ALL));
    ensure!(
        met.iter().all(|count| *count <= CONNECTIONS_MAX),
        "more than {CONNECTIONS_MAX}: {met:?}"
    );
    for manner in Misbehavior::ALL {
        lab.kubectl(&["delete", "bgppeer", manner.name(), "-n", objects::NAMESPACE])?;
    }
    servers.stop()
}
