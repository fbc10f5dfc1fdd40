//! kube-router's own BGP session with a router beside gobgpd, in both ways of `docs/cni.md` that
//! need two sessions of a node.

mod sessions;

use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::workload::{self, Servers};
use crate::{kube_router, steps};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::host_state::HostState;
use ferrolb_lab::routers::Router;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::json;
use sessions::{BGP_MAX, add_addresses, add_arguments, addresses, first_router, object, peer};
use sessions::{source_of, start_router, wait_sessions};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// State of each node's session with the router of kube-router, and the reasons of its issues.
const SESSION_STATES: &str = r#"jsonpath={range .items[*].status.bgp.sessions[?(@.peer=="same")]}{.state} {.issues[*].reason}{"\n"}{end}"#;
/// Number of pages in a row that prove that each of the gateways forwards.
const PAGES: usize = 20;

#[test]
fn gobgpd_runs_beside_the_bgp_of_kube_router() {
    let options = Options { bgp: true, ..kube_router::options("kuberouterbgp") };
    // Other labs would change interfaces of the host, too.
    run_scenario_alone(&options, |lab| {
        let host = HostState::read(lab, kube_router::PLUGIN)?;
        let servers = step("kube-router and FerroLB are installed", || {
            lab.install_network_plugin()?;
            lab.deploy_ferrolb()?;
            workload::serve(lab)
        })?;
        let sources = step("each node has a second address", || add_addresses(lab))?;
        let nodes = addresses(lab);
        let routers = step("kube-router has sessions with the first router", || {
            let first = start_router(lab, ROUTERS[0], nodes.union(&sources))?;
            let second = start_router(lab, ROUTERS[1], nodes.iter())?;
            let peer = first_router(lab)?;
            add_arguments(
                lab,
                &[
                    &format!("--peer-router-ips={}", peer.v4()),
                    &format!("--peer-router-asns={ROUTER_AS}"),
                    &format!("--cluster-asn={NODE_AS}"),
                ],
            )?;
            wait_sessions(&first, &nodes)?;
            Ok([first, second])
        })?;
        step("a second session from the same address is refused, and reported", || {
            check_refused(lab, &routers[0], &nodes)
        })?;
        step("gobgpd has sessions with another router", || {
            check_other_router(lab, &routers, &servers)
        })?;
        step("gobgpd has sessions from another address of the node", || {
            check_other_address(lab, &routers[0], &sources, &servers)
        })?;
        step("nothing of the host has changed", || host.check())?;
        routers.into_iter().try_for_each(Router::stop)
    });
}

/// Waits until a router's kernel forwards an address through these gateways, and fetches its page
/// from the router.
fn check_forwards(
    lab: &Lab,
    router: &Router,
    host: &str,
    servers: &Servers,
    expect: &BTreeSet<IpAddr>,
) -> Result<()> {
    let server = servers.open[0];
    wait::until(&format!("{router} has the routes"), BGP_MAX, || {
        let now = router.forwards(server.ip())?;
        ensure!(now == *expect, "{router} forwards {server} to {now:?}, not {expect:?}");
        Ok(Some(()))
    })?;
    wait::until(&format!("{host} gets pages through all gateways"), BGP_MAX, || {
        (0..PAGES).try_for_each(|_| lab.http_get(host, server, "/").map(drop)).map(Some)
    })?;
    workload::check_pages(lab, servers)
}

fn delete_peers(lab: &Lab) -> Result<()> {
    lab.kubectl(&["-n", NAMESPACE, "delete", "bgppeers.ferrolb.io", "--all"]).map(drop)
}

/// Checks that the router has one session with each address of a node, that a gobgpd which tries to
/// open a second one reports the cause, and that `check` reports it. A gobgpd that connects while
/// kube-router has no session gets it.
fn check_refused(lab: &Lab, router: &Router, nodes: &BTreeSet<IpAddr>) -> Result<()> {
    lab.apply_objects(&[peer("same", &first_router(lab)?, json!({}))])?;
    let states = || lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker", "-o", SESSION_STATES]);
    let is_refused = |line: &&str| line.split_whitespace().count() > 1;
    wait::until("each gobgpd has a session, or reports the cause", BGP_MAX, || {
        let states = states()?;
        let refused = states.lines().filter(is_refused).count();
        let count = refused + states.matches("Established").count();
        Ok((refused > 0 && count == nodes.len()).then_some(()))
    })?;
    let report = lab.kubectl_ferrolb(&["check"])?;
    ensure!(report.contains("BGPPeer same: no session"), "it is not reported: {report}");
    print_measured(&format!("second sessions from the same addresses: {}", states()?));
    wait_sessions(router, nodes)?;
    delete_peers(lab)
}

fn check_other_router(lab: &Lab, routers: &[Router; 2], servers: &Servers) -> Result<()> {
    let [first, second] = routers;
    let hosts = lab.state().facts()?.hosts();
    let other = hosts.iter().find(|host| host.name == ROUTERS[1]).context("a second router")?;
    lab.apply_objects(&[
        peer("other", other, json!({})),
        object("v1beta1", "BGPAdvertisement", "all", &json!({})),
    ])?;
    let nodes = addresses(lab);
    wait_sessions(second, &nodes)?;
    wait_sessions(first, &nodes)?;
    // The control plane does not announce, because it has the exclude label.
    let workers = nodes.into_iter().skip(1).collect();
    check_forwards(lab, second, ROUTERS[1], servers, &workers)?;
    steps::check_clean(lab)?;
    delete_peers(lab)
}

fn check_other_address(
    lab: &Lab,
    router: &Router,
    sources: &BTreeSet<IpAddr>,
    servers: &Servers,
) -> Result<()> {
    let host = first_router(lab)?;
    let own = |node: &String| {
        let labels = json!({"matchLabels": {"kubernetes.io/hostname": node}});
        let more = json!({"sourceAddress": source_of(node)?, "nodeSelectors": [labels]});
        Ok(peer(&format!("tor-{node}"), &host, more))
    };
    lab.apply_objects(&lab.nodes().iter().map(own).collect::<Result<Vec<_>>>()?)?;
    wait_sessions(router, &addresses(lab).union(sources).copied().collect())?;
    let workers = sources.iter().skip(1).copied().collect();
    check_forwards(lab, router, ROUTERS[0], servers, &workers)?;
    steps::check_clean(lab)?;
    delete_peers(lab)?;
    lab.kubectl(&["-n", NAMESPACE, "delete", "bgpadvertisements.ferrolb.io", "--all"]).map(drop)
}
