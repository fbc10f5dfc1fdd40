//! IPAddressPool: the addresses that Services may get.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

const fn yes() -> bool {
    true
}

/// What the pool holds and who may get it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    doc = "A pool of addresses for LoadBalancer Services.",
    plural = "ipaddresspools",
    shortname = "fpool",
    namespaced,
    status = "IPAddressPoolStatus",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Auto Assign", type_ = "boolean", json_path = ".spec.autoAssign"),
    printcolumn(name = "Assigned v4", type_ = "integer", json_path = ".status.assignedIPv4"),
    printcolumn(name = "Assigned v6", type_ = "integer", json_path = ".status.assignedIPv6"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#)
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Addresses to give out: CIDRs (`192.168.1.240/28`), ranges (`192.168.1.240-192.168.1.250`) or single addresses, IPv4 and
    /// IPv6 in any mix. Required, 1 to 256 entries.
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = Rule::new("self.size() > 0").message("spec.addresses must name at least one CIDR, range or address"),
        validation = Rule::new(ENTRY_RULE).message(ENTRY_MESSAGE)
    )]
    #[schemars(inner(length(max = 100)))]
    pub addresses: Vec<String>,

    /// Addresses of the pool that are never given out, spelled like `addresses`. At most 256 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(inner(length(max = 100)))]
    #[x_kube(validation = Rule::new(ENTRY_RULE).message(EXCLUDE_MESSAGE))]
    pub exclude_addresses: Vec<String>,

    /// Whether Services that ask for no pool may get an address of this one. Default: true.
    #[serde(default = "yes")]
    pub auto_assign: bool,

    /// Skip IPv4 addresses that end in .0 or .255, which some old devices refuse. Default: false.
    #[serde(default)]
    #[schemars(rename = "avoidBuggyIPs")]
    #[serde(rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,
}

/// What is known about a pool. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// IPv4 addresses in use. Field of MetalLB.
    #[serde(rename = "assignedIPv4", default)]
    pub assigned_ipv4: i64,
    /// IPv6 addresses in use. Field of MetalLB.
    #[serde(rename = "assignedIPv6", default)]
    pub assigned_ipv6: i64,
    /// IPv4 addresses still free. Field of MetalLB.
    #[serde(rename = "availableIPv4", default, skip_serializing_if = "Option::is_none")]
    pub available_ipv4: Option<i64>,
    /// IPv6 addresses still free; absent when the number does not fit in 63 bits. Field of MetalLB.
    #[serde(rename = "availableIPv6", default, skip_serializing_if = "Option::is_none")]
    pub available_ipv6: Option<i64>,
    /// `Valid`, with the reason when something about the pool cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}

/// What CEL can say of one entry: an address, a CIDR, or two addresses of one family with a dash between. Order and
/// overlap need more than one object can know; those are conditions.
const ENTRY_RULE: &str = "self.all(a, \
    isIP(a.trim()) || isCIDR(a.trim()) || \
    (a.split('-').size() == 2 && isIP(a.split('-')[0].trim()) && isIP(a.split('-')[1].trim()) && \
     ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family()))";
const ENTRY_MESSAGE: &str = "spec.addresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
const EXCLUDE_MESSAGE: &str = "spec.excludeAddresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
