//! A client behind a router reaches the pods of all nodes that announce an address, and of no other; the drawing is in README.md.

use crate::objects::{self, ADDRESSES, BGP_MAX, object};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::{play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{OUTSIDE, foot};
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
        step("by either router, all nodes are reached", || all_reached(lab, &routers, &nodes))?;
        let (first, others) = nodes.split_first().context("a node")?;
        step("the pod of one is not ready", || {
            lab.set_ready(&pod(first), false)?;
            all_reached(lab, &routers, others)
        })?;
        let (second, rest) = others.split_first().context("another node")?;
        step("one loses its power", || {
            lab.power_off(&second.name)?;
            all_reached(lab, &routers, rest)
        })
    });
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

/// Waits until each router forwards to these nodes and no other, and then until the client sees the pods of these and no other by it.
fn all_reached(lab: &Lab, routers: &[(Router, Host)], nodes: &[Host]) -> Result<()> {
    for (router, host) in routers {
        let way = foot(host).context("a router's foot")?.addresses();
        for (address, way) in ADDRESSES.into_iter().zip(way) {
            let hops = nodes.iter().flat_map(Host::addresses).filter(|hop| hop.is_ipv4() == address.is_ipv4());
            let hops: BTreeSet<IpAddr> = hops.collect();
            wait::until("the kernel's routes", BGP_MAX, || {
                let now = router.forwards(address)?;
                ensure!(now == hops, "{router} forwards {address} to {now:?}, not {hops:?}");
                Ok(Some(()))
            })?;
            lab.exec(OUTSIDE, &["ip", "route", "replace", "default", "via", &way.to_string()])?;
            let expect: BTreeSet<String> = nodes.iter().map(pod).collect();
            wait::until("the pages", BGP_MAX, || {
                let pages = (0..PAGES).map(|_| lab.http_get(OUTSIDE, SocketAddr::new(address, 80), "/"));
                let pods: BTreeSet<String> =
                    pages.map(|page| Ok(page?.pod().unwrap_or_default())).collect::<Result<_>>()?;
                ensure!(pods == expect, "by {router} {address} is served by {pods:?}");
                Ok(Some(()))
            })?;
        }
    }
    Ok(())
}
