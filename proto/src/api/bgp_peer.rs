//! BGPPeer: a router that the nodes announce addresses to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

/// The port of BGP (RFC 4271 section 8.2.1).
const fn bgp_port() -> u16 {
    179
}

/// A peer whose AS number is not written, only whether it is ours.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// The same as ours: an internal session.
    Internal,
    /// Any other than ours.
    External,
}

/// Where a Secret is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretReference {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its namespace: FerroLB's own, which is also meant where none is written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
}

/// A router and how to speak with it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    doc = "A router that nodes announce addresses to by BGP.",
    plural = "bgppeers",
    shortname = "fpeer",
    namespaced,
    status = "BGPPeerStatus",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.peerASN"),
    printcolumn(name = "Sessions", type_ = "string", json_path = ".status.sessions"),
    printcolumn(name = "BFD", type_ = "string", json_path = ".spec.bfdProfile", priority = 1),
    printcolumn(name = "Valid", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Valid")].reason"#),
    printcolumn(
        name = "Established",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Established")].reason"#
    )
)]
#[x_kube(
    validation = Rule::new("has(self.peerASN) && self.peerASN != 0 ? !has(self.dynamicASN) : has(self.dynamicASN)")
        .message("write one of spec.peerASN and spec.dynamicASN"),
    validation = Rule::new("(has(self.peerAddress) && self.peerAddress != '') != (has(self.interface) && self.interface != '')")
        .message("write one of spec.peerAddress and spec.interface"),
    validation = Rule::new("!has(self.password) || self.password == '' || !has(self.passwordSecret) || !has(self.passwordSecret.name) || self.passwordSecret.name == ''")
        .message("write one of spec.password and spec.passwordSecret"),
    validation = Rule::new("!has(self.ebgpMultiHop) || !self.ebgpMultiHop || !has(self.ttlSecurityHops)")
        .message("spec.ebgpMultiHop and spec.ttlSecurityHops exclude each other"),
    validation = Rule::new("!has(self.ebgpMultiHop) || !self.ebgpMultiHop || !has(self.peerASN) || self.peerASN != self.myASN")
        .message("spec.ebgpMultiHop is for external peers: spec.peerASN is spec.myASN")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerSpec {
    /// The AS number of our side, 1 to 4294967295.
    #[serde(rename = "myASN")]
    #[schemars(rename = "myASN", range(min = 1))]
    pub my_asn: u32,

    /// The AS number of the router. Either this or `dynamicASN`.
    #[serde(rename = "peerASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "peerASN")]
    pub peer_asn: Option<u32>,

    /// The router tells its AS number itself: `internal`, the same as ours, or `external`, another one.
    #[serde(rename = "dynamicASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "dynamicASN")]
    pub dynamic_asn: Option<DynamicAsn>,

    /// An AS number that this router sees in place of `myASN` (local-as, no-prepend, replace-as).
    #[serde(rename = "localASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "localASN", range(min = 1))]
    pub local_asn: Option<u32>,

    /// The router's address, IPv4 or IPv6. Either this or `interface`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self)").message("spec.peerAddress must be an IP address"))]
    pub peer_address: String,

    /// Unnumbered: the router is whoever speaks BGP on the link of this name, by its link-local IPv6 address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 15))]
    pub interface: String,

    /// The node's address that the session comes from. Default: the kernel chooses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self)").message("spec.sourceAddress must be an IP address"))]
    pub source_address: String,

    /// The router's TCP port. Default: 179.
    #[serde(default = "bgp_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: u16,

    /// After so long without a word from the router the session ends, 3 s to 65535 s. 0 (never) is MetalLB's, and not valid here: GoBGP has no
    /// such session. Default: 90 s, or three times `keepaliveTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) == duration('0s') || duration(self) >= duration('3s') && duration(self) <= duration('65535s')").message("spec.holdTime must be a duration from 3s to 65535s"))]
    pub hold_time: Option<String>,

    /// How often the session is kept alive. Default: a third of `holdTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('21845s')").message("spec.keepaliveTime must be a duration from 1s to 21845s"))]
    pub keepalive_time: Option<String>,

    /// How long to wait before a session that could not be opened is tried again, 1 s to 65535 s. Default: 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('65535s')").message("spec.connectTime must be a duration from 1s to 65535s"))]
    pub connect_time: Option<String>,

    /// The router id of the nodes, as an IPv4 address: for peers with `nodeSelectors` that select one node each. Default: the node's first
    /// IPv4 address, or a number made of its name.
    #[serde(rename = "routerID", default, skip_serializing_if = "String::is_empty")]
    #[schemars(rename = "routerID", length(max = 15))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self) && ip(self).family() == 4").message("spec.routerID must be written as an IPv4 address"))]
    pub router_id: String,

    /// The nodes that speak with this router, by their labels; several selectors are alternatives. Empty: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::alternatives")]
    pub node_selectors: Vec<LabelSelector>,

    /// The password of the session (TCP-MD5, RFC 2385), for all who may read this object to see. At most 80 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 80))]
    pub password: String,

    /// The Secret that holds it: of type `kubernetes.io/basic-auth`, its key `password`. Without it
    /// no session is opened; open ones go on with its last password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,

    /// The name of the BFDProfile by which the session is watched. Default: no BFD.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub bfd_profile: String,

    /// The router keeps the routes while the daemon of the node restarts (RFC 4724). Default: false.
    #[serde(default)]
    pub enable_graceful_restart: bool,

    /// The router is not on a network of the node. Default: false.
    #[serde(rename = "ebgpMultiHop", default)]
    #[schemars(rename = "ebgpMultiHop")]
    pub ebgp_multi_hop: bool,

    /// The router is so many hops away, and packets from farther away are dropped (RFC 5082): 1 for a neighbour. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security_hops: Option<u8>,

    /// Announce IPv4 addresses in a session over IPv6, and the other way round. Default: false.
    #[serde(default)]
    pub dual_stack_address_family: bool,

    /// Field of MetalLB that GoBGP cannot serve: an object that has it is not valid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub vrf: String,

    /// Field of MetalLB without effect, there and here.
    #[serde(rename = "disableMP", default)]
    #[schemars(rename = "disableMP")]
    pub disable_mp: bool,
}

/// What is known about a peer. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// How many of the nodes that should have a session have one, for a person to read: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<String>,
    /// `Valid`, with the reason when something about the peer cannot be used, and `Established`, with the nodes that have no session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The `metadata.generation` that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
}
