//! A Service whose IPv6 endpoint runs on another node than its IPv4 endpoint: each address is
//! announced by the node that can serve it, and the condition names both nodes.

use crate::health_checks::pod;
use crate::pools::{self, STATE_MAX};
use crate::scenario::step;
use crate::segment;
use crate::services::{self, http, service, wait_announced};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, POD_PORT};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Name of the Service and of its pool.
const NAME: &str = "separate";

/// A family: its name in an EndpointSlice, the Service's address, and the node of the endpoint.
struct Family {
    kind: &'static str,
    address: &'static str,
    node: &'static str,
}

/// Runs the steps. They require that a pod with the name [`pod`] serves both families on each node.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step(
        "each family is announced by the node with its endpoint, and the condition says so",
        || check(lab, "node1", "node2"),
    )?;
    step("the endpoints change places, and the addresses follow", || check(lab, "node2", "node1"))?;
    services::delete(lab, NAME)
}

/// Applies the Service with an IPv4 endpoint on one node and an IPv6 endpoint on another. Checks
/// owners, condition and replies.
fn check(lab: &Lab, v4_node: &'static str, v6_node: &'static str) -> Result<()> {
    let families = [
        Family { kind: "IPv4", address: "172.30.0.211", node: v4_node },
        Family { kind: "IPv6", address: "fd30::211", node: v6_node },
    ];
    let addresses = families.each_ref().map(|family| family.address);
    let mut objects = vec![pools::pool(NAME, &addresses), without_selector()];
    for family in &families {
        objects.push(slice(family, &pod_address(lab, family)?));
    }
    lab.apply_objects(&objects)?;
    services::wait_addresses(lab, NAME, &addresses)?;
    for Family { address, node, .. } in &families {
        wait_announced(lab, NAME, "Announced", &format!("{address} from {node} (eth0)"))?;
        let ip: IpAddr = address.parse()?;
        wait::until_heard(
            &format!("{address} is announced and served by {node}"),
            STATE_MAX,
            || {
                let owner = segment::owner(lab, ip)?;
                ensure!(owner == *node, "{owner} announces {address}");
                let page = lab.http_get(CLIENT, http(ip), "/")?;
                ensure!(page.status == 200, "the client gets {page:?}");
                Ok(Some(()))
            },
        )?;
    }
    Ok(())
}

/// Returns the Service, whose EndpointSlices the scenario writes.
fn without_selector() -> Value {
    let mut object = service(
        NAME,
        json!({
            "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"], "ports": [{"name": "http", "port": 80, "targetPort": POD_PORT}],
        }),
    );
    object["spec"].as_object_mut().map(|spec| spec.remove("selector"));
    object["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": NAME});
    object
}

fn slice(family: &Family, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{NAME}-{}", family.kind.to_lowercase()),
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": family.kind, "ports": [{"name": "http", "port": POD_PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "nodeName": family.node, "conditions": {"ready": true}}],
    })
}

/// Returns the address of a family of the pod on the family's node.
fn pod_address(lab: &Lab, family: &Family) -> Result<String> {
    let addresses =
        lab.kubectl(&["get", "pod", &pod(family.node), "-o", "jsonpath={.status.podIPs[*].ip}"])?;
    let is_v6 = family.kind == "IPv6";
    let of_family = addresses.split_whitespace().find(|address| address.contains(':') == is_v6);
    of_family.map(str::to_owned).with_context(|| format!("the pod has no {} address", family.kind))
}
