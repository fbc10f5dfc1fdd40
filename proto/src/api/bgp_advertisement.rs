//! BGPAdvertisement: the pools that nodes advertise by BGP, the peers, and the attributes of the
//! routes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::selectors;

/// The length of a whole IPv4 address: no aggregation.
const fn ipv4_length() -> u8 {
    32
}

/// The length of a whole IPv6 address: no aggregation.
const fn ipv6_length() -> u8 {
    128
}

/// Selects the pools, nodes, peers and Services of the routes, and sets the attributes of the
/// routes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    doc = "Advertises addresses of pools by BGP. Without `spec`: all pools, from all nodes, to all peers.",
    plural = "bgpadvertisements",
    shortname = "fbgp",
    category = "ferrolb",
    namespaced,
    status = "BGPAdvertisementStatus",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
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
#[x_kube(
    validation = Rule::new(
        "!has(self.serviceSelectors) || self.serviceSelectors.size() == 0 || (!has(self.aggregationLength) || self.aggregationLength == 32) && (!has(self.aggregationLengthV6) || self.aggregationLengthV6 == 128)"
    ).message("spec.serviceSelectors and an aggregation length exclude each other: a prefix has Services that are not selected")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementSpec {
    /// The length of the IPv4 prefixes to advertise, in bits, 1 to 32. Default: 32, each address as
    /// a route of its own.
    #[serde(default = "ipv4_length")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: u8,

    /// The length of the IPv6 prefixes to advertise, in bits, 1 to 128. Default: 128, each address
    /// as a route of its own.
    #[serde(rename = "aggregationLengthV6", default = "ipv6_length")]
    #[schemars(rename = "aggregationLengthV6", range(min = 1, max = 128))]
    pub aggregation_length_v6: u8,

    /// LOCAL_PREF (RFC 4271 section 5.1.5), sent to internal peers only. Default: 0, which stands
    /// for the usual value of 100.
    #[serde(default)]
    pub local_pref: u32,

    /// Communities of the routes: `A:B` (RFC 1997), `large:A:B:C` (RFC 8092), or names that a
    /// Community defines. At most 63.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 63), inner(length(max = 253)))]
    pub communities: Vec<String>,

    /// MULTI_EXIT_DISC (RFC 4271 section 5.1.4), by which a router chooses among the nodes of one
    /// AS: the lowest value wins. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,

    /// The number of additional times that the AS number of the nodes precedes the AS path, 0 to
    /// 16. Applies to external peers only. Default: 0.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub as_path_prepend: u8,

    /// Names of the pools to advertise, in addition to those that `ipAddressPoolSelectors` select.
    /// At most 256. If both fields are empty: all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ip_address_pools: Vec<String>,

    /// Selects pools by their labels. A pool must match at least one selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Selects the nodes that advertise the routes, by their labels. A node must match at least one
    /// selector. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub node_selectors: Vec<LabelSelector>,

    /// Names of the BGPPeers that receive the routes. At most 256. Default: all peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub peers: Vec<String>,

    /// Selects the Services whose addresses are advertised, by their labels. A Service must match
    /// at least one selector. Default: all Services. A shared address is advertised if one of its
    /// Services matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub service_selectors: Vec<LabelSelector>,
}

impl Default for BGPAdvertisementSpec {
    /// Returns the values that apply to a BGPAdvertisement without `spec`.
    fn default() -> Self {
        Self {
            aggregation_length: ipv4_length(),
            aggregation_length_v6: ipv6_length(),
            local_pref: 0,
            communities: Vec::new(),
            med: None,
            as_path_prepend: 0,
            ip_address_pools: Vec::new(),
            ip_address_pool_selectors: Vec::new(),
            node_selectors: Vec::new(),
            peers: Vec::new(),
            service_selectors: Vec::new(),
        }
    }
}

/// The state of a BGPAdvertisement. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementStatus {
    /// `Valid`: whether the advertisement is in use as written, and why not.
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
