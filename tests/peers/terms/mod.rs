//! The terms of a session, as FRR has them from the other side; the drawing is in README.md.

use crate::expect::{sees, standing};
use crate::knocks;
use crate::objects::{self, ADDRESSES, object, prefix};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::routers::{Kind, Neighbour, Peering, Route, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Where the router listens.
const PORT: u16 = 1790;
/// The hold time that the router asks for, in seconds: longer than what is asked of it.
const ROUTER_HOLD: u16 = 90;
/// The AS that the router sees over IPv4.
const LOCAL_AS: u32 = 64999;
/// The node's second addresses, from which its sessions come.
const SOURCES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 30, 0, 111)), IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x111))];
/// The node's router id.
const ROUTER_ID: &str = "10.9.8.7";
/// In so long a session that is kept alive each second is, this many times; one of a third of the hold time of 12 s is not.
const KEPT_ALIVE: (Duration, u64) = (Duration::from_secs(6), 4);
/// Where no router is, and how long the node is to wait there before it tries again. A gobgpd that was told of a session tries after 2 s,
/// and takes 0.75 to 1 of what it is told.
const CLOSED: [(&str, &str); 2] = [(ROUTERS[1], "3s"), (ROUTERS[2], "60s")];

#[test]
fn a_router_has_the_terms_that_a_bgppeer_says() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("terms") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let router = step("FRR waits on another port, for a second address of the node", || prepare(lab, &node))?;
        step("a Service, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&said(lab)?)
        })?;
        step("the sessions come from there, and the paths are of the AS that is to be seen", || {
            standing(&router, &SOURCES)?;
            sees(&router, paths())
        })?;
        step("the terms are what they are to be", || terms(&router))?;
        step("it is kept alive as often as it is to be", || kept_alive(&router))?;
        step("where no router is it is tried as often as it is to be", || tried(lab))
    });
}

fn prepare<'a>(lab: &'a Lab, node: &Host) -> Result<Router<'a>> {
    for source in SOURCES {
        let nodad: &[&str] = if source.is_ipv4() { &[] } else { &["nodad"] };
        let words = ["ip", "addr", "add", &prefix(source), "dev", "eth0"];
        lab.exec(&node.name, &[&words[..], nodad].concat())?;
    }
    CLOSED.into_iter().try_for_each(|(host, _)| knocks::count(lab, host))?;
    let neighbours = SOURCES.into_iter().zip([LOCAL_AS, NODE_AS]);
    let neighbours = neighbours.map(|(address, asn)| Neighbour::new(address, asn)).collect();
    let peering = Peering { port: PORT, hold: ROUTER_HOLD, neighbours, ..Peering::with_nodes(lab, ROUTERS[0])? };
    Router::with(lab, Kind::Frr, ROUTERS[0], &peering)
}

/// Of the router's two sessions one has all terms, and the other those that go without saying.
fn said(lab: &Lab) -> Result<Vec<Value>> {
    let [v4, v6] = objects::host(lab, ROUTERS[0])?.addresses();
    let router = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerPort": PORT, "routerID": ROUTER_ID});
    let with = |more: Value| {
        let mut spec = router.clone();
        spec.as_object_mut().into_iter().for_each(|spec| spec.extend(more.as_object().cloned().unwrap_or_default()));
        spec
    };
    let all = json!({
        "peerAddress": v4, "sourceAddress": SOURCES[0], "localASN": LOCAL_AS, "holdTime": "12s", "keepaliveTime": "1s",
        "enableGracefulRestart": true,
    });
    let few = json!({"peerAddress": v6, "sourceAddress": SOURCES[1], "holdTime": "30s"});
    let mut objects = objects::service().to_vec();
    objects.push(object("v1beta1", "BGPAdvertisement", "all", &json!({"asPathPrepend": 1})));
    objects.push(object("v1beta2", "BGPPeer", "all", &with(all)));
    objects.push(object("v1beta2", "BGPPeer", "few", &with(few)));
    for (host, connect) in CLOSED {
        let [address, _] = objects::host(lab, host)?.addresses();
        let spec = with(json!({"peerAddress": address, "peerPort": 179, "connectTime": connect}));
        objects.push(object("v1beta2", "BGPPeer", host, &spec));
    }
    Ok(objects)
}

/// The path over each session; the other AS stands for ours, also where it comes again.
fn paths() -> Vec<Route> {
    let own = ADDRESSES.into_iter().zip(SOURCES).zip([LOCAL_AS, NODE_AS]);
    let path = |((address, hop), asn)| Route {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![asn; 2],
        ..Route::default()
    };
    own.map(path).collect()
}

/// What the router says of its session with a neighbour.
fn neighbour(router: &Router, address: IpAddr) -> Result<Value> {
    let all: Value = serde_json::from_str(&router.ask(&["show bgp neighbors json"])?)?;
    all.get(address.to_string()).cloned().with_context(|| format!("{router} has no neighbour {address}"))
}

fn terms(router: &Router) -> Result<()> {
    let expect = [(LOCAL_AS, 12_000, 120), (NODE_AS, 30_000, 0)];
    for (source, (asn, hold, kept)) in SOURCES.into_iter().zip(expect) {
        let is = neighbour(router, source)?;
        // For so long, in seconds, it is to keep the paths; FRR says 0 of one that did not ask.
        let restart = &is["gracefulRestartInfo"]["timers"]["receivedRestartTimer"];
        let found = [
            &is["remoteAs"],
            &is["remoteRouterId"],
            &is["portLocal"],
            &is["hostForeign"],
            &is["bgpTimerHoldTimeMsecs"],
            restart,
        ];
        let wanted = [json!(asn), json!(ROUTER_ID), json!(PORT), json!(source), json!(hold), json!(kept)];
        ensure!(found.into_iter().eq(&wanted), "of {source} {router} says {found:?}, not {wanted:?}: {is:#}");
    }
    Ok(())
}

/// KEEPALIVEs that the router has from each of the two.
fn keepalives(router: &Router) -> Result<[u64; 2]> {
    let of = |address| {
        let is = neighbour(router, address)?;
        is["messageStats"]["keepalivesRecv"].as_u64().with_context(|| format!("no count of KEEPALIVEs: {is:#}"))
    };
    Ok([of(SOURCES[0])?, of(SOURCES[1])?])
}

fn kept_alive(router: &Router) -> Result<()> {
    let [before, seldom] = keepalives(router)?;
    let (limit, times) = KEPT_ALIVE;
    wait::until("KEEPALIVEs", limit, || Ok((keepalives(router)?[0] >= before + times).then_some(())))?;
    let now = keepalives(router)?[1];
    ensure!(now <= seldom + 1, "one with a hold time of 30 s was kept alive {} times meanwhile", now - seldom);
    Ok(())
}

/// Waits until the one was tried often; the other was tried once all the while.
fn tried(lab: &Lab) -> Result<()> {
    let of = |(host, _)| Ok::<_, anyhow::Error>(knocks::counted(lab, host)?[0]);
    let often = wait::until("attempts", objects::BGP_MAX, || Ok(Some(of(CLOSED[0])?).filter(|count| *count >= 4)))?;
    let seldom = of(CLOSED[1])?;
    measured(&format!(
        "where nobody listens: tried {often} times with a connectTime of 3 s, {seldom} times with one of 60 s"
    ));
    ensure!(seldom == 1, "with a connectTime of 60 s it was tried {seldom} times");
    Ok(())
}
