//! Community: names for BGP communities, which BGPAdvertisements use.

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
    doc = "Names for BGP communities, for use in BGPAdvertisements. Each name may be in one Community only.",
    plural = "communities",
    shortname = "fcomm",
    category = "ferrolb",
    namespaced,
    status = "CommunityStatus",
    printcolumn(name = "Names", type_ = "string", json_path = ".spec.communities[*].name"),
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
pub struct CommunitySpec {
    /// The names and their values. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub communities: Vec<CommunityAlias>,
}

/// A name and its value.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommunityAlias {
    /// The name, unique among all Communities.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// The value: `A:B` with 16 bits each (RFC 1997), or `large:A:B:C` with 32 bits each (RFC
    /// 8092).
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub value: String,
}

/// The state of a Community. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommunityStatus {
    /// `Valid`: whether the names are in use as written, and why not.
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
