//! `deploy/install-bgp.yaml` with a router: gobgpd runs in pods of its own, and their replacement
//! changes no route at the router.

use crate::scenario::{print_measured, run_scenario, step};
use crate::{container_privileges, three_nodes, web};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Maximum time until sessions and their routes exist, on a busy machine.
const ROUTES_MAX: Duration = Duration::from_secs(60);

#[test]
fn gobgpd_in_pods_announces_from_each_node_and_is_replaced_without_a_route_lost() {
    run_scenario(&Options { bgp: true, ..three_nodes("kubebgp") }, |lab| {
        step("deploy/install-bgp.yaml is applied, and every pod of it becomes ready", || {
            lab.deploy_ferrolb()
        })?;
        let (router, servers) = step(
            "an FRR that keeps routes over a restart has each node's route to a Service",
            || {
                let peering = Peering { graceful: true, ..Peering::with_nodes(lab, ROUTERS[0])? };
                let router = Router::with(lab, RouterKind::Frr, ROUTERS[0], &peering)?;
                let start = wait::now();
                web::pool(lab)?;
                lab.apply_objects(&peer(lab)?)?;
                web::apply(lab)?;
                let servers = web::served(lab, "web")?;
                wait::until("each node's route", ROUTES_MAX, || {
                    routed(lab, &router, &servers).map(Some)
                })?;
                print_measured(&format!(
                    "BGP in pods: from apply to each node's routes: {:.1} s",
                    start.elapsed().as_secs_f64()
                ));
                Ok((router, servers))
            },
        )?;
        step(
            "gobgpd has no capability, and nothing of its machine but the socket's folder",
            || container_privileges::check_bgp(lab),
        )?;
        step("gobgpd is replaced on one node after the other: no route is lost", || {
            replace_gobgpd(lab, &router, &servers)
        })?;
        step("no probe has started it again", || {
            let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
            let counts = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
            ensure!(counts.split_whitespace().all(|count| count == "0"), "restarts: {counts}");
            Ok(())
        })
    });
}

/// Restarts the pods of gobgpd. Checks the routes during the rollout, and the sessions and the
/// routes after it.
fn replace_gobgpd(lab: &Lab, router: &Router, servers: &[SocketAddr]) -> Result<()> {
    let start = wait::now();
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/gobgpd"])?;
    let mut looks = 0;
    std::thread::scope(|scope| {
        let rollout = scope.spawn(|| {
            lab.kubectl(&[
                "-n",
                NAMESPACE,
                "rollout",
                "status",
                "daemonset/gobgpd",
                "--timeout=180s",
            ])
        });
        while !rollout.is_finished() {
            let lost = || format!("lost after {:?} and {looks} checks", start.elapsed());
            routed(lab, router, servers).with_context(lost)?;
            looks += 1;
        }
        rollout.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(looks > 0, "the routes were not checked meanwhile");
    wait::until("all sessions", ROUTES_MAX, || {
        let sessions = router.sessions()?;
        ensure!(sessions.iter().filter(|session| session.established).count() == 3, "{sessions:?}");
        Ok(Some(()))
    })?;
    routed(lab, router, servers)?;
    let took = start.elapsed().as_secs_f64();
    print_measured(&format!(
        "gobgpd replaced on three nodes within {took:.1} s: no route lost in {looks} looks"
    ));
    Ok(())
}

/// Returns the router's BGPPeer, over IPv4 for both families, and an advertisement of everything.
fn peer(lab: &Lab) -> Result<[Value; 2]> {
    let router = lab
        .state()
        .facts()?
        .hosts()
        .into_iter()
        .find(|host| host.name == ROUTERS[0])
        .context("a router")?;
    let metadata = json!({"name": "router", "namespace": NAMESPACE});
    let spec = json!({
        "myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": router.v4(), "holdTime": "3s", "connectTime": "1s",
        "enableGracefulRestart": true,
    });
    Ok([
        json!({"apiVersion": "ferrolb.io/v1beta2", "kind": "BGPPeer", "metadata": metadata, "spec": spec}),
        json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "BGPAdvertisement", "metadata": metadata, "spec": {}}),
    ])
}

/// Checks that the router has the IPv4 route of each announcing node and no other. The control
/// plane does not announce, because it has the exclude label.
fn routed(lab: &Lab, router: &Router, servers: &[SocketAddr]) -> Result<()> {
    let server = servers.iter().find(|server| server.is_ipv4()).context("an IPv4 address")?;
    let prefix = format!("{}/32", server.ip());
    let nodes = lab.nodes();
    let expect: BTreeSet<IpAddr> =
        nodes.iter().skip(1).filter_map(|node| Some(IpAddr::V4(Host::named(node)?.v4()))).collect();
    let routes = router.routes()?;
    let found: BTreeSet<IpAddr> = routes
        .iter()
        .filter(|route| route.prefix == prefix)
        .filter_map(|route| route.next_hop)
        .collect();
    ensure!(found == expect, "{prefix} by {found:?}, not {expect:?}");
    Ok(())
}
