//! Unnumbered sessions: the BGPPeer names an interface instead of an address, `dynamicASN` accepts
//! the router's AS, and one session carries both families; README.md has the drawing.

use crate::expect::{wait_exact_paths, wait_sessions_with};
use crate::in_containers;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name, prefix};
use crate::reported;
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

/// Name of the interface at both ends of the pair that connects the node and the first router.
const INTERFACE: &str = "up0";
/// The node's link-local address on [`INTERFACE`].
const NODE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
/// The router's link-local address on [`INTERFACE`].
const ROUTER_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x101);
/// A router advertisement (RFC 4861 section 4.2) without options, with a lifetime of 30 minutes.
const ROUTER_ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
/// The all-nodes multicast address (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// LOCAL_PREF of routes for which no LOCAL_PREF is configured.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// The hop limit of Neighbor Discovery messages (RFC 4861 section 4.2).
const ND_HOP_LIMIT: u32 = 255;

#[test]
fn an_unnumbered_session_advertises_both_families() {
    run_scenario(&in_containers("unnumbered"), |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        step("an interface pair connects the node and a router", || connect(lab, &node))?;
        let unnumbered = step("FRR starts in the node's own AS at the interface", || {
            start_unnumbered(lab, NODE_AS)
        })?;
        let [other, third] = step("FRR and BIRD start in another AS", || {
            Ok([
                start_router(lab, RouterKind::Frr, ROUTERS[1])?,
                start_router(lab, RouterKind::Bird, ROUTERS[2])?,
            ])
        })?;
        step("a Service, its advertisement and the BGPPeers are created", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects::service())?;
            lab.apply_objects(&[object("v1beta1", "BGPAdvertisement", "all", &json!({}))])?;
            apply_peers(lab, ["internal", "external"])
        })?;
        step("the unnumbered session is established and advertises both families", || {
            wait_unnumbered(lab, &node, &unnumbered, NODE_AS)
        })?;
        step("each session with an address advertises both families", || {
            [&other, &third].into_iter().try_for_each(|router| {
                wait_sessions_with(router, &node.addresses())?;
                wait_exact_paths(router, paths(router.kind(), &node))
            })
        })?;
        step(
            "routers in another AS than `dynamicASN` allows have no session, and the cause is reported",
            || {
                apply_peers(lab, ["external", "internal"])?;
                reported::wait_no_session(
                    lab,
                    &node.name,
                    INTERFACE,
                    &["the router has the AS of this node, 64512: set spec.dynamicASN to internal"],
                )?;
                let peers = ADDRESSES.map(|address| peer_name(ROUTERS[1], address));
                peers.iter().try_for_each(|peer| {
                    reported::wait_no_session(
                        lab,
                        &node.name,
                        peer,
                        &["check that the router's AS is 64512"],
                    )
                })?;
                wait_sessions_with(&unnumbered, &[])?;
                wait_sessions_with(&other, &[])
            },
        )?;
        step(
            "with a matching `dynamicASN`, sessions are established, also the unnumbered one",
            || {
                unnumbered.stop()?;
                let unnumbered = start_unnumbered(lab, ROUTER_AS)?;
                apply_peers(lab, ["external", "external"])?;
                wait_unnumbered(lab, &node, &unnumbered, ROUTER_AS)?;
                wait_sessions_with(&other, &node.addresses())
            },
        )
    });
}

/// Connects the node and the router by an interface pair with only link-local addresses.
fn connect(lab: &Lab, node: &Host) -> Result<()> {
    let namespace = lab.state().name.namespace(ROUTERS[0]);
    lab.exec(
        &node.name,
        &[
            "ip", "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns",
            &namespace,
        ],
    )?;
    for (host, address) in [(node.name.as_str(), NODE_ADDRESS), (ROUTERS[0], ROUTER_ADDRESS)] {
        lab.exec(host, &["ip", "link", "set", INTERFACE, "addrgenmode", "none"])?;
        lab.exec(host, &["ip", "link", "set", INTERFACE, "up"])?;
        lab.exec(
            host,
            &["ip", "addr", "add", &format!("{address}/64"), "dev", INTERFACE, "nodad"],
        )?;
    }
    Ok(())
}

fn start_unnumbered(lab: &Lab, asn: u32) -> Result<Router<'_>> {
    let peering =
        Peering { own_as: asn, neighbors: vec![], ..Peering::with_nodes(lab, ROUTERS[0])? };
    let family = |family| {
        format!(
            " address-family {family} unicast\n  neighbor {INTERFACE} activate\n exit-address-family\n"
        )
    };
    let neighbor = format!(
        "router bgp {asn}\n neighbor {INTERFACE} interface remote-as {NODE_AS}\n neighbor {INTERFACE} timers connect 1\n{}{}",
        family("ipv4"),
        family("ipv6")
    );
    Router::start(lab, RouterKind::Frr, ROUTERS[0], &(RouterKind::Frr.config(&peering) + &neighbor))
}

fn start_router<'a>(lab: &'a Lab, kind: RouterKind, host: &str) -> Result<Router<'a>> {
    let mut peering = Peering::with_nodes(lab, host)?;
    peering.neighbors.iter_mut().for_each(|neighbor| neighbor.both_families = true);
    Router::start_with_peering(lab, kind, host, &peering)
}

/// Applies the BGPPeers. `unnumbered` and `second` are the `dynamicASN` of the unnumbered router
/// and of the second router. The third router has a fixed `peerASN`.
fn apply_peers(lab: &Lab, [unnumbered, second]: [&str; 2]) -> Result<()> {
    let spec = json!({"myASN": NODE_AS, "interface": INTERFACE, "dynamicASN": unnumbered, "holdTime": "3s", "connectTime": "1s"});
    let mut peers = vec![object("v1beta2", "BGPPeer", INTERFACE, &spec)];
    for host in &ROUTERS[1..] {
        peers.extend(objects::peers(lab, host)?);
    }
    for spec in peers.iter_mut().skip(1).filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.insert("dualStackAddressFamily".to_owned(), Value::Bool(true));
    }
    for spec in peers.iter_mut().skip(1).take(2).filter_map(|peer| peer["spec"].as_object_mut()) {
        spec.remove("peerASN");
        spec.insert("dynamicASN".to_owned(), second.into());
    }
    lab.apply_objects(&peers)
}

/// Waits until the unnumbered router has an established session and exactly the paths of both
/// addresses.
fn wait_unnumbered(lab: &Lab, node: &Host, router: &Router, asn: u32) -> Result<()> {
    wait::until("the session is established", BGP_MAX, || {
        // FRR accepts a neighbor on an interface only after its router advertisement.
        lab.within(&node.name, send_router_advertisement)??;
        let sessions = router.sessions()?;
        ensure!(sessions.iter().any(|session| session.established), "{router} has {sessions:?}");
        Ok(Some(()))
    })?;
    let path = |address| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(IpAddr::V6(NODE_ADDRESS)),
        as_path: vec![NODE_AS; usize::from(asn != NODE_AS)],
        local_pref: (asn == NODE_AS).then_some(DEFAULT_LOCAL_PREF),
        ..BgpRoute::default()
    };
    wait_exact_paths(router, ADDRESSES.map(path).into())
}

/// Sends a router advertisement from the node, as a daemon like radvd does.
fn send_router_advertisement() -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind_device(Some(INTERFACE.as_bytes()))?;
    socket.set_multicast_hops_v6(ND_HOP_LIMIT)?;
    let scope = rustix::net::netdevice::name_to_index(&socket, INTERFACE)?;
    socket.send_to(&ROUTER_ADVERTISEMENT, &SocketAddrV6::new(ALL_NODES, 0, 0, scope).into())?;
    Ok(())
}

/// Returns the expected paths of a router: each prefix twice, because both sessions carry it. The
/// next hop is the node's address of the prefix's family.
fn paths(kind: RouterKind, node: &Host) -> Vec<BgpRoute> {
    let path = |(address, hop)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        local_pref: kind.default_local_pref(),
        ..BgpRoute::default()
    };
    ADDRESSES
        .into_iter()
        .zip(node.addresses())
        .map(path)
        .flat_map(|route| [route.clone(), route])
        .collect()
}
