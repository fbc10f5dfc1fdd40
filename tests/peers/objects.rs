//! What the stories ask of FerroLB, and what its speakers say of it.

use anyhow::{Context, Result};
use ferrolb_tests::Lab;
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The addresses of the Service: from the ranges for documentation (RFC 5737, RFC 3849), which no network of the lab holds.
pub(crate) const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10))];
/// How long a session, and what is said over it, may take on a busy machine: an attempt that failed is made again after 5 s and more.
pub(crate) const BGP_MAX: Duration = Duration::from_secs(30);
pub(crate) const NAMESPACE: &str = "ferrolb-system";

/// A kind of ours, in our namespace.
pub(crate) fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// The BGPPeers for a router on a host, one for each family: `tor1-v4`, `tor1-v6`. With the shortest hold time that there is.
pub(crate) fn peers(lab: &Lab, router: &str) -> Result<Vec<Value>> {
    let host = host(lab, router)?;
    let peer = |address: IpAddr| {
        let spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s"});
        object("v1beta2", "BGPPeer", &peer_name(router, address), &spec)
    };
    Ok(host.addresses().map(peer).into())
}

/// The name of the BGPPeer for a router at an address.
pub(crate) fn peer_name(router: &str, address: IpAddr) -> String {
    format!("{router}-{}", if address.is_ipv4() { "v4" } else { "v6" })
}

/// A pool with the addresses, and the Service `web` of policy Local that gets them.
pub(crate) fn service() -> [Value; 2] {
    let addresses: Vec<_> = ADDRESSES.iter().map(|address| prefix(*address)).collect();
    let spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080}],
    });
    [
        object("v1beta1", "IPAddressPool", "routed", &json!({"addresses": addresses})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}),
    ]
}

/// The prefix that holds the address alone.
pub(crate) fn prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// A host of the lab.
pub(crate) fn host(lab: &Lab, name: &str) -> Result<Host> {
    lab.state().facts()?.hosts().into_iter().find(|host| host.name == name).with_context(|| format!("no host {name}"))
}

/// The sessions that a node's speaker tells of.
pub(crate) fn sessions(lab: &Lab, node: &str) -> Result<Vec<Value>> {
    let status = lab.kubectl(&["get", "speakerstatus", node, "-n", NAMESPACE, "-o", "json"])?;
    let status: Value = serde_json::from_str(&status)?;
    Ok(status["status"]["bgp"]["sessions"].as_array().cloned().unwrap_or_default())
}
