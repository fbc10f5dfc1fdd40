//! `deploy/install-bgp.yaml` with a router: gobgpd runs in its own pods, and the replacement of
//! these pods changes no route at the router.

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
fn a_rollout_of_gobgpd_pods_loses_no_route() {
    run_scenario(&Options { bgp: true, ..three_nodes("kubebgp") }, |lab| {
        step("deploy/install-bgp.yaml is applied, and all its pods become ready", || {
            lab.deploy_ferrolb()
        })?;
        let (router, servers) =
            step("FRR with graceful restart has each node's route to a Service", || {
                let peering = Peering { graceful: true, ..Peering::with_nodes(lab, ROUTERS[0])? };
                let router =
                    Router::start_with_peering(lab, RouterKind::Frr, ROUTERS[0], &peering)?;
                let start = wait::now();
                web::apply_pool(lab)?;
                lab.apply_objects(&peer_and_advertisement(lab)?)?;
                web::apply_service(lab)?;
                let servers = web::wait_pages(lab, "web")?;
                wait::until("the router has each node's route", ROUTES_MAX, || {
                    check_routes(lab, &router, &servers).map(Some)
                })?;
                print_measured(&format!(
                    "gobgpd in pods: from apply to the routes of all nodes: {:.1} s",
                    start.elapsed().as_secs_f64()
                ));
                Ok((router, servers))
            })?;
        step("gobgpd has no capability, and only its socket's folder is mounted", || {
            container_privileges::check_bgp(lab)
        })?;
        step("gobgpd is replaced on one node after the other, and no route is lost", || {
            replace_gobgpd(lab, &router, &servers)
        })?;
        step("no probe has restarted a container", || {
            let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
            let counts = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
            ensure!(
                counts.split_whitespace().all(|count| count == "0"),
                "the containers were restarted {counts} times"
            );
            Ok(())
        })
    });
}

/// Restarts the pods of gobgpd, and checks the routes during the rollout, and the sessions and
/// routes after it.
fn replace_gobgpd(lab: &Lab, router: &Router, servers: &[SocketAddr]) -> Result<()> {
    let start = wait::now();
    lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/gobgpd"])?;
    let mut checks = 0;
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
            let context =
                || format!("a route was lost after {:?} and {checks} checks", start.elapsed());
            check_routes(lab, router, servers).with_context(context)?;
            checks += 1;
        }
        rollout.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(checks > 0, "the rollout ended before the first check of the routes");
    wait::until("all sessions are established", ROUTES_MAX, || {
        let sessions = router.sessions()?;
        ensure!(
            sessions.iter().filter(|session| session.established).count() == 3,
            "the router has the sessions {sessions:?}"
        );
        Ok(Some(()))
    })?;
    check_routes(lab, router, servers)?;
    let took = start.elapsed().as_secs_f64();
    print_measured(&format!(
        "gobgpd replaced on three nodes within {took:.1} s: no route lost in {checks} checks"
    ));
    Ok(())
}

/// Returns the router's BGPPeer, which carries both families over IPv4, and an advertisement that
/// selects everything.
fn peer_and_advertisement(lab: &Lab) -> Result<[Value; 2]> {
    let router = lab
        .state()
        .facts()?
        .hosts()
        .into_iter()
        .find(|host| host.name == ROUTERS[0])
        .context("the lab has no router")?;
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
fn check_routes(lab: &Lab, router: &Router, servers: &[SocketAddr]) -> Result<()> {
    let server = servers
        .iter()
        .find(|server| server.is_ipv4())
        .context("the Service has no IPv4 address")?;
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
    ensure!(found == expect, "the router has {prefix} through {found:?}, not {expect:?}");
    Ok(())
}
