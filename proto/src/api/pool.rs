//! IPAddressPool: the addresses that Services may get.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

const fn yes() -> bool {
    true
}

/// How nodes take traffic to a load balancer's address (`Service.status.loadBalancer.ingress[].ipMode`, KEP-1860).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpMode {
    /// Packets come with the address itself: kube-proxy takes them on every node. What FerroLB announces works like this.
    #[default]
    #[serde(rename = "VIP")]
    Vip,
    /// Packets come by way of something that sends them on to a node or pod: kube-proxy makes no rule for the address.
    Proxy,
}

/// Who may get addresses of a pool. Field of MetalLB.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// Which of several pools goes first: a lower number before a higher one, 0 (the default) last. Ties: by name.
    #[serde(default)]
    pub priority: i64,
    /// Names of namespaces whose Services may get addresses. Together with `namespaceSelectors`: the union; both empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub namespaces: Vec<String>,
    /// Selects namespaces by their labels; several selectors are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selects Services by their labels; several selectors are alternatives. With namespaces given, both must fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub service_selectors: Vec<LabelSelector>,
}

/// What the pool holds and who may get it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
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
    printcolumn(name = "Available", type_ = "string", json_path = ".status.available"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].reason"#)
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// Addresses to give out: CIDRs (`192.168.1.240/28`), ranges (`192.168.1.240-192.168.1.250`) or single addresses, IPv4 and
    /// IPv6 in any mix. Required, 1 to 256 entries.
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = Rule::new("self.size() > 0").message("spec.addresses must name at least one CIDR, range or address"),
        validation = Rule::new(ENTRY_RULE).message(ENTRY_MESSAGE),
        validation = Rule::new(UNICAST_RULE).message(UNICAST_MESSAGE)
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

    /// Skip IPv4 addresses that end in .0 or .255, which some old devices refuse. Of the nodes' own
    /// subnet, exclude the first and the last address by `excludeAddresses`: hosts on it take them
    /// for broadcasts. Default: false.
    #[serde(default)]
    #[schemars(rename = "avoidBuggyIPs")]
    #[serde(rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Who may get addresses of this pool; such Services get them of this pool before any other. Default: everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// The `ipMode` of the pool's addresses in a Service's status: `VIP`, or `Proxy` for addresses that something other than
    /// FerroLB brings to the nodes: kube-proxy makes no rule for them, and they are not announced. A Service's annotation
    /// `ferrolb.io/ip-mode` beats it. Default: VIP.
    #[serde(default)]
    pub ip_mode: IpMode,
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
    /// The addresses still free for a person to read, exact whatever their number: `12 IPv4, 18446744073709551614 IPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
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
/// No entry begins or ends with a loopback, link-local, multicast, broadcast or unspecified
/// address. What lies between is the controller's to see; an entry that cannot be read is
/// [`ENTRY_RULE`]'s.
const UNICAST_RULE: &str = "self.all(a, \
    isIP(a.trim()) ? ip(a.trim()).isGlobalUnicast() : \
    isCIDR(a.trim()) ? cidr(a.trim()).ip().isGlobalUnicast() : \
    !isIP(a.split('-')[0].trim()) || ip(a.split('-')[0].trim()).isGlobalUnicast())";
const UNICAST_MESSAGE: &str =
    "spec.addresses: no entry may have loopback, link-local, multicast, broadcast or unspecified addresses";
const ENTRY_MESSAGE: &str = "spec.addresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
const EXCLUDE_MESSAGE: &str = "spec.excludeAddresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
