//! Addresses that hosts of the segment use are not assigned: those that speakers see, and those of
//! the API server.

use crate::pools::{STATE_MAX, pool, wait_reason};
use crate::scenario::step;
use crate::services::{self, ADDRESS_ASSIGNED};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{CustomResourceKind, NAMESPACE};
use serde_json::json;
use std::net::IpAddr;

/// Name of the pool, and of the Service that requests it.
const NAME: &str = "hosts";
/// Addresses of the pool that no host uses.
const FREE: [&str; 2] = ["172.30.0.230", "172.30.0.231"];
/// Address that a node's interface gets, and that the Node does not list.
const ON_INTERFACE: &str = "172.30.0.229";
/// Gateway that a node gets.
const GATEWAY: &str = "172.30.0.228";

/// Runs the steps in a lab with FerroLB and two nodes or more.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let valid =
        |text: &str| wait_reason(lab, CustomResourceKind::IPAddressPool, NAME, "Valid", text);
    let api_server = lab.address(CONTROL_PLANE)?;
    step("a node has an address that its Node does not list, and a gateway", || {
        lab.exec("node2", &["ip", "address", "add", &format!("{ON_INTERFACE}/32"), "dev", "lo"])?;
        lab.exec("node2", &["ip", "route", "add", "default", "via", GATEWAY, "metric", "9000"])?;
        let expected: [IpAddr; 2] = [ON_INTERFACE.parse()?, GATEWAY.parse()?];
        wait_reported(lab, &expected)
    })?;
    step("the pool names the addresses of hosts, and who has them", || {
        let used = [&api_server.to_string(), ON_INTERFACE, GATEWAY, "172.30.0.0", "172.30.0.255"];
        lab.apply_objects(&[pool(NAME, &[&used[..], &FREE].concat())])?;
        valid(&format!("{ON_INTERFACE} (on an interface of Node node2)"))?;
        valid(&format!("{GATEWAY} (a default gateway of Node node2)"))?;
        valid(&format!("{api_server} (an address of the API server)"))?;
        valid("172.30.0.0 (the network address of a subnet of Node node1)")?;
        valid("172.30.0.255 (the broadcast address of a subnet of Node node1)")
    })?;
    step("Services without a request get the other addresses", || {
        for (name, address) in ["free1", "free2"].into_iter().zip(FREE) {
            lab.apply_objects(&[requesting(name, "address-pool", NAME)])?;
            services::wait_addresses(lab, name, &[address])?;
        }
        lab.apply_objects(&[requesting("last", "address-pool", NAME)])?;
        services::wait_refused(lab, "last", "PoolExhausted")
    })?;
    step("a request for one is refused, and one for the broadcast address has a warning", || {
        lab.apply_objects(&[
            requesting("refused", "loadBalancerIPs", ON_INTERFACE),
            requesting("warned", "loadBalancerIPs", "172.30.0.255"),
        ])?;
        services::wait_refused(lab, "refused", "RequestedAddressInUse")?;
        services::wait_addresses(lab, "warned", &["172.30.0.255"])?;
        let warned = services::get(lab, "warned")?;
        let message = services::condition(&warned, ADDRESS_ASSIGNED).map(|it| it.message.as_str());
        ensure!(message.is_some_and(|it| it.contains("the broadcast address")), "{message:?}");
        Ok(())
    })?;
    step("the waiting Services get addresses that the node has lost", || {
        lab.exec("node2", &["ip", "address", "del", &format!("{ON_INTERFACE}/32"), "dev", "lo"])?;
        lab.exec("node2", &["ip", "route", "del", "default", "via", GATEWAY])?;
        services::wait_addresses(lab, "refused", &[ON_INTERFACE])?;
        services::wait_addresses(lab, "last", &[GATEWAY])
    })
}

/// Waits until the SpeakerStatus of node2 has these addresses.
fn wait_reported(lab: &Lab, expected: &[IpAddr]) -> Result<()> {
    let fields = "jsonpath={.status.hostAddresses}{.status.gateways}";
    wait::until("the SpeakerStatus of node2 has the addresses", STATE_MAX, || {
        let text = lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker/node2", "-o", fields])?;
        let has = |address: &IpAddr| text.contains(&format!("\"{address}\""));
        ensure!(expected.iter().all(has), "the SpeakerStatus has {text}");
        Ok(Some(()))
    })
}

/// Returns a Service with a request in an annotation.
fn requesting(name: &str, annotation: &str, value: &str) -> serde_json::Value {
    let mut service = services::service(name, json!({}));
    service["metadata"]["annotations"] = json!({format!("ferrolb.io/{annotation}"): value});
    service
}
