//! Sessions whose router is given by a link, whose AS the router tells, and that carry both families; the drawing is in README.md.

use crate::expect::{sees, standing};
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name, prefix};
use crate::said;
use anyhow::{Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Route, Router};
use ferrolb_tests::stage::{play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

/// The link between the node and the first router, which nobody else is on.
const LINK: &str = "up0";
/// The node's address on it.
const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
/// The router's.
const ROUTERS_OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x101);
/// A router advertisement (RFC 4861 section 4.2) without options that says nothing but that its sender is there, for half an hour.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
/// To all nodes of a link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The LOCAL_PREF of a path to which nobody gave one.
const LOCAL_PREF: u32 = 100;
/// The hop limit of neighbour discovery.
const OF_NEIGHBOURS: u32 = 255;

#[test]
fn a_router_is_who_is_at_the_other_end_and_takes_both_families() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("unnumbered") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("a cable from the node to a router", || cable(lab, &node))?;
        let linked = step("FRR of our own AS waits at its end", || start_linked(lab, NODE_AS))?;
        let [other, third] = step("FRR and BIRD of another AS", || {
            Ok([start(lab, Kind::Frr, ROUTERS[1])?, start(lab, Kind::Bird, ROUTERS[2])?])
        })?;
        step("a Service, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])?;
            say(lab, ["internal", "external"])
        })?;
        step("the link has a session, by which both families come from its own address", || {
            linked_up(lab, &node, &linked, NODE_AS)
        })?;
        step("so they do by either session with an address, from the node's of each family", || {
            [&other, &third].into_iter().try_for_each(|router| {
                standing(router, &node.addresses())?;
                sees(router, paths(router.kind(), &node))
            })
        })?;
        step("routers of another AS than is said have no session, and it is said why", || {
            say(lab, ["external", "internal"])?;
            said::wait_why(lab, &node.name, LINK, &["the router is of our own AS, 64512", "dynamicASN internal"])?;
            let refused = ADDRESSES.map(|address| peer_name(ROUTERS[1], address));
            refused.iter().try_for_each(|peer| said::wait_why(lab, &node.name, peer, &["is its AS 64512?"]))?;
            standing(&linked, &[])?;
            standing(&other, &[])
        })?;
        step("who says what is has one, also where a router of another AS is at the end of the link", || {
            linked.stop()?;
            let linked = start_linked(lab, ROUTER_AS)?;
            say(lab, ["external", "external"])?;
            linked_up(lab, &node, &linked, ROUTER_AS)?;
            standing(&other, &node.addresses())
        })
    });
}

/// Lays a link between the node and the router, with addresses of the link alone.
fn cable(lab: &Lab, node: &Host) -> Result<()> {
    let there = lab.state().name.namespace(ROUTERS[0]);
    lab.exec(&node.name, &["ip", "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", &there])?;
    for (host, address) in [(node.name.as_str(), OWN), (ROUTERS[0], ROUTERS_OWN)] {
        lab.exec(host, &["ip", "link", "set", LINK, "addrgenmode", "none"])?;
        lab.exec(host, &["ip", "link", "set", LINK, "up"])?;
        lab.exec(host, &["ip", "addr", "add", &format!("{address}/64"), "dev", LINK, "nodad"])?;
    }
    Ok(())
}

fn start_linked(lab: &Lab, asn: u32) -> Result<Router<'_>> {
    let peering = Peering { own_as: asn, neighbours: vec![], ..Peering::with_nodes(lab, ROUTERS[0])? };
    let family =
        |family| format!(" address-family {family} unicast\n  neighbor {LINK} activate\n exit-address-family\n");
    let neighbour = format!(
        "router bgp {asn}\n neighbor {LINK} interface remote-as {NODE_AS}\n neighbor {LINK} timers connect 1\n{}{}",
        family("ipv4"),
        family("ipv6")
    );
    Router::start(lab, Kind::Frr, ROUTERS[0], &(Kind::Frr.config(&peering) + &neighbour))
}

fn start<'a>(lab: &'a Lab, kind: Kind, host: &str) -> Result<Router<'a>> {
    let mut peering = Peering::with_nodes(lab, host)?;
    peering.neighbours.iter_mut().for_each(|neighbour| neighbour.both_families = true);
    Router::with(lab, kind, host, &peering)
}

/// The BGPPeers: of which AS the router at the link is to be, and of which the second; of the third the number is written.
fn say(lab: &Lab, [linked, second]: [&str; 2]) -> Result<()> {
    let link =
        json!({"myASN": NODE_AS, "interface": LINK, "dynamicASN": linked, "holdTime": "3s", "connectTime": "1s"});
    let mut all = vec![object("v1beta2", "BGPPeer", LINK, &link)];
    for host in &ROUTERS[1..] {
        all.extend(objects::peers(lab, host)?);
    }
    for spec in all.iter_mut().skip(1).filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.insert("dualStackAddressFamily".to_owned(), Value::Bool(true));
    }
    for spec in all.iter_mut().skip(1).take(2).filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.remove("peerASN");
        spec.insert("dynamicASN".to_owned(), second.into());
    }
    lab.apply_objects(&all)
}

/// Waits until the router at the other end of the link has its session, and the paths.
fn linked_up(lab: &Lab, node: &Host, router: &Router, asn: u32) -> Result<()> {
    wait::until("the session", BGP_MAX, || {
        // FRR takes nobody for its neighbour who does not advertise itself.
        lab.within(&node.name, advertise)??;
        let sessions = router.sessions()?;
        ensure!(sessions.iter().any(|session| session.established), "{router} has {sessions:?}");
        Ok(Some(()))
    })?;
    let path = |address| Route {
        prefix: prefix(address),
        next_hop: Some(IpAddr::V6(OWN)),
        as_path: vec![NODE_AS; usize::from(asn != NODE_AS)],
        local_pref: (asn == NODE_AS).then_some(LOCAL_PREF),
        ..Route::default()
    };
    sees(router, ADDRESSES.map(path).into())
}

/// What a daemon for router advertisements does on a node.
fn advertise() -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(LINK.as_bytes()))?;
    socket.set_multicast_hops_v6(OF_NEIGHBOURS)?;
    let scope = rustix::net::netdevice::name_to_index(&socket, LINK)?;
    socket.send_to(&ADVERTISEMENT, &SocketAddrV6::new(ALL_NODES, 0, 0, scope).into())?;
    Ok(())
}

/// Each prefix comes by two sessions, with the node's address of its family as next hop.
fn paths(kind: Kind, node: &Host) -> Vec<Route> {
    let path = |(address, hop)| Route {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: kind.local_pref_outside(),
        ..Route::default()
    };
    ADDRESSES.into_iter().zip(node.addresses()).map(path).flat_map(|route| [route.clone(), route]).collect()
}
