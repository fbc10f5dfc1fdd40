//! BFDProfile: how the liveness of a session's router is watched (RFC 5880).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The timers of BFD sessions.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "BFDProfile",
    doc = "How BGPPeers that name it are watched by BFD. Without `spec`: every 300 ms, and three that are missing.",
    plural = "bfdprofiles",
    shortname = "fbfd",
    namespaced,
    status = "BFDProfileStatus",
    printcolumn(name = "Receive", type_ = "integer", json_path = ".spec.receiveInterval"),
    printcolumn(name = "Transmit", type_ = "integer", json_path = ".spec.transmitInterval"),
    printcolumn(name = "Multiplier", type_ = "integer", json_path = ".spec.detectMultiplier"),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#)
)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileSpec {
    /// How often packets may come, in milliseconds, 10 to 60000. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub receive_interval: Option<u32>,

    /// How often they are sent, in milliseconds, 10 to 60000. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub transmit_interval: Option<u32>,

    /// After so many that are missing the router is down, 2 to 255. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 255))]
    pub detect_multiplier: Option<u32>,

    /// Field of MetalLB that GoBGP cannot serve: see `echoMode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 60000))]
    pub echo_interval: Option<u32>,

    /// Field of MetalLB that GoBGP cannot serve: a profile that has it is not valid.
    #[serde(default)]
    pub echo_mode: bool,

    /// Field of MetalLB that GoBGP cannot serve: a profile that has it is not valid.
    #[serde(default)]
    pub passive_mode: bool,

    /// Field of MetalLB for peers that are several hops away, which GoBGP cannot serve: a profile that has it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u32>,
}

/// What is known about a profile. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BFDProfileStatus {
    /// `Valid`, with the reason when something about the profile cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}
