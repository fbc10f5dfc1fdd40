//! L2Advertisement: the pools that nodes announce by ARP and NDP, and the nodes and interfaces.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

/// A preference for nodes, like a preferred term of a Pod's node affinity. Field of MetalLB.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct PreferredNodes {
    /// The weight of a node that matches, 1 to 100. The weights of all matching terms add up.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Selects nodes by their labels.
    #[schemars(schema_with = "selectors::selector_schema")]
    pub preference: LabelSelector,
}

/// Selects the pools, nodes, interfaces and Services of the announcements.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    doc = "Announces addresses of pools by ARP and NDP. Without `spec`: all pools, from all nodes.",
    plural = "l2advertisements",
    shortname = "fl2",
    category = "ferrolb",
    namespaced,
    status = "L2AdvertisementStatus",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
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
pub struct L2AdvertisementSpec {
    /// Names of the pools to announce, in addition to those that `ipAddressPoolSelectors` select.
    /// At most 256. If both fields are empty: all pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ip_address_pools: Vec<String>,

    /// Selects pools by their labels. A pool must match at least one selector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,

    /// Selects the nodes that may announce, by their labels. A node must match at least one
    /// selector. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub node_selectors: Vec<LabelSelector>,

    /// Prefers some of the selected nodes. Among equally healthy nodes, the one with the largest
    /// sum of weights announces, over all L2Advertisements that announce the Service from it. At
    /// most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub preferred_node_selectors: Vec<PreferredNodes>,

    /// Exact names of the interfaces on which nodes announce. At most 64. Default: the interfaces
    /// with a subnet that contains the address, or all interfaces if none has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub interfaces: Vec<String>,

    /// True if nodes announce on all interfaces, whatever their subnets, as MetalLB does. Has no
    /// effect if `interfaces` is set. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_interfaces: bool,

    /// Selects the Services whose addresses are announced, by their labels. A Service must match at
    /// least one selector. Default: all Services. A shared address is announced if one of its
    /// Services matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub service_selectors: Vec<LabelSelector>,
}

/// The state of an L2Advertisement. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementStatus {
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
