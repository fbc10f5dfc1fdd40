//! Invalid objects, misbehaving routers and a missing gobgpd: FerroLB reports each fault, and
//! everything else continues; README.md has the drawing.

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
const FRR_HOST: &str = ROUTERS[0];
/// Host of the misbehaving servers.
const MISBEHAVING_HOST: &str = ROUTERS[1];
/// Host of BIRD, which sends too many prefixes.
const FLOOD_HOST: &str = ROUTERS[2];
/// Addresses that no host has.
const UNUSED: [Ipv4Addr; 3] = [
    Ipv4Addr::new(172, 30, 0, 140),
    Ipv4Addr::new(172, 30, 0, 141),
    Ipv4Addr::new(172, 30, 0, 142),
];
/// Address of the Service that is announced by ARP.
const LAN_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
/// Time for which the misbehaving servers count connections, and the maximum number for each
/// server: GoBGP makes at most one connection per second.
const COUNTING_TIME: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 7;

#[test]
fn faults_of_bgp_are_reported_and_everything_else_continues() {
    run_scenario(&Options { nodes: 2, bgp: true, ..Options::named("faults") }, |lab| {
        let [intact, faulty] = [1, 2].map(Host::node);
        step("gobgpd of one node is killed, and its socket remains", || {
            lab.stop(&bgp::process_name(&faulty.name), Signal::KILL)
        })?;
        lab.start_ferrolb()?;
        let router = step("FRR starts, and two Services are created", || start_router(lab))?;
        step("the other node advertises its paths", || {
            expect::wait_paths_through(&router, &[&intact])
        })?;
        let peers = ADDRESSES.map(|address| peer_name(FRR_HOST, address));
        let snapshot = SessionSnapshot::take(lab, &intact.name, &peers)?;
        let check_sessions = |others: &[&SessionSnapshot]| {
            [&snapshot].iter().chain(others).try_for_each(|snapshot| snapshot.check_unchanged(lab))
        };
        step("the node without gobgpd reports it, and still announces by ARP", || {
            check_without_gobgpd(lab, &faulty.name, "gobgpd does not respond at")?;
            check_sessions(&[])
        })?;
        step("a gobgpd that is too old gets no session and is reported", || {
            bgp::start(lab.state(), &gobgp::build_version(gobgp::TOO_OLD_VERSION)?, &faulty.name)?;
            let version = gobgp::TOO_OLD_VERSION.trim_start_matches('v');
            let why = format!("gobgpd is GoBGP/{version}: install GoBGP 4.7 or newer");
            check_without_gobgpd(lab, &faulty.name, &why)?;
            expect::wait_paths_through(&router, &[&intact])?;
            check_sessions(&[])
        })?;
        let other = step("with a supported gobgpd, both nodes advertise their paths", || {
            stop_gobgpd(lab, &faulty.name)?;
            bgp::start(
                lab.state(),
                &lab.state().facts()?.gobgp.context("the lab has no GoBGP")?,
                &faulty.name,
            )?;
            expect::wait_paths_through(&router, &[&intact, &faulty])?;
            reported::wait_gobgpd_issue(lab, &faulty.name, "")?;
            peers.iter().try_for_each(|peer| reported::wait_count(lab, peer, "2/2"))?;
            SessionSnapshot::take(lab, &faulty.name, &peers)
        })?;
        step("a router that does not exist is reported", || {
            check_unreachable_router(lab)?;
            check_sessions(&[&other])
        })?;
        step("of conflicting BGPPeers the older one is used", || {
            check_conflicts(lab)?;
            check_sessions(&[&other])
        })?;
        step("servers that are no routers are reported, and connections are limited", || {
            check_misbehaving_servers(lab, &intact.name)?;
            check_sessions(&[&other])
        })?;
        step("the node uses none of a router's 100,000 prefixes", || {
            flood::check(lab, &intact.name, FLOOD_HOST)?;
            expect::wait_paths_through(&router, &[&intact, &faulty])?;
            check_sessions(&[&other])
        })?;
        step("without the older BGPPeer, the younger one is used", || {
            let [peer_v4, peer_v6] = &peers;
            let snapshots = [&intact, &faulty]
                .map(|node| SessionSnapshot::take(lab, &node.name, std::slice::from_ref(peer_v6)));
            lab.kubectl(&["delete", "bgppeer", peer_v4, "-n", objects::NAMESPACE])?;
            reported::wait_count(lab, YOUNGER, "2/2")?;
            reported::wait_condition(lab, ("bgppeers", YOUNGER), VALID, ("Valid", ""))?;
            snapshots.into_iter().try_for_each(|snapshot| snapshot?.check_unchanged(lab))
        })?;
        router.stop()
    });
}

/// Kills the gobgpd of a node, and waits until the node's speaker has deleted gobgpd's socket.
fn stop_gobgpd(lab: &Lab, node: &str) -> Result<()> {
    lab.stop(&bgp::process_name(node), Signal::KILL)?;
    let socket = bgp::socket(lab.state(), node);
    wait::until("the speaker has deleted the socket", BGP_MAX, || {
        Ok((!fs::exists(&socket)?).then_some(()))
    })
}

/// Starts FRR, and creates a routed Service with a pod on each node, and a Service announced by ARP
/// whose pod is on the node without gobgpd.
fn start_router(lab: &Lab) -> Result<Router<'_>> {
    let router = Router::start(
        lab,
        RouterKind::Frr,
        FRR_HOST,
        &RouterKind::Frr.config(&Peering::with_nodes(lab, FRR_HOST)?),
    )?;
    for node in lab.nodes() {
        lab.pod(&format!("web-{node}"), &node, &[("app", "web")])?;
    }
    lab.pod("lan", "node2", &[("app", "lan")])?;
    let service = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "lan"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    let mut created = objects::service().to_vec();
    created[0]["spec"]["serviceAllocation"] =
        json!({"serviceSelectors": [{"matchLabels": {"way": "routed"}}]});
    created[1]["metadata"]["labels"] = json!({"way": "routed"});
    created.extend([
        object("v1beta1", "IPAddressPool", "lan", &json!({"addresses": [format!("{LAN_ADDRESS}/32")]})),
        object("v1beta1", "L2Advertisement", "lan", &json!({"ipAddressPools": ["lan"]})),
        object("v1beta1", "BGPAdvertisement", "routed", &json!({"ipAddressPools": ["routed"]})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lan"}, "spec": service}),
    ]);
    created.extend(objects::peers(lab, FRR_HOST)?);
    lab.apply_objects(&created)?;
    Ok(router)
}

/// Checks a node without a usable gobgpd: its speaker and the BGPPeers report the cause, the
/// BGPPeers count its session as missing, and the node still announces its address by ARP.
fn check_without_gobgpd(lab: &Lab, node: &str, why: &str) -> Result<()> {
    reported::wait_gobgpd_issue(lab, node, why)?;
    for peer in ADDRESSES.map(|address| peer_name(FRR_HOST, address)) {
        reported::wait_count(lab, &peer, "1/2")?;
        let words = format!("no session on {node}; {node}: {why}");
        reported::wait_condition(lab, ("bgppeers", &peer), ESTABLISHED, ("NoSession", &words))?;
    }
    wait::until("the client gets the page of the Service announced by ARP", BGP_MAX, || {
        let owner = lab.owner_of(LAN_ADDRESS.into())?;
        ensure!(owner.as_deref() == Some(node), "{owner:?} owns the address");
        let page = lab.http_get(CLIENT, SocketAddr::new(LAN_ADDRESS.into(), 80), "/")?;
        let pod = page.pod();
        ensure!(pod.as_deref() == Some("lan"), "{pod:?} serves the page");
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

fn check_unreachable_router(lab: &Lab) -> Result<()> {
    let why = "no connection to the router: check the route to it, and that it listens on port 179";
    lab.apply_objects(&[peer("absent", UNUSED[0].into(), json!({}))])?;
    lab.nodes()
        .iter()
        .try_for_each(|node| reported::wait_no_session(lab, node, "absent", &[why]))?;
    reported::wait_count(lab, "absent", "0/2")?;
    reported::wait_condition(lab, ("bgppeers", "absent"), VALID, ("Valid", ""))?;
    let words = format!("no session on node1, node2; node1: {why}");
    reported::wait_condition(lab, ("bgppeers", "absent"), ESTABLISHED, ("NoSession", &words))
}

/// Name of a second, younger BGPPeer of FRR. The name sorts before that of the older BGPPeer, which
/// must win nevertheless.
const YOUNGER: &str = "a-twin";

fn check_conflicts(lab: &Lab) -> Result<()> {
    let (first, [router_v4, _]) =
        (peer_name(FRR_HOST, ADDRESSES[0]), objects::host(lab, FRR_HOST)?.addresses());
    let conflicting = [
        (
            peer(YOUNGER, router_v4, json!({})),
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
    for (peer, why) in conflicting {
        let name = peer["metadata"]["name"].as_str().context("the BGPPeer has no name")?.to_owned();
        lab.apply_objects(&[peer])?;
        reported::wait_condition(lab, ("bgppeers", &name), VALID, ("Conflict", &why))?;
        reported::wait_count(lab, &name, "0/2")?;
        for node in lab.nodes() {
            let sessions = objects::sessions(lab, &node)?;
            ensure!(
                sessions.iter().all(|session| session["peer"] != *name),
                "{node} has a session of {name}: {sessions:#?}"
            );
        }
    }
    reported::wait_condition(lab, ("bgppeers", &first), VALID, ("Valid", ""))
}

/// Checks that FerroLB reports the misbehavior of each server, and that the node limits its
/// connection attempts.
fn check_misbehaving_servers(lab: &Lab, node: &str) -> Result<()> {
    let servers = MisbehavingServers::start(lab, MISBEHAVING_HOST)?;
    let on_node = json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": node}}]});
    let peers = Misbehavior::ALL
        .map(|misbehavior| peer(misbehavior.name(), misbehavior.address().into(), on_node.clone()));
    lab.apply_objects(&peers)?;
    for misbehavior in Misbehavior::ALL {
        reported::wait_no_session(lab, node, misbehavior.name(), &[misbehavior.issue()])?;
        reported::wait_count(lab, misbehavior.name(), "0/1")?;
        reported::wait_condition(
            lab,
            ("bgppeers", misbehavior.name()),
            ESTABLISHED,
            ("NoSession", misbehavior.issue()),
        )?;
    }
    let before = servers.connections();
    wait::during(COUNTING_TIME, || Ok(()))?;
    let counts: Vec<usize> =
        servers.connections().iter().zip(before).map(|(now, before)| now - before).collect();
    print_measured(&format!(
        "connections to {:?} within {COUNTING_TIME:?}: {counts:?}",
        Misbehavior::ALL
    ));
    ensure!(
        counts.iter().all(|count| *count <= CONNECTIONS_MAX),
        "a server received more than {CONNECTIONS_MAX} connections: {counts:?}"
    );
    for misbehavior in Misbehavior::ALL {
        lab.kubectl(&["delete", "bgppeer", misbehavior.name(), "-n", objects::NAMESPACE])?;
    }
    servers.stop()
}
