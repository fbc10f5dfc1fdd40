//! Parameters of a session, as FRR reports them; README.md has the drawing.

use crate::connection_attempts;
use crate::expect::{has_paths, sessions_with};
use crate::objects::{self, ADDRESSES, object, prefix};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{BgpNeighbor, BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Port of the router.
const PORT: u16 = 1790;
/// Hold time of the router, in seconds: longer than the node's.
const ROUTER_HOLD: u16 = 90;
/// The AS that the router sees over IPv4.
const LOCAL_AS: u32 = 64999;
/// The node's second addresses, which are the sources of its sessions.
const SOURCES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 30, 0, 111)),
    IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x111)),
];
/// The node's router ID.
const ROUTER_ID: &str = "10.9.8.7";
/// Time, and the minimum number of KEEPALIVEs in it with an interval of 1 s. An interval of a third
/// of the hold time of 12 s gives fewer.
const KEPT_ALIVE: (Duration, u64) = (Duration::from_secs(6), 4);
/// Hosts without a router, and the connect time for each. gobgpd first tries after 2 s, and then
/// after 0.75 to 1 of the configured time.
const CLOSED: [(&str, &str); 2] = [(ROUTERS[1], "3s"), (ROUTERS[2], "60s")];

#[test]
fn a_session_has_the_parameters_of_its_bgppeer() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("terms") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let router = step("FRR waits on another port, for a second address of the node", || {
            prepare(lab, &node)
        })?;
        step("a Service, and all that is said of BGP", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects_of_test(lab)?)
        })?;
        step(
            "the sessions come from there, and the paths are of the AS that is to be seen",
            || {
                sessions_with(&router, &SOURCES)?;
                has_paths(&router, paths())
            },
        )?;
        step("the terms are what they are to be", || check_parameters(&router))?;
        step("it is kept alive as often as it is to be", || kept_alive(&router))?;
        step("where no router is it is tried as often as it is to be", || check_attempts(lab))
    });
}

fn prepare<'a>(lab: &'a Lab, node: &Host) -> Result<Router<'a>> {
    for source in SOURCES {
        let nodad: &[&str] = if source.is_ipv4() { &[] } else { &["nodad"] };
        let words = ["ip", "addr", "add", &prefix(source), "dev", "eth0"];
        lab.exec(&node.name, &[&words[..], nodad].concat())?;
    }
    CLOSED.into_iter().try_for_each(|(host, _)| connection_attempts::start(lab, host))?;
    let neighbours = SOURCES.into_iter().zip([LOCAL_AS, NODE_AS]);
    let neighbours = neighbours.map(|(address, asn)| BgpNeighbor::new(address, asn)).collect();
    let peering = Peering {
        port: PORT,
        hold: ROUTER_HOLD,
        neighbours,
        ..Peering::with_nodes(lab, ROUTERS[0])?
    };
    Router::with(lab, RouterKind::Frr, ROUTERS[0], &peering)
}

/// Returns the objects. One of the router's two sessions sets all parameters, and the other has the
/// defaults.
fn objects_of_test(lab: &Lab) -> Result<Vec<Value>> {
    let [v4, v6] = objects::host(lab, ROUTERS[0])?.addresses();
    let router =
        json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerPort": PORT, "routerID": ROUTER_ID});
    let with = |more: Value| {
        let mut spec = router.clone();
        spec.as_object_mut()
            .into_iter()
            .for_each(|spec| spec.extend(more.as_object().cloned().unwrap_or_default()));
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

/// Returns the expected path of each session. The local AS replaces the node's own, also in the
/// prepended part.
fn paths() -> Vec<BgpRoute> {
    let own = ADDRESSES.into_iter().zip(SOURCES).zip([LOCAL_AS, NODE_AS]);
    let path = |((address, hop), asn)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![asn; 2],
        ..BgpRoute::default()
    };
    own.map(path).collect()
}

/// Returns FRR's report about its session with a neighbor.
fn neighbor_report(router: &Router, address: IpAddr) -> Result<Value> {
    let all: Value = serde_json::from_str(&router.run_command(&["show bgp neighbors json"])?)?;
    all.get(address.to_string())
        .cloned()
        .with_context(|| format!("{router} has no neighbor {address}"))
}

fn check_parameters(router: &Router) -> Result<()> {
    let expect = [(LOCAL_AS, 12_000, 120), (NODE_AS, 30_000, 0)];
    for (source, (asn, hold, kept)) in SOURCES.into_iter().zip(expect) {
        let is = neighbor_report(router, source)?;
        // Time for which the router must keep the paths, in seconds. FRR reports 0 for a peer
        // without graceful restart.
        let restart = &is["gracefulRestartInfo"]["timers"]["receivedRestartTimer"];
        let found = [
            &is["remoteAs"],
            &is["remoteRouterId"],
            &is["portLocal"],
            &is["hostForeign"],
            &is["bgpTimerHoldTimeMsecs"],
            restart,
        ];
        let wanted =
            [json!(asn), json!(ROUTER_ID), json!(PORT), json!(source), json!(hold), json!(kept)];
        ensure!(
            found.into_iter().eq(&wanted),
            "{router} reports {found:?} for {source}, not {wanted:?}: {is:#}"
        );
    }
    Ok(())
}

/// Returns the number of KEEPALIVEs that the router has received from each source.
fn keepalives(router: &Router) -> Result<[u64; 2]> {
    let of = |address| {
        let is = neighbor_report(router, address)?;
        is["messageStats"]["keepalivesRecv"]
            .as_u64()
            .with_context(|| format!("no count of KEEPALIVEs: {is:#}"))
    };
    Ok([of(SOURCES[0])?, of(SOURCES[1])?])
}

fn kept_alive(router: &Router) -> Result<()> {
    let [before, seldom] = keepalives(router)?;
    let (limit, times) = KEPT_ALIVE;
    wait::until("KEEPALIVEs", limit, || {
        Ok((keepalives(router)?[0] >= before + times).then_some(()))
    })?;
    let now = keepalives(router)?[1];
    ensure!(
        now <= seldom + 1,
        "a session with a hold time of 30 s sent {} KEEPALIVEs meanwhile",
        now - seldom
    );
    Ok(())
}

/// Waits until the first host was tried often, and checks that the other was tried only once.
fn check_attempts(lab: &Lab) -> Result<()> {
    let of = |(host, _)| Ok::<_, anyhow::Error>(connection_attempts::counted(lab, host)?[0]);
    let often = wait::until("attempts", objects::BGP_MAX, || {
        Ok(Some(of(CLOSED[0])?).filter(|count| *count >= 4))
    })?;
    let seldom = of(CLOSED[1])?;
    print_measured(&format!(
        "where nobody listens: tried {often} times with a connectTime of 3 s, {seldom} times with one of 60 s"
    ));
    ensure!(seldom == 1, "with a connectTime of 60 s there were {seldom} attempts");
    Ok(())
}
