//! BGPAdvertisement: which pools are announced by BGP, to which routers, and with which attributes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::selectors;

/// Each address by itself.
const fn whole_v4() -> u8 {
    32
}

/// Each address by itself.
const fn whole_v6() -> u8 {
    128
}

/// Which pools are announced, where, and how.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "BGPAdvertisement",
    doc = "Announces the addresses of pools by BGP. Without `spec`: all pools, from all nodes, to all peers.",
    plural = "bgpadvertisements",
    shortname = "fbgp",
    namespaced,
    status = "BGPAdvertisementStatus",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Peers", type_ = "string", json_path = ".spec.peers"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].reason"#)
)]
#[x_kube(
    validation = Rule::new(
        "!has(self.serviceSelectors) || self.serviceSelectors.size() == 0 || self.aggregationLength == 32 && self.aggregationLengthV6 == 128"
    ).message("spec.serviceSelectors and an aggregation length exclude each other: a prefix has Services that are not selected")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementSpec {
    /// Announce the IPv4 prefix of this length that an address is in, in bits. Default: 32, the address itself.
    #[serde(default = "whole_v4")]
    #[schemars(range(min = 1, max = 32))]
    pub aggregation_length: u8,

    /// The same for IPv6. Default: 128.
    #[serde(rename = "aggregationLengthV6", default = "whole_v6")]
    #[schemars(rename = "aggregationLengthV6", range(min = 1, max = 128))]
    pub aggregation_length_v6: u8,

    /// LOCAL_PREF (RFC 4271 section 5.1.5), which internal peers see. Default: 0, which is 100.
    #[serde(default)]
    pub local_pref: u32,

    /// Communities: `A:B` (RFC 1997), `large:A:B:C` (RFC 8092), or names that a Community gives. At most 63.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 63), inner(length(max = 253)))]
    pub communities: Vec<String>,

    /// MULTI_EXIT_DISC (RFC 4271 section 5.1.4), by which a router chooses among nodes of one AS: less is better. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,

    /// How many times our AS number is written before the path once more, to external peers. Default: 0.
    #[serde(default)]
    #[schemars(range(max = 16))]
    pub as_path_prepend: u8,

    /// Names of pools. Together with `ipAddressPoolSelectors`: the union; both empty: all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ip_address_pools: Vec<String>,

    /// Selects pools by their labels; several selectors are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Nodes that may announce, by their labels; several selectors are alternatives. Empty: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub node_selectors: Vec<LabelSelector>,

    /// Names of BGPPeers to announce to. Empty: all peers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub peers: Vec<String>,

    /// Services whose addresses are announced, by their labels; several selectors are alternatives. Empty: all Services. A
    /// shared address is announced when one of its Services is selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub service_selectors: Vec<LabelSelector>,
}

impl Default for BGPAdvertisementSpec {
    /// That of an advertisement without `spec`.
    fn default() -> Self {
        Self {
            aggregation_length: whole_v4(),
            aggregation_length_v6: whole_v6(),
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

/// What is known about an advertisement. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPAdvertisementStatus {
    /// `Valid`, with the reason when something about the advertisement cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}
