//! Bad objects, bad routers and daemons that are not there: each is said, and everything else goes on; the drawing is in README.md.

mod flood;
mod rude;

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name};
use crate::said::{self, ESTABLISHED, VALID, Witness};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::bgp;
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::setup::gobgp;
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, Signal, wait};
use rude::{Manner, Servers};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What FRR runs on.
const GOOD: &str = ROUTERS[0];
/// What the bad servers run on.
const BAD: &str = ROUTERS[1];
/// What BIRD runs on, which sends too much.
const FLOOD: &str = ROUTERS[2];
/// Addresses that nobody has.
const NOBODY: [Ipv4Addr; 3] =
    [Ipv4Addr::new(172, 30, 0, 140), Ipv4Addr::new(172, 30, 0, 141), Ipv4Addr::new(172, 30, 0, 142)];
/// The address that is announced on the local network.
const LAN: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
/// How long connections to the bad servers are counted, and how many each may get meanwhile: GoBGP makes one a second at most.
const COUNTED: Duration = Duration::from_secs(5);
const CONNECTIONS_MAX: usize = 7;

#[test]
fn what_is_bad_is_said_and_everything_else_goes_on() {
    play(&Options { nodes: 2, bgp: true, ..Options::named("faults") }, |lab| {
        let [whole, spoilt] = [1, 2].map(Host::node);
        step("one of two nodes has no gobgpd any more, but its socket", || {
            lab.stop(&bgp::process_name(&spoilt.name), Signal::KILL)
        })?;
        lab.start_ferrolb()?;
        let router = step("FRR runs, and all is said of BGP and of the local network", || start(lab))?;
        step("the other node announces", || expect::paths_by(&router, &[&whole]))?;
        let peers = ADDRESSES.map(|address| peer_name(GOOD, address));
        let witness = Witness::called(lab, &whole.name, &peers)?;
        let unmoved = |more: &[&Witness]| [&witness].iter().chain(more).try_for_each(|witness| witness.unmoved(lab));
        step("the first says so, and announces on the local network", || {
            no_daemon(lab, &spoilt.name, "no gobgpd answers at")?;
            unmoved(&[])
        })?;
        step("a gobgpd that is too old is given no session, and is said", || {
            bgp::start(lab.state(), &gobgp::build_version(gobgp::TOO_OLD_VERSION)?, &spoilt.name)?;
            let version = gobgp::TOO_OLD_VERSION.trim_start_matches('v');
            let why = format!("the gobgpd is GoBGP/{version}: install GoBGP 4.7 or newer");
            no_daemon(lab, &spoilt.name, &why)?;
            expect::paths_by(&router, &[&whole])?;
            unmoved(&[])
        })?;
        let other = step("with one that is new enough all is announced", || {
            take_away(lab, &spoilt.name)?;
            bgp::start(lab.state(), &lab.state().facts()?.gobgp.context("GoBGP")?, &spoilt.name)?;
            expect::paths_by(&router, &[&whole, &spoilt])?;
            said::wait_daemon(lab, &spoilt.name, "")?;
            peers.iter().try_for_each(|peer| said::wait_count(lab, peer, "2/2"))?;
            Witness::called(lab, &spoilt.name, &peers)
        })?;
        step("a router that is not there", || {
            unreachable(lab)?;
            unmoved(&[&other])
        })?;
        step("two BGPPeers for one router, of two ASes, of two router ids: the older is in use", || {
            conflicts(lab)?;
            unmoved(&[&other])
        })?;
        step("who is connected to and is no router", || {
            no_routers(lab, &whole.name)?;
            unmoved(&[&other])
        })?;
        step("a router that sends a hundred thousand prefixes", || {
            flood::endure(lab, &whole.name, FLOOD)?;
            expect::paths_by(&router, &[&whole, &spoilt])?;
            unmoved(&[&other])
        })?;
        step("without the older one the younger is in use, and the other family is not touched", || {
            let [four, six] = &peers;
            let kept = [&whole, &spoilt].map(|node| Witness::called(lab, &node.name, std::slice::from_ref(six)));
            lab.kubectl(&["delete", "bgppeer", four, "-n", objects::NAMESPACE])?;
            said::wait_count(lab, TWIN, "2/2")?;
            said::wait_condition(lab, ("bgppeer", TWIN), VALID, ("Valid", ""))?;
            kept.into_iter().try_for_each(|kept| kept?.unmoved(lab))
        })?;
        router.stop()
    });
}

/// Ends the gobgpd of a node. It leaves its socket, which the speaker takes away.
fn take_away(lab: &Lab, node: &str) -> Result<()> {
    lab.stop(&bgp::process_name(node), Signal::KILL)?;
    let socket = bgp::socket(lab.state(), node);
    wait::until("its socket is taken away", BGP_MAX, || Ok((!fs::exists(&socket)?).then_some(())))
}

/// FRR, a Service with a pod on either node for it, and one on the local network, whose pod is on the node that is spoilt.
fn start(lab: &Lab) -> Result<Router<'_>> {
    let router = Router::start(lab, Kind::Frr, GOOD, &Kind::Frr.config(&Peering::with_nodes(lab, GOOD)?))?;
    for node in lab.nodes() {
        lab.pod(&format!("web-{node}"), &node, &[("app", "web")])?;
    }
    lab.pod("lan", "node2", &[("app", "lan")])?;
    let service = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "lan"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    let mut all = objects::service().to_vec();
    all[0]["spec"]["serviceAllocation"] = json!({"serviceSelectors": [{"matchLabels": {"way": "routed"}}]});
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

/// What is to be with a node that has no gobgpd of use: its speaker says why, BGPPeers count it as missing and say why, and it still answers for
/// its address on the local network.
fn no_daemon(lab: &Lab, node: &str, why: &str) -> Result<()> {
    said::wait_daemon(lab, node, why)?;
    for peer in ADDRESSES.map(|address| peer_name(GOOD, address)) {
        said::wait_count(lab, &peer, "1/2")?;
        let words = format!("no session on {node}; {node}: {why}");
        said::wait_condition(lab, ("bgppeer", &peer), ESTABLISHED, ("NoSession", &words))?;
    }
    wait::until("the page on the local network", BGP_MAX, || {
        let owner = lab.who_answers(LAN.into())?;
        ensure!(owner.as_deref() == Some(node), "{owner:?} answers");
        let page = lab.http_get(CLIENT, SocketAddr::new(LAN.into(), 80), "/")?;
        let pod = page.pod();
        ensure!(pod.as_deref() == Some("lan"), "{pod:?} serves");
        Ok(Some(()))
    })
}

fn peer(name: &str, address: IpAddr, fields: Value) -> Value {
    let mut spec =
        json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s"});
    if let (Some(spec), Value::Object(fields)) = (spec.as_object_mut(), fields) {
        spec.extend(fields);
    }
    object("v1beta2", "BGPPeer", name, &spec)
}

fn unreachable(lab: &Lab) -> Result<()> {
    let why = "no connection to the router: is there a route to it, and does it listen on port 179?";
    lab.apply_objects(&[peer("nobody", NOBODY[0].into(), json!({}))])?;
    lab.nodes().iter().try_for_each(|node| said::wait_why(lab, node, "nobody", &[why]))?;
    said::wait_count(lab, "nobody", "0/2")?;
    said::wait_condition(lab, ("bgppeer", "nobody"), VALID, ("Valid", ""))?;
    let words = format!("no session on node1, node2; node1: {why}");
    said::wait_condition(lab, ("bgppeer", "nobody"), ESTABLISHED, ("NoSession", &words))
}

/// The younger one for the good router. By its name it would be the first.
const TWIN: &str = "a-twin";

fn conflicts(lab: &Lab) -> Result<()> {
    let (first, [four, _]) = (peer_name(GOOD, ADDRESSES[0]), objects::host(lab, GOOD)?.addresses());
    let younger = [
        (peer(TWIN, four, json!({})), format!("BGPPeer {first} has the same router")),
        (peer("b-as", NOBODY[1].into(), json!({"myASN": 64999})), "spec.myASN: BGPPeer tor1-v".to_owned()),
        (peer("c-id", NOBODY[2].into(), json!({"routerID": "192.0.2.1"})), "spec.routerID: BGPPeer tor1-v".to_owned()),
    ];
    for (peer, why) in younger {
        let name = peer["metadata"]["name"].as_str().context("a name")?.to_owned();
        lab.apply_objects(&[peer])?;
        said::wait_condition(lab, ("bgppeer", &name), VALID, ("Conflict", &why))?;
        said::wait_count(lab, &name, "0/2")?;
        for node in lab.nodes() {
            let sessions = objects::sessions(lab, &node)?;
            ensure!(sessions.iter().all(|session| session["peer"] != *name), "{node} has {sessions:#?}");
        }
    }
    said::wait_condition(lab, ("bgppeer", &first), VALID, ("Valid", ""))
}

/// What listens there is said; and a node does not knock without end.
fn no_routers(lab: &Lab, node: &str) -> Result<()> {
    let servers = Servers::start(lab, BAD)?;
    let only = json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": node}}]});
    let peers = Manner::ALL.map(|manner| peer(manner.name(), manner.address().into(), only.clone()));
    lab.apply_objects(&peers)?;
    for manner in Manner::ALL {
        said::wait_why(lab, node, manner.name(), &[manner.said()])?;
        said::wait_count(lab, manner.name(), "0/1")?;
        said::wait_condition(lab, ("bgppeer", manner.name()), ESTABLISHED, ("NoSession", manner.said()))?;
    }
    let before = servers.met();
    wait::during(COUNTED, || Ok(()))?;
    let met: Vec<usize> = servers.met().iter().zip(before).map(|(now, before)| now - before).collect();
    measured(&format!("connections to {:?} within {COUNTED:?}: {met:?}", Manner::ALL));
    ensure!(met.iter().all(|count| *count <= CONNECTIONS_MAX), "more than {CONNECTIONS_MAX}: {met:?}");
    for manner in Manner::ALL {
        lab.kubectl(&["delete", "bgppeer", manner.name(), "-n", objects::NAMESPACE])?;
    }
    servers.stop()
}
