//! Graceful restart: routers keep the routes of a node whose gobgpd restarts, and drop the routes
//! of a node whose gobgpd does not return; README.md has the drawing.

mod outage;
mod upgrade;

use crate::expect;
use crate::in_containers;
use crate::objects::{self, ADDRESSES, BGP_MAX, object, peer_name, prefix};
use crate::reported::SessionSnapshot;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_lab::{Lab, Signal, wait};
use outage::{route_client, run_without_loss};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Names and addresses of two alternating Services: at any time, only one of the two exists.
const ALTERNATING: [(&str, Ipv4Addr); 2] =
    [("first", Ipv4Addr::new(203, 0, 113, 21)), ("second", Ipv4Addr::new(203, 0, 113, 22))];
/// Time without gobgpd: longer than the hold time of 3 s, after which routers drop routes without
/// graceful restart.
const WITHOUT_GOBGPD: Duration = Duration::from_secs(5);
/// Maximum time until a router has the new routes while another router is down. Without FerroLB,
/// GoBGP would wait 360 s for the router that is down.
const NEW_ROUTES_MAX: Duration = BGP_MAX;

#[test]
fn routers_keep_routes_only_while_gobgpd_restarts() {
    run_scenario(&in_containers("graceful"), |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let mut routers =
            step("FRR, BIRD and GoBGP start with graceful restart", || start_routers(lab))?;
        step(
            "all routers have the routes of the Service and the first alternating Service",
            || {
                lab.pod("web", &node.name, &[("app", "web")])?;
                lab.apply_objects(&scenario_objects(lab)?)?;
                wait_all_paths(&routers, &node, ALTERNATING[0])?;
                route_client(lab)
            },
        )?;
        step(
            "gobgpd is killed and restarted: no connection is lost, and the routes are updated",
            || {
                run_without_loss(lab, "gobgpd killed", || {
                    let took = restart_gobgpd(lab, &routers, &node, ALTERNATING)?;
                    print_measured(&format!(
                        "gobgpd killed: three routers have the new routes {took:?} after its restart"
                    ));
                    Ok(())
                })
            },
        )?;
        let [first, second] = ALTERNATING;
        let last = routers.pop().context("no router runs")?;
        step(
            "gobgpd restarts while a router is down: the other routers soon have the new routes",
            || {
                last.stop()?;
                run_without_loss(lab, "gobgpd killed while a router is down", || {
                    let took = restart_gobgpd(lab, &routers, &node, [second, first])?;
                    print_measured(&format!(
                        "a router is down: the others have the new routes {took:?} after the restart of gobgpd"
                    ));
                    ensure!(
                        took < NEW_ROUTES_MAX,
                        "the routers had the new routes only after {took:?}"
                    );
                    Ok(())
                })?;
                routers.push(start_router(lab, RouterKind::Gobgp, ROUTERS[2])?);
                wait_all_paths(&routers, &node, first)
            },
        )?;
        step("each router crashes and gets all routes again, and the other sessions stay", || {
            (0..routers.len())
                .try_for_each(|index| crash_router(lab, &routers, index, &node, first))
        })?;
        step("gobgpd is replaced with the oldest supported version", || {
            upgrade::downgrade(lab, &routers, &node)
        })?;
        step("gobgpd is upgraded, and no connection is lost", || {
            upgrade::upgrade(lab, &routers, &node)
        })?;
        step("gobgpd ends on a cordoned node, and routers drop its routes at once", || {
            upgrade::end_on_cordoned_node(lab, &routers, &node)
        })?;
        step("gobgpd ends without a speaker, and routers drop its routes at once", || {
            upgrade::end_without_speaker(lab, &routers, &node)
        })?;
        step("all routers stop", || {
            std::mem::take(&mut routers).into_iter().try_for_each(Router::stop)
        })
    });
}

fn start_routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    RouterKind::ALL
        .into_iter()
        .zip(ROUTERS)
        .map(|(kind, host)| start_router(lab, kind, host))
        .collect()
}

/// Starts a router with graceful restart.
fn start_router<'a>(lab: &'a Lab, kind: RouterKind, host: &str) -> Result<Router<'a>> {
    Router::start_with_peering(
        lab,
        kind,
        host,
        &Peering { graceful: true, ..Peering::with_nodes(lab, host)? },
    )
}

/// Returns BGPPeers with graceful restart, the Service `web`, and the first alternating Service.
fn scenario_objects(lab: &Lab) -> Result<Vec<Value>> {
    let mut created = objects::service().to_vec();
    let addresses = ALTERNATING.map(|(_, address)| prefix(address.into()));
    created.push(object(
        "v1beta1",
        "IPAddressPool",
        "alternating",
        &json!({"addresses": addresses, "autoAssign": false}),
    ));
    created.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    created.push(alternating_service(ALTERNATING[0]));
    for router in ROUTERS {
        let mut peers = objects::peers(lab, router)?;
        peers.iter_mut().for_each(|peer| peer["spec"]["enableGracefulRestart"] = true.into());
        created.extend(peers);
    }
    Ok(created)
}

/// Returns one of the [`ALTERNATING`] Services.
fn alternating_service((name, address): (&str, Ipv4Addr)) -> Value {
    let metadata =
        json!({"name": name, "annotations": {"ferrolb.io/loadBalancerIPs": address.to_string()}});
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
}

/// Kills gobgpd, replaces one alternating Service with the other, checks that routers keep all
/// routes, and restarts gobgpd. Returns the time from this restart until the routers have the new
/// routes.
fn restart_gobgpd(
    lab: &Lab,
    routers: &[Router],
    node: &Host,
    [deleted, created_service]: [(&str, Ipv4Addr); 2],
) -> Result<Duration> {
    let name = bgp::process_name(&node.name);
    lab.stop(&name, Signal::KILL)?;
    lab.kubectl(&["delete", "service", deleted.0])?;
    lab.apply_objects(&[alternating_service(created_service)])?;
    wait::during(WITHOUT_GOBGPD, || {
        routers.iter().try_for_each(|router| {
            let (routes, before) = (router.routes()?, paths(router, node, deleted));
            ensure!(routes == before, "{router} has {routes:#?} and did not keep {before:#?}");
            Ok(())
        })
    })?;
    let start = wait::now();
    lab.restart(&name)?;
    wait_all_paths(routers, node, created_service)?;
    Ok(start.elapsed())
}

/// Crashes a router, and checks that it gets all routes again and that the other sessions stay.
fn crash_router(
    lab: &Lab,
    routers: &[Router],
    index: usize,
    node: &Host,
    alternating: (&str, Ipv4Addr),
) -> Result<()> {
    let (router, host) = (&routers[index], ROUTERS[index]);
    let others = ROUTERS.into_iter().filter(|other| *other != host);
    let others: Vec<String> =
        others.flat_map(|host| ADDRESSES.map(|address| peer_name(host, address))).collect();
    let snapshot = SessionSnapshot::take(lab, &node.name, &others)?;
    let start = wait::now();
    router.crash()?;
    // `wait_exact_paths` retries until the router replies again.
    expect::wait_exact_paths(router, paths(router, node, alternating))?;
    print_measured(&format!(
        "{router} crashed: it has all routes again {:?} after the crash",
        start.elapsed()
    ));
    snapshot.check_unchanged(lab)
}

/// Waits until every router has exactly the expected routes, and its kernel uses them.
fn wait_all_paths(routers: &[Router], node: &Host, alternating: (&str, Ipv4Addr)) -> Result<()> {
    routers.iter().try_for_each(|router| {
        expect::wait_exact_paths(router, paths(router, node, alternating))?;
        expect::wait_forwards_all(router, std::slice::from_ref(node))
    })
}

/// Returns the expected routes of a router: those of the Service `web` and of an alternating
/// Service.
fn paths(router: &Router, node: &Host, (_, alternating): (&str, Ipv4Addr)) -> Vec<BgpRoute> {
    let [v4, v6] = node.addresses();
    let hops = ADDRESSES.into_iter().chain([IpAddr::V4(alternating)]).zip([v4, v6, v4]);
    let mut paths: Vec<BgpRoute> = hops
        .map(|(address, hop)| BgpRoute {
            prefix: prefix(address),
            next_hop: Some(hop),
            as_path: vec![NODE_AS],
            local_pref: router.kind().default_local_pref(),
            ..BgpRoute::default()
        })
        .collect();
    paths.sort();
    paths
}
