//! A client behind a router reaches the pods of all nodes that announce an address, and of no other; the drawing is in README.md.

use crate::expect;
use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::routers::{OUTSIDE, foot};
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The routers that tell their kernels, and where they run.
const ROUTED: [(Kind, &str); 2] = [(Kind::Frr, "tor1"), (Kind::Bird, "tor2")];
/// So many connections reach every one of three nodes: by chance they miss one once in 60,000 times.
const PAGES: usize = 30;

#[test]
fn a_client_behind_a_router_reaches_the_pods_of_all_nodes_that_announce() {
    play(&Options { bgp: true, ..Options::named("traffic") }, |lab| {
        let nodes = lab.nodes().iter().map(|node| objects::host(lab, node)).collect::<Result<Vec<_>>>()?;
        lab.start_ferrolb()?;
        step("a Service has a pod on each node", || serve(lab, &nodes))?;
        let routers = step("FRR and BIRD run", || start(lab))?;
        let local = |nodes: &[Host]| all_reached(lab, &routers, nodes, (nodes, Seen::Client));
        step("by either router, all nodes are reached, and each pod sees who the client is", || local(&nodes))?;
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
            measured(&format!(
                "a node that is started again: both routers' clients reach it within {:?}",
                wait::now() - on
            ));
            Ok(())
        })?;
        step("with policy Cluster every node serves, also one whose pod is not ready, and pods see nodes", || {
            lab.kubectl(&["patch", "service", "web", "--patch", r#"{"spec": {"externalTrafficPolicy": "Cluster"}}"#])?;
            all_reached(lab, &routers, &nodes, (others, Seen::Node))?;
            nodes.iter().try_for_each(|node| serves(lab, node, others))
        })
    });
}

/// Whom a pod sees as its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Who it is.
    Client,
    /// A node, which passes it on under its own address.
    Node,
}

/// A pod on each node, and a Service that only the pods of the node serve that was asked; each node announces it to either router.
fn serve(lab: &Lab, nodes: &[Host]) -> Result<()> {
    nodes.iter().try_for_each(|node| lab.pod(&pod(node), &node.name, &[("app", "web")]))?;
    let mut all = objects::service().to_vec();
    all.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    for (_, router) in ROUTED {
        all.extend(objects::peers(lab, router)?);
    }
    lab.apply_objects(&all)
}

/// The pod on a node.
fn pod(node: &Host) -> String {
    format!("web-{}", node.name)
}

fn start(lab: &Lab) -> Result<Vec<(Router<'_>, Host)>> {
    let start = |(kind, name): (Kind, &str)| {
        let router = Router::with(lab, kind, name, &Peering::with_nodes(lab, name)?)?;
        Ok((router, objects::host(lab, name)?))
    };
    ROUTED.into_iter().map(start).collect()
}

/// Waits until each router forwards to these nodes and no other, and then until the client sees the pods of those that serve and no other by it,
/// and they see it.
fn all_reached(lab: &Lab, routers: &[(Router, Host)], nodes: &[Host], (serving, seen): (&[Host], Seen)) -> Result<()> {
    let outside = objects::host(lab, OUTSIDE)?.addresses();
    for (router, host) in routers {
        let way = foot(host).context("a router's foot")?.addresses();
        for (address, way) in ADDRESSES.into_iter().zip(way) {
            expect::forwards(router, address, nodes)?;
            lab.exec(OUTSIDE, &["ip", "route", "replace", "default", "via", &way.to_string()])?;
            wait::until("the pages", BGP_MAX, || {
                let served = (0..PAGES).map(|_| page(lab, OUTSIDE, address)).collect::<Result<BTreeSet<_>>>()?;
                let pods: BTreeSet<_> = served.iter().map(|(pod, _)| pod.clone()).collect();
                ensure!(pods == serving.iter().map(pod).collect(), "by {router} {address} is served by {pods:?}");
                let is_client = |(_, client): &(String, IpAddr)| outside.contains(client) == (seen == Seen::Client);
                ensure!(served.iter().all(is_client), "by {router} {address} pods are to see the {seen:?}: {served:?}");
                Ok(Some(()))
            })?;
        }
    }
    Ok(())
}

/// Waits until a node serves what a client on the LAN sends by it, from a pod of those that serve.
fn serves(lab: &Lab, node: &Host, serving: &[Host]) -> Result<()> {
    ADDRESSES.into_iter().zip(node.addresses()).try_for_each(|(address, way)| {
        lab.exec(CLIENT, &["ip", "route", "replace", &objects::prefix(address), "via", &way.to_string()])?;
        wait::until(&format!("a page by {}", node.name), BGP_MAX, || {
            let (pod, _) = page(lab, CLIENT, address)?;
            ensure!(serving.iter().any(|node| self::pod(node) == pod), "{pod} serves");
            Ok(Some(()))
        })
    })
}

/// The pod that serves a page, and whom it has for its client.
fn page(lab: &Lab, from: &str, address: IpAddr) -> Result<(String, IpAddr)> {
    let page = lab.http_get(from, SocketAddr::new(address, 80), "/")?;
    let mut words = page.body.split_whitespace();
    let (pod, client) = (words.next().context("a pod")?, words.next().context("a client")?);
    Ok((pod.to_owned(), client.parse()?))
}
