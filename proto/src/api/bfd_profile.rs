//! BFDProfile: timers of the BFD sessions that monitor BGP peers (RFC 5880).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Timers of BFD sessions.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    doc = "Timers of the BFD sessions of the BGPPeers that name this object. Without `spec`: an interval of 300 ms and a multiplier of 3.",
    plural = "bfdprofiles",
    shortname = "fbfd",
    category = "ferrolb",
    namespaced,
    status = "BFDProfileStatus",
    printcolumn(name = "Receive", type_ = "integer", json_path = ".spec.receiveInterval"),
    printcolumn(name = "Transmit", type_ = "integer", json_path = ".spec.transmitInterval"),
    printcolumn(name = "Multiplier", type_ = "integer", json_path = ".spec.detectMultiplier"),
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
pub struct BFDProfileSpec {
    /// The interval at which the node can receive BFD packets, in milliseconds, 10 to 60000.
    /// Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub receive_interval: Option<u32>,

    /// The interval at which the node sends BFD packets, in milliseconds, 10 to 60000. Default:
    /// 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub transmit_interval: Option<u32>,

    /// The number of consecutive packets that must be missing before the session is down, 2 to 255.
    /// Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u32>,

    /// Ignored: GoBGP does not support echo mode. Accepted so that MetalLB manifests apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub echo_interval: Option<u32>,

    /// Not supported by GoBGP. Accepted so that MetalLB manifests apply; the profile becomes
    /// invalid.
    #[serde(default)]
    pub echo_mode: bool,

    /// Not supported by GoBGP. Accepted so that MetalLB manifests apply; the profile becomes
    /// invalid.
    #[serde(default)]
    pub passive_mode: bool,

    /// The lowest TTL of packets from peers that are several hops away. Not supported by GoBGP.
    /// Accepted so that MetalLB manifests apply; the profile becomes invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u32>,
}

/// The state of a BFDProfile. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileStatus {
    /// `Valid`: whether the profile is in use as written, and why not.
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
