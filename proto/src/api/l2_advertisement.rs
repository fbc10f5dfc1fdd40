//! L2Advertisement: which pools are announced by ARP and NDP, and from which nodes and links.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

/// Nodes that are preferred to others, in the manner of a Pod's preferred terms. Field of MetalLB.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct PreferredNodes {
    /// How much a node that matches is preferred, 1 to 100. Weights add up.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Selects nodes by their labels.
    #[schemars(schema_with = "selectors::selector")]
    pub preference: LabelSelector,
}

/// Which pools are announced, and from where.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "L2Advertisement",
    doc = "Announces the addresses of pools on the local network. Without `spec`: all pools, from all nodes, on all links.",
    plural = "l2advertisements",
    shortname = "fl2",
    namespaced,
    status = "L2AdvertisementStatus",
    printcolumn(name = "Pools", type_ = "string", json_path = ".spec.ipAddressPools"),
    printcolumn(name = "Interfaces", type_ = "string", json_path = ".spec.interfaces"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#)
)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementSpec {
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

    /// Nodes that rather than others announce, among those that may and are equally sound: the one with the largest sum of
    /// weights, over all advertisements that announce the Service from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub preferred_node_selectors: Vec<PreferredNodes>,

    /// Exact names of the links to announce on. Empty: all links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub interfaces: Vec<String>,

    /// Services whose addresses are announced, by their labels; several selectors are alternatives. Empty: all Services. A
    /// shared address is announced when one of its Services is selected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub service_selectors: Vec<LabelSelector>,
}

/// What is known about an advertisement. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct L2AdvertisementStatus {
    /// `Valid`, with the reason when something about the advertisement cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}
