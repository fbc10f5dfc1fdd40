//! Traffic of a client behind a router: it reaches the pods of all announcing nodes, and no other;
//! README.md has the drawing.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::routers::{OUTSIDE, outside_host};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The routers that write routes to their kernels, and their hosts.
const ROUTED: [(RouterKind, &str); 2] = [(RouterKind::Frr, "tor1"), (RouterKind::Bird, "tor2")];
/// Number of connections that reach each of three nodes: they miss one in 60,000 runs.
const PAGES: usize = 30;

#[test]
fn a_client_behind_a_router_reaches_the_pods_of_all_nodes_that_announce() {
    run_scenario(&Options { bgp: true, ..Options::named("traffic") }, |lab| {
        let nodes =
            lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        lab.start_ferrolb()?;
        step("a Service has a pod on each node", || serve(lab, &nodes))?;
        let routers = step("FRR and BIRD run", || start(lab))?;
        let local =
            |nodes: &[Host]| all_reached(lab, &routers, nodes, (nodes, SourceAddress::Client));
        step(
            "by either router, all nodes are reached, and each pod sees who the client is",
            || local(&nodes),
        )?;
        let (first, others) = nodes.split_first().context("a node")?;
        step("the pod of one is not ready", || {
            lab.set_ready(&pod(first), false)?;
            local(others)
        })?;
        let (second, rest) = others.split_first().context("another node")?;
        step("one loses its power", || {
            lab.power_off(&second.name)?;
            local(rest)
        })?;
        step("it is started again, and serves again", || {
            let on = wait::now();
            lab.power_on(&second.name)?;
            local(others)?;
            print_measured(&format!(
                "a node that is started again: both routers' clients reach it within {:?}",
                wait::now() - on
            ));
            Ok(())
        })?;
        step(
            "with policy Cluster every node serves, also one whose pod is not ready, and pods see nodes",
            || {
                lab.kubectl(&[
                    "patch",
                    "service",
                    "web",
                    "--patch",
                    r#"{"spec": {"externalTrafficPolicy": "Cluster"}}"#,
                ])?;
                all_reached(lab, &routers, &nodes, (others, SourceAddress::Node))?;
                nodes.iter().try_for_each(|node| serves(lab, node, others))
            },
        )
    });
}

/// Source address that a pod sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceAddress {
    /// The client's own address.
    Client,
    /// The address of the node that forwarded the connection.
    Node,
}

/// Starts a pod on each node, with a Service of policy Local: each node serves only with its own
/// pod. Each node announces the address to both routers.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| lab.pod(&pod(node), &node.name, &[("app", "web")]))?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for (_, router) in ROUTED {
        all.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&all)
}

/// Returns the name of a node's pod.
fn pod(node: &Host) -> String {
    format!("web-{}", node.name)
}

fn start(lab: &Lab) -> Result<Vec<(Router<'_>, Host)>> {
    let start = |(kind, name): (RouterKind, &str)| {
        let router = Router::with(lab, kind, name, &Peering::with_nodes(lab, name)?)?;
        Ok((router, objects::host(lab, name)?))
    };
    ROUTED.into_iter().map(start).collect()
}

/// Waits until each router forwards to exactly these nodes. Then waits until the client reaches
/// exactly the pods of the serving nodes through it, and they see the expected source address.
fn all_reached(
    lab: &Lab,
    routers: &[(Router, Host)],
    nodes: &[Host],
    (serving, seen): (&[Host], SourceAddress),
) -> Result<()> {
    let outside = objects::host(lab, OUTSIDE)?.addresses();
    for (router, host) in routers {
        let way = outside_host(host).context("a router's foot")?.addresses();
        for (address, way) in ADDRESSES.into_iter().zip(way) {
            expect::forwards(router, address, nodes)?;
            lab.exec(OUTSIDE, &["ip", "route", "replace", "default", "via", &way.to_string()])?;
            wait::until("the pages", BGP_MAX, || {
                let served = (0..PAGES)
                    .map(|_| page(lab, OUTSIDE, address))
                    .collect::<Result<BTreeSet<_>>>()?;
                let pods: BTreeSet<_> = served.iter().map(|(pod, _)| pod.clone()).collect();
                ensure!(
                    pods == serving.iter().map(pod).collect(),
                    "through {router}, {address} is served by {pods:?}"
                );
                let is_client = |(_, client): &(String, IpAddr)| {
                    outside.contains(client) == (seen == SourceAddress::Client)
                };
                ensure!(
                    served.iter().all(is_client),
                    "through {router}, the pods of {address} must see the {seen:?}: {served:?}"
                );
                Ok(Some(()))
            })?;
        }
    }
    Ok(())
}

/// Waits until a node serves a LAN client's request from a pod of the serving nodes.
fn serves(lab: &Lab, node: &Host, serving: &[Host]) -> Result<()> {
    ADDRESSES.into_iter().zip(node.addresses()).try_for_each(|(address, way)| {
        lab.exec(
            CLIENT,
            &["ip", "route", "replace", &objects::prefix(address), "via", &way.to_string()],
        )?;
        wait::until(&format!("a page by {}", node.name), BGP_MAX, || {
            let (pod, _) = page(lab, CLIENT, address)?;
            ensure!(serving.iter().any(|node| self::pod(node) == pod), "{pod} serves");
            Ok(Some(()))
        })
    })
}

/// Returns the pod that serves a page, and the source address that it saw.
fn page(lab: &Lab, from: &str, address: IpAddr) -> Result<(String, IpAddr)> {
    let page = lab.http_get(from, SocketAddr::new(address, 80), "/")?;
    let mut words = page.body.split_whitespace();
    let (pod, client) = (words.next().context("a pod")?, words.next().context("a client")?);
    Ok((pod.to_owned(), client.parse()?))
}
