//! Traffic of a client behind a router: the client reaches the pods of all announcing nodes and no
//! other pods; README.md has the drawing.

use crate::expect;
use crate::in_containers;
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

/// The types of routers that write routes to their kernels, and their hosts.
const FORWARDING_ROUTERS: [(RouterKind, &str); 2] =
    [(RouterKind::Frr, "tor1"), (RouterKind::Bird, "tor2")];
/// Number of the client's connections in a check. If a router distributes them over three nodes, a
/// node receives none of them in one of 60,000 checks.
const PAGES: usize = 30;

#[test]
fn a_client_behind_a_router_reaches_all_announcing_nodes() {
    run_scenario(&Options { nodes: 3, ..in_containers("traffic") }, |lab| {
        let nodes =
            lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        lab.start_ferrolb()?;
        step("a Service has a pod on each node", || serve(lab, &nodes))?;
        let routers = step("FRR and BIRD start", || start_routers(lab))?;
        let wait_local =
            |nodes: &[Host]| wait_reached(lab, &routers, nodes, (nodes, SourceAddress::Client));
        step(
            "through each router, the client reaches all nodes, and pods see the client's address",
            || wait_local(&nodes),
        )?;
        let (first, others) = nodes.split_first().context("the lab has no node")?;
        step("a node whose pod is unready is not reached", || {
            lab.set_ready(&pod(first), false)?;
            wait_local(others)
        })?;
        let (second, rest) = others.split_first().context("the lab has no second node")?;
        step("a node that loses power is not reached", || {
            lab.power_off(&second.name)?;
            wait_local(rest)
        })?;
        step("the node is powered on again and is reached", || {
            let start = wait::now();
            lab.power_on(&second.name)?;
            wait_local(others)?;
            print_measured(&format!(
                "node powered on: reached through both routers within {:?}",
                wait::now() - start
            ));
            Ok(())
        })?;
        step("with policy Cluster, every node is reached, and pods see the node's address", || {
            lab.kubectl(&[
                "patch",
                "service",
                "web",
                "--patch",
                r#"{"spec": {"externalTrafficPolicy": "Cluster"}}"#,
            ])?;
            wait_reached(lab, &routers, &nodes, (others, SourceAddress::Node))?;
            nodes.iter().try_for_each(|node| wait_page_through(lab, node, others))
        })
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

/// Creates a pod on each node, and a Service with policy Local, with which each node forwards only
/// to its own pod. Each node advertises the addresses to both routers.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| lab.pod(&pod(node), &node.name, &[("app", "web")]))?;
    let mut created = objects::service().to_vec();
    created.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for (_, router) in FORWARDING_ROUTERS {
        created.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&created)
}

/// Returns the name of the pod on a node.
fn pod(node: &Host) -> String {
    format!("web-{}", node.name)
}

fn start_routers(lab: &Lab) -> Result<Vec<(Router<'_>, Host)>> {
    let start = |(kind, name): (RouterKind, &str)| {
        let router = Router::start_with_peering(lab, kind, name, &Peering::with_nodes(lab, name)?)?;
        Ok((router, objects::host(lab, name)?))
    };
    FORWARDING_ROUTERS.into_iter().map(start).collect()
}

/// Waits until each router forwards to exactly `nodes`, and until the client reaches exactly the
/// pods of the nodes `serving` through that router, which see the source address `seen`.
fn wait_reached(
    lab: &Lab,
    routers: &[(Router, Host)],
    nodes: &[Host],
    (serving, seen): (&[Host], SourceAddress),
) -> Result<()> {
    let outside = objects::host(lab, OUTSIDE)?.addresses();
    for (router, host) in routers {
        let gateways =
            outside_host(host).context("the router has no interface to the outside")?.addresses();
        for (address, gateway) in ADDRESSES.into_iter().zip(gateways) {
            expect::wait_forwards(router, address, nodes)?;
            lab.exec(OUTSIDE, &["ip", "route", "replace", "default", "via", &gateway.to_string()])?;
            wait::until("the client gets the expected pages", BGP_MAX, || {
                let replies = (0..PAGES)
                    .map(|_| page(lab, OUTSIDE, address))
                    .collect::<Result<BTreeSet<_>>>()?;
                let pods: BTreeSet<_> = replies.iter().map(|(pod, _)| pod.clone()).collect();
                ensure!(
                    pods == serving.iter().map(pod).collect(),
                    "through {router}, {address} is served by {pods:?}"
                );
                let is_expected = |(_, client): &(String, IpAddr)| {
                    outside.contains(client) == (seen == SourceAddress::Client)
                };
                ensure!(
                    replies.iter().all(is_expected),
                    "through {router}, the pods of {address} must see the {seen:?}: {replies:?}"
                );
                Ok(Some(()))
            })?;
        }
    }
    Ok(())
}

/// Routes the packets of the client on the nodes' segment through `node`, and waits until the
/// client gets a page from a pod on one of the nodes `serving`.
fn wait_page_through(lab: &Lab, node: &Host, serving: &[Host]) -> Result<()> {
    ADDRESSES.into_iter().zip(node.addresses()).try_for_each(|(address, gateway)| {
        lab.exec(
            CLIENT,
            &["ip", "route", "replace", &objects::prefix(address), "via", &gateway.to_string()],
        )?;
        wait::until(&format!("the client gets a page through {}", node.name), BGP_MAX, || {
            let (pod, _) = page(lab, CLIENT, address)?;
            ensure!(
                serving.iter().any(|node| self::pod(node) == pod),
                "the pod {pod} replied, which is not on a serving node"
            );
            Ok(Some(()))
        })
    })
}

/// Requests the page at `address` from the host `from`. Returns the pod that replied, and the
/// source address that the pod saw.
fn page(lab: &Lab, from: &str, address: IpAddr) -> Result<(String, IpAddr)> {
    let page = lab.http_get(from, SocketAddr::new(address, 80), "/")?;
    let mut words = page.body.split_whitespace();
    let (pod, client) = (
        words.next().context("the page names no pod")?,
        words.next().context("the page names no client")?,
    );
    Ok((pod.to_owned(), client.parse()?))
}
