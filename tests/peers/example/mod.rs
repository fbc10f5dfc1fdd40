//! The unchanged configurations and objects of `examples/bgp-lab`; README.md has the drawing.

use crate::expect::{self, wait_exact_paths};
use crate::in_containers;
use crate::objects::{BGP_MAX, prefix};
use anyhow::{Context, Result};
use ferrolb_lab::routers::{BgpRoute, Router, RouterKind};
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;

const FOLDER: &str = "examples/bgp-lab";
/// AS number of the nodes in the example.
const NODE_AS: u32 = 64500;
/// Configuration file of each router.
const CONFIGS: [(RouterKind, &str); 3] = [
    (RouterKind::Frr, "frr.conf"),
    (RouterKind::Bird, "bird.conf"),
    (RouterKind::Gobgp, "gobgpd.conf"),
];

#[test]
fn the_example_routers_receive_the_paths_of_a_service() {
    run_scenario(&in_containers("example"), |lab| {
        let node = Host::node(1);
        lab.start_ferrolb()?;
        let routers = step("each router starts with its configuration file", || {
            let router = |((kind, file), host): ((RouterKind, &str), &str)| {
                let config = fs::read_to_string(repository().join(FOLDER).join(file))
                    .context(file.to_owned())?;
                Router::start(lab, kind, host, &config)
            };
            CONFIGS.into_iter().zip(ROUTERS).map(router).collect::<Result<Vec<_>>>()
        })?;
        let addresses = step("the objects of the example and a Service are applied", || {
            lab.apply_file(&repository().join(FOLDER).join("ferrolb.yaml"))?;
            lab.pod("web", &node.name, &[("app", "web")])?;
            lab.apply_objects(&[service()])?;
            addresses(lab)
        })?;
        step("each router receives both addresses from the node", || {
            let path = |(address, hop): (&IpAddr, IpAddr), router: &Router| BgpRoute {
                prefix: prefix(*address),
                next_hop: Some(hop),
                as_path: vec![NODE_AS],
                local_pref: router.kind().default_local_pref(),
                ..BgpRoute::default()
            };
            routers.iter().try_for_each(|router| {
                wait_exact_paths(
                    router,
                    addresses.iter().zip(node.addresses()).map(|pair| path(pair, router)).collect(),
                )
            })
        })?;
        step("routers that forward have the routes in their kernel", || {
            routers.iter().filter(|router| router.kind().forwards()).try_for_each(|router| {
                addresses.iter().try_for_each(|address| {
                    expect::wait_forwards(router, *address, std::slice::from_ref(&node))
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
    wait::until("the Service has an address of each family", BGP_MAX, || {
        let service = lab.get("/api/v1/namespaces/default/services/web")?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let mut ingress =
            ingress.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect::<Vec<IpAddr>>();
        ingress.sort();
        Ok(ingress.try_into().ok())
    })
}
