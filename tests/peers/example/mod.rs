//! The unchanged configurations and objects of `examples/bgp-lab`; README.md has the drawing.

use crate::expect::{self, has_paths};
use crate::objects::{BGP_MAX, prefix};
use anyhow::{Context, Result};
use ferrolb_lab::routers::{BgpRoute, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTERS};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;

const FOLDER: &str = "examples/bgp-lab";
/// Configuration file of each router.
const CONFIGS: [(RouterKind, &str); 3] = [
    (RouterKind::Frr, "frr.conf"),
    (RouterKind::Bird, "bird.conf"),
    (RouterKind::Gobgp, "gobgpd.conf"),
];

#[test]
fn the_routers_of_the_example_accept_its_paths() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("example") }, |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let routers = step("each router starts with its file", || {
            let router = |((kind, file), host): ((RouterKind, &str), &str)| {
                let config = fs::read_to_string(repository().join(FOLDER).join(file))
                    .context(file.to_owned())?;
                Router::start(lab, kind, host, &config)
            };
            CONFIGS.into_iter().zip(ROUTERS).map(router).collect::<Result<Vec<_>>>()
        })?;
        let addresses = step("the objects, and a Service", || {
            lab.apply_file(&repository().join(FOLDER).join("ferrolb.yaml"))?;
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&[service()])?;
            addresses(lab)
        })?;
        step("each router sees both addresses from the node", || {
            let path = |(address, hop): (&IpAddr, IpAddr), router: &Router| BgpRoute {
                prefix: prefix(*address),
                next_hop: Some(hop),
                as_path: vec![NODE_AS],
                local_pref: router.kind().local_pref_outside(),
                ..BgpRoute::default()
            };
            routers.iter().try_for_each(|router| {
                has_paths(
                    router,
                    addresses.iter().zip(node.addresses()).map(|pair| path(pair, router)).collect(),
                )
            })
        })?;
        step("those that forward know the way", || {
            routers.iter().filter(|router| router.kind().forwards()).try_for_each(|router| {
                addresses.iter().try_for_each(|address| {
                    expect::forwards(router, *address, std::slice::from_ref(&node))
                })
            })
        })
    });
}

fn service() -> Value {
    let spec = json!({
        "type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}],
    });
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

/// Waits for the Service's addresses: IPv4, then IPv6.
fn addresses(lab: &Lab) -> Result<[IpAddr; 2]> {
    wait::until("an address of each family", BGP_MAX, || {
        let service: Value =
            serde_json::from_str(&lab.kubectl(&["get", "service", "web", "-o", "json"])?)?;
        let given = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let mut given =
            given.filter_map(|one| one["ip"].as_str()?.parse().ok()).collect::<Vec<IpAddr>>();
        given.sort();
        Ok(given.try_into().ok())
    })
}
