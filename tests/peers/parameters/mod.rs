//! Parameters of a session, as FRR reports them; README.md has the drawing.

use crate::connection_attempts;
use crate::expect::{wait_exact_paths, wait_sessions_with};
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

/// BGP port of the router.
const PORT: u16 = 1790;
/// Hold time of the router, in seconds: longer than the node's hold times.
const ROUTER_HOLD: u16 = 90;
/// Local AS of the node's IPv4 session (`localASN`).
const LOCAL_AS: u32 = 64999;
/// The node's second addresses, which are the sources of its sessions.
const SOURCES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 30, 0, 111)),
    IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x111)),
];
/// The node's router ID.
const ROUTER_ID: &str = "10.9.8.7";
/// Length of a period, and the minimum number of KEEPALIVEs that a session with an interval of 1 s
/// sends in that period. With the default interval, a third of the hold time of 12 s, a session
/// sends fewer.
const KEEPALIVES_MIN: (Duration, u64) = (Duration::from_secs(6), 4);
/// Hosts without a router, and the connect time for each. gobgpd makes the first attempt after 2 s,
/// and further ones after 0.75 to 1 times the connect time.
const WITHOUT_ROUTER: [(&str, &str); 2] = [(ROUTERS[1], "3s"), (ROUTERS[2], "60s")];

#[test]
fn a_session_has_the_parameters_of_its_bgppeer() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("parameters") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let router = step(
            "FRR listens on another port for sessions from the node's second addresses",
            || start_router(lab, &node),
        )?;
        step("a Service, its advertisement and the BGPPeers are created", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&scenario_objects(lab)?)
        })?;
        step(
            "sessions have the configured source address, and paths the configured local AS",
            || {
                wait_sessions_with(&router, &SOURCES)?;
                wait_exact_paths(&router, paths())
            },
        )?;
        step("hold time, router ID, port and restart time are those of the BGPPeers", || {
            check_parameters(&router)
        })?;
        step("KEEPALIVEs are sent at the configured interval", || check_keepalives(&router))?;
        step("connection attempts are made at the configured connect time", || check_attempts(lab))
    });
}

fn start_router<'a>(lab: &'a Lab, node: &Host) -> Result<Router<'a>> {
    for source in SOURCES {
        let nodad: &[&str] = if source.is_ipv4() { &[] } else { &["nodad"] };
        let words = ["ip", "addr", "add", &prefix(source), "dev", "eth0"];
        lab.exec(&node.name, &[&words[..], nodad].concat())?;
    }
    WITHOUT_ROUTER.into_iter().try_for_each(|(host, _)| connection_attempts::start(lab, host))?;
    let neighbors = SOURCES.into_iter().zip([LOCAL_AS, NODE_AS]);
    let neighbors = neighbors.map(|(address, asn)| BgpNeighbor::new(address, asn)).collect();
    let peering = Peering {
        port: PORT,
        hold: ROUTER_HOLD,
        neighbors,
        ..Peering::with_nodes(lab, ROUTERS[0])?
    };
    Router::start_with_peering(lab, RouterKind::Frr, ROUTERS[0], &peering)
}

/// Returns the objects of the scenario. Of the router's two BGPPeers, one sets all parameters, and
/// the other one leaves most at their defaults.
fn scenario_objects(lab: &Lab) -> Result<Vec<Value>> {
    let [v4, v6] = objects::host(lab, ROUTERS[0])?.addresses();
    let router =
        json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerPort": PORT, "routerID": ROUTER_ID});
    let spec_with = |fields: Value| {
        let mut spec = router.clone();
        spec.as_object_mut()
            .into_iter()
            .for_each(|spec| spec.extend(fields.as_object().cloned().unwrap_or_default()));
        spec
    };
    let all = json!({
        "peerAddress": v4, "sourceAddress": SOURCES[0], "localASN": LOCAL_AS, "holdTime": "12s", "keepaliveTime": "1s",
        "enableGracefulRestart": true,
    });
    let few = json!({"peerAddress": v6, "sourceAddress": SOURCES[1], "holdTime": "30s"});
    let mut objects = objects::service().to_vec();
    objects.push(object("v1beta1", "BGPAdvertisement", "all", &json!({"asPathPrepend": 1})));
    objects.push(object("v1beta2", "BGPPeer", "all", &spec_with(all)));
    objects.push(object("v1beta2", "BGPPeer", "few", &spec_with(few)));
    for (host, connect) in WITHOUT_ROUTER {
        let [address, _] = objects::host(lab, host)?.addresses();
        let spec =
            spec_with(json!({"peerAddress": address, "peerPort": 179, "connectTime": connect}));
        objects.push(object("v1beta2", "BGPPeer", host, &spec));
    }
    Ok(objects)
}

/// Returns the expected path of each session. A local AS replaces the node's own AS, also in the
/// prepended part.
fn paths() -> Vec<BgpRoute> {
    let sessions = ADDRESSES.into_iter().zip(SOURCES).zip([LOCAL_AS, NODE_AS]);
    let path = |((address, hop), asn)| BgpRoute {
        prefix: prefix(address),
        next_hop: Some(hop),
        as_path: vec![asn; 2],
        ..BgpRoute::default()
    };
    sessions.map(path).collect()
}

/// Returns FRR's report about its session with a neighbor.
fn neighbor_report(router: &Router, address: IpAddr) -> Result<Value> {
    let all: Value = serde_json::from_str(&router.run_command(&["show bgp neighbors json"])?)?;
    all.get(address.to_string())
        .cloned()
        .with_context(|| format!("{router} has no neighbor {address}"))
}

/// Checks the parameters of both sessions in FRR's report.
fn check_parameters(router: &Router) -> Result<()> {
    let expect = [(LOCAL_AS, 12_000, 120), (NODE_AS, 30_000, 0)];
    for (source, (asn, hold, restart_time)) in SOURCES.into_iter().zip(expect) {
        let report = neighbor_report(router, source)?;
        // Time for which the router must keep the paths after the session's end, in seconds. FRR
        // reports 0 for a peer without graceful restart.
        let restart = &report["gracefulRestartInfo"]["timers"]["receivedRestartTimer"];
        let found = [
            &report["remoteAs"],
            &report["remoteRouterId"],
            &report["portLocal"],
            &report["hostForeign"],
            &report["bgpTimerHoldTimeMsecs"],
            restart,
        ];
        let expected = [
            json!(asn),
            json!(ROUTER_ID),
            json!(PORT),
            json!(source),
            json!(hold),
            json!(restart_time),
        ];
        ensure!(
            found.into_iter().eq(&expected),
            "{router} reports {found:?} for {source}, not {expected:?}: {report:#}"
        );
    }
    Ok(())
}

/// Returns the number of KEEPALIVEs that the router has received from each source.
fn keepalives(router: &Router) -> Result<[u64; 2]> {
    let count = |address| {
        let report = neighbor_report(router, address)?;
        report["messageStats"]["keepalivesRecv"]
            .as_u64()
            .with_context(|| format!("FRR reports no number of KEEPALIVEs: {report:#}"))
    };
    Ok([count(SOURCES[0])?, count(SOURCES[1])?])
}

/// Checks that the session with `keepaliveTime` sends KEEPALIVEs at this interval, and that the
/// other session sends at most one KEEPALIVE meanwhile.
fn check_keepalives(router: &Router) -> Result<()> {
    let [before, other_before] = keepalives(router)?;
    let (limit, count) = KEEPALIVES_MIN;
    wait::until("the router has received enough KEEPALIVEs", limit, || {
        Ok((keepalives(router)?[0] >= before + count).then_some(()))
    })?;
    let now = keepalives(router)?[1];
    ensure!(
        now <= other_before + 1,
        "a session with a hold time of 30 s sent {} KEEPALIVEs meanwhile",
        now - other_before
    );
    Ok(())
}

/// Waits until gobgpd has made several attempts to the first host, and checks that it has made only
/// one attempt to the second host.
fn check_attempts(lab: &Lab) -> Result<()> {
    let count = |(host, _)| Ok::<_, anyhow::Error>(connection_attempts::counted(lab, host)?[0]);
    let first = wait::until("gobgpd has made several attempts", objects::BGP_MAX, || {
        Ok(Some(count(WITHOUT_ROUTER[0])?).filter(|count| *count >= 4))
    })?;
    let second = count(WITHOUT_ROUTER[1])?;
    print_measured(&format!(
        "hosts without a router: {first} attempts with a connectTime of 3 s, {second} with 60 s"
    ));
    ensure!(second == 1, "there were {second} attempts with a connectTime of 60 s");
    Ok(())
}
