//! Objects that the scenarios apply, and sessions from the SpeakerStatuses.

use anyhow::{Context, Result};
use ferrolb_lab::Lab;
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Addresses of the Service, from the documentation prefixes (RFC 5737, RFC 3849), which no network
/// of the lab contains.
pub(crate) const ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
];
/// Maximum time until a session is established and its routes are exchanged, on a busy machine: a
/// failed attempt is repeated after 5 s or more.
pub(crate) const BGP_MAX: Duration = Duration::from_secs(30);
pub(crate) const NAMESPACE: &str = "ferrolb-system";

/// Returns an object of a FerroLB custom resource in FerroLB's namespace.
pub(crate) fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("ferrolb.io/{version}"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// Returns the path of the objects of a FerroLB custom resource in the API, such as `bgppeers`.
pub(crate) fn path(resource: &str) -> String {
    let version = if resource == "bgppeers" { "v1beta2" } else { "v1beta1" };
    format!("/apis/ferrolb.io/{version}/namespaces/{NAMESPACE}/{resource}")
}

/// Returns the BGPPeers of a router, one for each family, such as `tor1-v4` and `tor1-v6`, with the
/// shortest possible hold time.
pub(crate) fn peers(lab: &Lab, router: &str) -> Result<Vec<Value>> {
    let host = host(lab, router)?;
    let peer = |address: IpAddr| {
        let spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s"});
        object("v1beta2", "BGPPeer", &peer_name(router, address), &spec)
    };
    Ok(host.addresses().map(peer).into())
}

/// Returns the name of the BGPPeer for a router at an address.
pub(crate) fn peer_name(router: &str, address: IpAddr) -> String {
    format!("{router}-{}", if address.is_ipv4() { "v4" } else { "v6" })
}

/// Returns a pool with [`ADDRESSES`], and the dual-stack Service `web` with policy Local.
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

/// Returns the prefix that contains only the address.
pub(crate) fn prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Returns a host of the lab by its name.
pub(crate) fn host(lab: &Lab, name: &str) -> Result<Host> {
    lab.state()
        .facts()?
        .hosts()
        .into_iter()
        .find(|host| host.name == name)
        .with_context(|| format!("the lab has no host {name}"))
}

/// Returns the sessions in a node's SpeakerStatus.
pub(crate) fn sessions(lab: &Lab, node: &str) -> Result<Vec<Value>> {
    let status = lab.get(&format!("{}/{node}", path("speakerstatuses")))?;
    Ok(status["status"]["bgp"]["sessions"].as_array().cloned().unwrap_or_default())
}
