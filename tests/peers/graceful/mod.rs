//! Graceful restart: routers keep the routes of a node whose gobgpd restarts, and drop those of a
//! node whose gobgpd stays away; README.md has the drawing.

mod outage;
mod upgrade;

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name, prefix};
use crate::reported::SessionSnapshot;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario_alone, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, Signal, wait};
use outage::{route_client, without_loss};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Services that are replaced by each other.
const TURNS: [(&str, Ipv4Addr); 2] =
    [("first", Ipv4Addr::new(203, 0, 113, 21)), ("second", Ipv4Addr::new(203, 0, 113, 22))];
/// Time without gobgpd: longer than the hold time of 3 s, after which routes without graceful
/// restart are gone.
const AWAY: Duration = Duration::from_secs(5);
/// Maximum time until a router has the new routes while another router is down. GoBGP alone would
/// wait 360 s for that one.
const FILLED_MAX: Duration = BGP_MAX;

#[test]
fn routes_outlive_a_gobgpd_that_comes_back_and_no_other() {
    run_scenario_alone(&Options { nodes: 1, bgp: true, ..Options::named("graceful") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let mut routers = step("FRR, BIRD and GoBGP run, with graceful restart", || start(lab))?;
        step("all see the Service, and the first of those that take turns", || {
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&objects_of_test(lab)?)?;
            all_see(&routers, &node, TURNS[0])?;
            route_client(lab)
        })?;
        step(
            "gobgpd dies and comes back: nothing is lost, what went meanwhile is gone, and what came is there",
            || {
                without_loss(lab, "gobgpd dies", || {
                    let back = restart_gobgpd(lab, &routers, &node, TURNS)?;
                    print_measured(&format!(
                        "gobgpd dies: three routers have the new routes {back:?} after its start"
                    ));
                    Ok(())
                })
            },
        )?;
        let [first, second] = TURNS;
        let last = routers.pop().context("a router")?;
        step("one router is away when it comes back: the others have the new routes soon", || {
            last.stop()?;
            without_loss(lab, "gobgpd dies while a router is away", || {
                let back = restart_gobgpd(lab, &routers, &node, [second, first])?;
                print_measured(&format!(
                    "a router is away: the others have the new routes {back:?} after gobgpd's start"
                ));
                ensure!(back < FILLED_MAX, "the new routes took {back:?}");
                Ok(())
            })?;
            routers.push(graceful(lab, RouterKind::Gobgp, ROUTERS[2])?);
            all_see(&routers, &node, first)
        })?;
        step("each router dies, and has all again, and the others' sessions stand", || {
            (0..routers.len())
                .try_for_each(|place| router_fails(lab, &routers, place, &node, first))
        })?;
        step("gobgpd is of the oldest version", || upgrade::downgrade(lab, &routers, &node))?;
        step("it is upgraded, and nothing is lost", || upgrade::upgrade(lab, &routers, &node))?;
        step("it ends on a node that is cordoned, and nobody waits for it", || {
            upgrade::on_cordoned_node(lab, &routers, &node)
        })?;
        step("it ends without a speaker, and nobody waits for it", || {
            upgrade::without_speaker(lab, &routers, &node)
        })?;
        step("each router ends when it is told", || {
            std::mem::take(&mut routers).into_iter().try_for_each(Router::stop)
        })
    });
}

fn start(lab: &Lab) -> Result<Vec<Router<'_>>> {
    RouterKind::ALL.into_iter().zip(ROUTERS).map(|(kind, host)| graceful(lab, kind, host)).collect()
}

fn graceful<'a>(lab: &'a Lab, kind: RouterKind, host: &str) -> Result<Router<'a>> {
    Router::with(lab, kind, host, &Peering { graceful: true, ..Peering::with_nodes(lab, host)? })
}

/// Returns sessions with graceful restart, the Service `web`, and the first of the alternating
/// Services.
fn objects_of_test(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = objects::service().to_vec();
    let addresses = TURNS.map(|(_, address)| prefix(address.into()));
    all.push(object(
        "v1beta1",
        "IPAddressPool",
        "turns",
        &json!({"addresses": addresses, "autoAssign": false}),
    ));
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    all.push(turn(TURNS[0]));
    for router in ROUTERS {
        let mut peers = objects::peers(lab, router)?;
        peers.iter_mut().for_each(|peer| peer["spec"]["enableGracefulRestart"] = true.into());
        all.extend(peers);
    }
    Ok(all)
}

fn turn((name, address): (&str, Ipv4Addr)) -> Value {
    let metadata =
        json!({"name": name, "annotations": {"ferrolb.io/loadBalancerIPs": address.to_string()}});
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Kills gobgpd, changes the Services, and starts gobgpd again. Checks that routers keep all routes
/// until then. Returns the time until they have the new routes.
fn restart_gobgpd(
    lab: &Lab,
    routers: &[Router],
    node: &Host,
    [goes, comes]: [(&str, Ipv4Addr); 2],
) -> Result<Duration> {
    let name = bgp::process_name(&node.name);
    lab.stop(&name, Signal::KILL)?;
    lab.kubectl(&["delete", "service", goes.0])?;
    lab.apply_objects(&[turn(comes)])?;
    wait::during(AWAY, || {
        routers.iter().try_for_each(|router| {
            let (routes, before) = (router.routes()?, paths(router, node, goes));
            ensure!(routes == before, "{router} should keep {before:#?} and has {routes:#?}");
            Ok(())
        })
    })?;
    let start = wait::now();
    lab.restart(&name)?;
    all_see(routers, node, comes)?;
    Ok(start.elapsed())
}

/// Kills a router and starts it again.
fn router_fails(
    lab: &Lab,
    routers: &[Router],
    place: usize,
    node: &Host,
    turn: (&str, Ipv4Addr),
) -> Result<()> {
    let (router, host) = (&routers[place], ROUTERS[place]);
    let others = ROUTERS.into_iter().filter(|other| *other != host);
    let others: Vec<String> =
        others.flat_map(|host| ADDRESSES.map(|address| peer_name(host, address))).collect();
    let witness = SessionSnapshot::take(lab, &node.name, &others)?;
    let start = wait::now();
    router.crash()?;
    // `has_paths` retries until the router replies again.
    expect::has_paths(router, paths(router, node, turn))?;
    print_measured(&format!(
        "{router} dies: it has all again {:?} after its start",
        start.elapsed()
    ));
    witness.check_unchanged(lab)
}

/// Waits until every router has exactly the node's routes, and forwards accordingly.
fn all_see(routers: &[Router], node: &Host, turn: (&str, Ipv4Addr)) -> Result<()> {
    routers.iter().try_for_each(|router| {
        expect::has_paths(router, paths(router, node, turn))?;
        expect::forwards_all(router, std::slice::from_ref(node))
    })
}

/// Returns the expected routes of a router.
fn paths(router: &Router, node: &Host, (_, turn): (&str, Ipv4Addr)) -> Vec<BgpRoute> {
    let [v4, v6] = node.addresses();
    let hops = ADDRESSES.into_iter().chain([IpAddr::V4(turn)]).zip([v4, v6, v4]);
    let mut paths: Vec<BgpRoute> = hops
        .map(|(address, hop)| BgpRoute {
            prefix: prefix(address),
            next_hop: Some(hop),
            as_path: vec![NODE_AS],
            local_pref: router.kind().local_pref_outside(),
            ..BgpRoute::default()
        })
        .collect();
    paths.sort();
    paths
}
