//! Community: names for BGP communities, for use in advertisements.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names for BGP communities.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "Community",
    doc = "Names for BGP communities. A name is used in any BGPAdvertisement, so it is written in one Community only.",
    plural = "communities",
    shortname = "fcomm",
    namespaced,
    status = "CommunityStatus",
    printcolumn(name = "Names", type_ = "string", json_path = ".spec.communities[*].name"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#)
)]
#[serde(rename_all = "camelCase")]
pub struct CommunitySpec {
    /// The names and what they stand for. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub communities: Vec<CommunityAlias>,
}

/// A name and what it stands for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommunityAlias {
    /// The name, unique over all Communities.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// `A:B` with 16 bits each (RFC 1997), or `large:A:B:C` with 32 bits each (RFC 8092).
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub value: String,
}

/// What is known about a Community. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommunityStatus {
    /// `Valid`, with the reason when something about the names cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}
