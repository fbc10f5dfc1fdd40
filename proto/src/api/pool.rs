//! IPAddressPool: addresses for Services.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

const fn default_true() -> bool {
    true
}

/// How nodes handle traffic to a load balancer address
/// (`Service.status.loadBalancer.ingress[].ipMode`, KEP-1860).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpMode {
    /// Packets arrive with the load balancer address as their destination: kube-proxy accepts them
    /// on every node. Use this mode for addresses that FerroLB announces.
    #[default]
    #[serde(rename = "VIP")]
    Vip,
    /// Packets arrive through a proxy that sends them to a node or pod: kube-proxy makes no rule
    /// for the address.
    Proxy,
}

/// Restricts a pool to Services of some namespaces or with some labels. Field of MetalLB.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAllocation {
    /// The order among several pools that a Service may use: a lower number comes before a higher
    /// one, and 0 (the default) comes last. Pools with the same priority are used in the order of
    /// their names.
    #[serde(default)]
    pub priority: i64,
    /// Names of the namespaces whose Services may get addresses, in addition to those that
    /// `namespaceSelectors` select. At most 1024. If both fields are empty: all namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub namespaces: Vec<String>,
    /// Selects namespaces by their labels. A namespace must match at least one selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub namespace_selectors: Vec<LabelSelector>,
    /// Selects Services by their labels. A Service must match at least one selector, and also its
    /// namespace must be allowed. Default: all Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub service_selectors: Vec<LabelSelector>,
}

/// The addresses of the pool and the Services that may get them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "IPAddressPool",
    doc = "Addresses for Services of type LoadBalancer.",
    plural = "ipaddresspools",
    shortname = "fpool",
    category = "ferrolb",
    namespaced,
    status = "IPAddressPoolStatus",
    printcolumn(name = "Addresses", type_ = "string", json_path = ".spec.addresses"),
    printcolumn(name = "Assigned v4", type_ = "integer", json_path = ".status.assignedIPv4"),
    printcolumn(name = "Assigned v6", type_ = "integer", json_path = ".status.assignedIPv6"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.available"),
    printcolumn(
        name = "Valid",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Valid")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Valid")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolSpec {
    /// The addresses of the pool: CIDRs (`192.168.1.240/28`), ranges
    /// (`192.168.1.240-192.168.1.250`) or single addresses, IPv4 and IPv6 in any mix. Required, 1
    /// to 256 entries.
    #[schemars(length(max = 256))]
    #[x_kube(
        validation = Rule::new("self.size() > 0").message("spec.addresses must name at least one CIDR, range or address"),
        validation = Rule::new(ENTRY_RULE).message(ENTRY_MESSAGE),
        validation = Rule::new(UNICAST_RULE).message(UNICAST_MESSAGE)
    )]
    #[schemars(inner(length(max = 100)))]
    pub addresses: Vec<String>,

    /// Addresses of the pool that are never assigned, in the same format as `addresses`. At most
    /// 256 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(inner(length(max = 100)))]
    #[x_kube(validation = Rule::new(ENTRY_RULE).message(EXCLUDE_MESSAGE))]
    pub exclude_addresses: Vec<String>,

    /// True if Services that do not request a pool may get an address of this one. Default: true.
    #[serde(default = "default_true")]
    pub auto_assign: bool,

    /// Excludes IPv4 addresses that end in .0 or .255, which some old devices refuse. Without it,
    /// the controller assigns the first and the last address of a node's IPv4 subnet on request
    /// only. Default: false.
    #[serde(default)]
    #[schemars(rename = "avoidBuggyIPs")]
    #[serde(rename = "avoidBuggyIPs")]
    pub avoid_buggy_ips: bool,

    /// Restricts the pool to some Services. These Services get addresses of this pool before any
    /// unrestricted one. Default: all Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocation>,

    /// The `ipMode` of the pool's addresses in the status of a Service. `Proxy` is for addresses
    /// whose traffic reaches the nodes by other means than FerroLB: kube-proxy makes no rule for
    /// them, and FerroLB does not announce them. The annotation `ferrolb.io/ip-mode` of a Service
    /// overrides this field. Default: VIP.
    #[serde(default)]
    pub ip_mode: IpMode,

    /// True if the addresses are outside the subnets of the nodes' interfaces on purpose, because a
    /// router has a route to them. Without it, conditions warn about such addresses. Default:
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub routed: bool,

    /// The time for which the controller remembers the addresses of a deleted Service. A Service
    /// with the same namespace and name gets them back if they are free, unless a pool with a
    /// `serviceAllocation` selects it first. Other Services get them only if no other address is
    /// free. 0s turns this off, and 8760h is the maximum. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('0s') && duration(self) <= duration('8760h')").message("spec.stickyFor must be a duration from 0s to 8760h, such as 24h"))]
    pub sticky_for: Option<String>,
}

/// The state of an IPAddressPool. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPoolStatus {
    /// The number of IPv4 addresses in use. Field of MetalLB.
    #[serde(rename = "assignedIPv4", default)]
    pub assigned_ipv4: i64,
    /// The number of IPv6 addresses in use. Field of MetalLB.
    #[serde(rename = "assignedIPv6", default)]
    pub assigned_ipv6: i64,
    /// The number of free IPv4 addresses. Field of MetalLB.
    #[serde(rename = "availableIPv4", default, skip_serializing_if = "Option::is_none")]
    pub available_ipv4: Option<i64>,
    /// The number of free IPv6 addresses; absent if the number does not fit in 63 bits. Field of
    /// MetalLB.
    #[serde(rename = "availableIPv6", default, skip_serializing_if = "Option::is_none")]
    pub available_ipv6: Option<i64>,
    /// The exact numbers of free addresses, for people: `12 IPv4, 18446744073709551614 IPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// `Valid`: whether the pool is in use as written, and why not.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::condition_message::stored_conditions"
    )]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` to which this status applies.
    #[serde(default)]
    pub observed_generation: i64,
}

/// CEL rule for the syntax of an entry: an address, a CIDR, or two addresses of one family with a
/// dash between them. CEL cannot order addresses, so the controller checks reversed ranges and
/// overlaps, and reports them in the condition `Valid`.
const ENTRY_RULE: &str = "self.all(a, \
    isIP(a.trim()) || isCIDR(a.trim()) || \
    (a.split('-').size() == 2 && isIP(a.split('-')[0].trim()) && isIP(a.split('-')[1].trim()) && \
     ip(a.split('-')[0].trim()).family() == ip(a.split('-')[1].trim()).family()))";
/// CEL rule against special addresses: no entry begins with a loopback, link-local, multicast,
/// broadcast or unspecified address. The controller checks the other addresses of an entry.
/// [`ENTRY_RULE`] rejects entries that cannot be decoded.
const UNICAST_RULE: &str = "self.all(a, \
    isIP(a.trim()) ? ip(a.trim()).isGlobalUnicast() : \
    isCIDR(a.trim()) ? cidr(a.trim()).ip().isGlobalUnicast() : \
    !isIP(a.split('-')[0].trim()) || ip(a.split('-')[0].trim()).isGlobalUnicast())";
const UNICAST_MESSAGE: &str = "spec.addresses: no entry may have loopback, link-local, multicast, broadcast or unspecified addresses";
const ENTRY_MESSAGE: &str = "spec.addresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
const EXCLUDE_MESSAGE: &str = "spec.excludeAddresses: every entry must be a CIDR (192.168.1.240/28), a range (192.168.1.240-192.168.1.250) or an address";
