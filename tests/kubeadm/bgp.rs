//! `deploy/install-bgp.yaml` beside a router: gobgpd in pods of its own, whose replacement no router notices by its routes.

use crate::stage::{measured, play, step};
use crate::{rights, three_nodes, web};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long sessions, and what is said over them, may take on a busy machine.
const ROUTES_MAX: Duration = Duration::from_secs(60);

#[test]
fn gobgpd_in_pods_announces_from_each_node_and_is_replaced_without_a_route_lost() {
    play(&Options { bgp: true, ..three_nodes("kubebgp") }, |lab| {
        step("deploy/install-bgp.yaml is applied, and every pod of it becomes ready", || lab.deploy_ferrolb())?;
        let (router, servers) =
            step("an FRR that keeps routes over a restart has each node's route to a Service", || {
                let peering = Peering { graceful: true, ..Peering::with_nodes(lab, ROUTERS[0])? };
                let router = Router::with(lab, Kind::Frr, ROUTERS[0], &peering)?;
                let start = wait::now();
                web::pool(lab)?;
                lab.apply_objects(&peer(lab)?)?;
                web::apply(lab)?;
                let servers = web::served(lab, "web")?;
                wait::until("each node's route", ROUTES_MAX, || routed(lab, &router, &servers).map(Some))?;
                measured(&format!(
                    "BGP in pods: from apply to each node's routes: {:.1} s",
                    start.elapsed().as_secs_f64()
                ));
                Ok((router, servers))
            })?;
        step("gobgpd has no capability, and nothing of its machine but the socket's folder", || {
            rights::check_bgp(lab)
        })?;
        step("gobgpd is replaced on one node after the other: no route is lost", || {
            let start = wait::now();
            lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/gobgpd"])?;
            let mut looks = 0;
            std::thread::scope(|scope| {
                let rollout = scope.spawn(|| {
                    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "daemonset/gobgpd", "--timeout=180s"])
                });
                while !rollout.is_finished() {
                    let lost = || format!("lost after {:?} and {looks} looks", start.elapsed());
                    routed(lab, &router, &servers).with_context(lost)?;
                    looks += 1;
                }
                rollout.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
            ensure!(looks > 0, "nobody looked at the routes meanwhile");
            wait::until("all sessions", ROUTES_MAX, || {
                let sessions = router.sessions()?;
                ensure!(sessions.iter().filter(|session| session.established).count() == 3, "{sessions:?}");
                Ok(Some(()))
            })?;
            routed(lab, &router, &servers)?;
            let took = start.elapsed().as_secs_f64();
            measured(&format!("gobgpd replaced on three nodes within {took:.1} s: no route lost in {looks} looks"));
            Ok(())
        })?;
        step("no probe has started it again", || {
            let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
            let counts = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", path])?;
            ensure!(counts.split_whitespace().all(|count| count == "0"), "restarts: {counts}");
            Ok(())
        })
    });
}

/// The router's BGPPeer, over IPv4 for both families, and that all is announced to it.
fn peer(lab: &Lab) -> Result<[Value; 2]> {
    let router = lab.state().facts()?.hosts().into_iter().find(|host| host.name == ROUTERS[0]).context("a router")?;
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

/// The router has the IPv4 route of each node that announces, and no other: of all but the control plane, which the label keeps out.
fn routed(lab: &Lab, router: &Router, servers: &[SocketAddr]) -> Result<()> {
    let server = servers.iter().find(|server| server.is_ipv4()).context("an IPv4 address")?;
    let prefix = format!("{}/32", server.ip());
    let nodes = lab.nodes();
    let expect: BTreeSet<IpAddr> =
        nodes.iter().skip(1).filter_map(|node| Some(IpAddr::V4(Host::named(node)?.v4()))).collect();
    let routes = router.routes()?;
    let found: BTreeSet<IpAddr> =
        routes.iter().filter(|route| route.prefix == prefix).filter_map(|route| route.next_hop).collect();
    ensure!(found == expect, "{prefix} by {found:?}, not {expect:?}");
    Ok(())
}
