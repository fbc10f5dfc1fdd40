//! Unnumbered sessions: the BGPPeer names an interface, the router determines the AS, and a session
//! carries both families; README.md has the drawing.

use crate::expect::{has_paths, sessions_with};
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name, prefix};
use crate::reported;
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

/// The interface between the node and the first router. No other host is connected.
const LINK: &str = "up0";
/// The node's address on it.
const NODE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
/// The router's address on it.
const ROUTER_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x101);
/// A router advertisement (RFC 4861 section 4.2) without options: only the sender's presence, with
/// a lifetime of half an hour.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
/// The all-nodes multicast address (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The default LOCAL_PREF.
const LOCAL_PREF: u32 = 100;
/// The hop limit of neighbor discovery.
const ND_HOP_LIMIT: u32 = 255;

#[test]
fn the_router_at_the_other_end_of_an_interface_gets_both_families() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("unnumbered") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("a cable from the node to a router", || cable(lab, &node))?;
        let linked = step("FRR of our own AS waits at its end", || start_linked(lab, NODE_AS))?;
        let [other, third] = step("FRR and BIRD of another AS", || {
            Ok([
                start(lab, RouterKind::Frr, ROUTERS[1])?,
                start(lab, RouterKind::Bird, ROUTERS[2])?,
            ])
        })?;
        step("a Service, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])?;
            apply_peers(lab, ["internal", "external"])
        })?;
        step("the link has a session, by which both families come from its own address", || {
            linked_up(lab, &node, &linked, NODE_AS)
        })?;
        step(
            "so they do by either session with an address, from the node's of each family",
            || {
                [&other, &third].into_iter().try_for_each(|router| {
                    sessions_with(router, &node.addresses())?;
                    has_paths(router, paths(router.kind(), &node))
                })
            },
        )?;
        step("routers of another AS than is said have no session, and it is said why", || {
            apply_peers(lab, ["external", "internal"])?;
            reported::wait_no_session(
                lab,
                &node.name,
                LINK,
                &["the router has the AS of this node, 64512", "spec.dynamicASN to internal"],
            )?;
            let refused = ADDRESSES.map(|address| peer_name(ROUTERS[1], address));
            refused.iter().try_for_each(|peer| {
                reported::wait_no_session(
                    lab,
                    &node.name,
                    peer,
                    &["check that the router's AS is 64512"],
                )
            })?;
            sessions_with(&linked, &[])?;
            sessions_with(&other, &[])
        })?;
        step(
            "who says what is has one, also where a router of another AS is at the end of the link",
            || {
                linked.stop()?;
                let linked = start_linked(lab, ROUTER_AS)?;
                apply_peers(lab, ["external", "external"])?;
                linked_up(lab, &node, &linked, ROUTER_AS)?;
                sessions_with(&other, &node.addresses())
            },
        )
    });
}

/// Connects the node and the router with an interface pair that has only link-local addresses.
fn cable(lab: &Lab, node: &Host) -> Result<()> {
    let there = lab.state().name.namespace(ROUTERS[0]);
    lab.exec(
        &node.name,
        &["ip", "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", &there],
    )?;
    for (host, address) in [(node.name.as_str(), NODE_ADDRESS), (ROUTERS[0], ROUTER_ADDRESS)] {
        lab.exec(host, &["ip", "link", "set", LINK, "addrgenmode", "none"])?;
        lab.exec(host, &["ip", "link", "set", LINK, "up"])?;
        lab.exec(host, &["ip", "addr", "add", &format!("{address}/64"), "dev", LINK, "nodad"])?;
    }
    Ok(())
}

fn start_linked(lab: &Lab, asn: u32) -> Result<Router<'_>> {
    let peering =
        Peering { own_as: asn, neighbours: vec![], ..Peering::with_nodes(lab, ROUTERS[0])? };
    let family = |family| {
        format!(
            " address-family {family} unicast\n  neighbor {LINK} activate\n exit-address-family\n"
        )
    };
    let neighbour = format!(
        "router bgp {asn}\n neighbor {LINK} interface remote-as {NODE_AS}\n neighbor {LINK} timers connect 1\n{}{}",
        family("ipv4"),
        family("ipv6")
    );
    Router::start(
        lab,
        RouterKind::Frr,
        ROUTERS[0],
        &(RouterKind::Frr.config(&peering) + &neighbour),
    )
}

fn start<'a>(lab: &'a Lab, kind: RouterKind, host: &str) -> Result<Router<'a>> {
    let mut peering = Peering::with_nodes(lab, host)?;
    peering.neighbours.iter_mut().for_each(|neighbour| neighbour.both_families = true);
    Router::with(lab, kind, host, &peering)
}

/// Applies the BGPPeers. `linked` and `second` are the dynamic AS of the linked router and of the
/// second. The third has a fixed AS.
fn apply_peers(lab: &Lab, [linked, second]: [&str; 2]) -> Result<()> {
    let link = json!({"myASN": NODE_AS, "interface": LINK, "dynamicASN": linked, "holdTime": "3s", "connectTime": "1s"});
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

/// Waits until the router at the other end of the cable has its session and the paths.
fn linked_up(lab: &Lab, node: &Host, router: &Router, asn: u32) -> Result<()> {
    wait::until("the session", BGP_MAX, || {
        // FRR accepts no neighbor on an interface that does not send router advertisements.
        lab.within(&node.name, advertise)??;
        let sessions = router.sessions()?;
        ensure!(sessions.iter().any(|session| session.established), "{router} has {sessions:?}");
        Ok(Some(()))
    })?;
    let path = |address| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(IpAddr::V6(NODE_ADDRESS)),
        as_path: vec![NODE_AS; usize::from(asn != NODE_AS)],
        local_pref: (asn == NODE_AS).then_some(LOCAL_PREF),
        ..BgpRoute::default()
    };
    has_paths(router, ADDRESSES.map(path).into())
}

/// Sends a router advertisement, as a daemon on a node would.
fn advertise() -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(LINK.as_bytes()))?;
    socket.set_multicast_hops_v6(ND_HOP_LIMIT)?;
    let scope = rustix::net::netdevice::name_to_index(&socket, LINK)?;
    socket.send_to(&ADVERTISEMENT, &SocketAddrV6::new(ALL_NODES, 0, 0, scope).into())?;
    Ok(())
}

/// Returns the expected paths: two sessions carry each prefix, with the node's address of its
/// family as next hop.
fn paths(kind: RouterKind, node: &Host) -> Vec<BgpRoute> {
    let path = |(address, hop)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: kind.local_pref_outside(),
        ..BgpRoute::default()
    };
    ADDRESSES
        .into_iter()
        .zip(node.addresses())
        .map(path)
        .flat_map(|route| [route.clone(), route])
        .collect()
}
