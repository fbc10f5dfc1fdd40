//! BGPPeer: a router to which nodes advertise routes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selectors;

/// The port of BGP (RFC 4271 section 8.2.1).
const fn bgp_port() -> u16 {
    179
}

/// The kind of a peer whose AS number is not configured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum DynamicAsn {
    /// The AS of the nodes: an internal session.
    Internal,
    /// Any other AS: an external session.
    External,
}

/// A reference to a Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretReference {
    /// The name of the Secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub name: String,
    /// The namespace of the Secret. Must be FerroLB's own namespace, which is the default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
}

/// A router and the parameters of the BGP sessions with it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta2",
    kind = "BGPPeer",
    doc = "A router to which nodes advertise addresses by BGP.",
    plural = "bgppeers",
    shortname = "fpeer",
    category = "ferrolb",
    namespaced,
    status = "BGPPeerStatus",
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.peerAddress"),
    printcolumn(name = "ASN", type_ = "integer", json_path = ".spec.peerASN"),
    printcolumn(name = "Sessions", type_ = "string", json_path = ".status.sessions"),
    printcolumn(name = "BFD", type_ = "string", json_path = ".spec.bfdProfile", priority = 1),
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
    printcolumn(
        name = "Established",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Established")].status"#
    ),
    printcolumn(
        name = "Session Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Established")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
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
    /// The AS number of the nodes, 1 to 4294967295.
    #[serde(rename = "myASN")]
    #[schemars(rename = "myASN", range(min = 1))]
    pub my_asn: u32,

    /// The AS number of the router, 1 to 4294967295. Exclusive with `dynamicASN`; one of the two is
    /// required.
    #[serde(rename = "peerASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "peerASN")]
    pub peer_asn: Option<u32>,

    /// Accepts the AS number that the router sends: `internal`, the AS of the nodes, or `external`,
    /// any other AS. Exclusive with `peerASN`.
    #[serde(rename = "dynamicASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "dynamicASN")]
    pub dynamic_asn: Option<DynamicAsn>,

    /// The AS number that this router receives in place of `myASN` (local-as, no-prepend,
    /// replace-as).
    #[serde(rename = "localASN", default, skip_serializing_if = "Option::is_none")]
    #[schemars(rename = "localASN", range(min = 1))]
    pub local_asn: Option<u32>,

    /// The IP address of the router, IPv4 or IPv6. Exclusive with `interface`; one of the two is
    /// required.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self)").message("spec.peerAddress must be an IP address"))]
    pub peer_address: String,

    /// The interface of an unnumbered session: the peer is the router on this interface, reached by
    /// its link-local IPv6 address. Exclusive with `peerAddress`. At most 15 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 15))]
    pub interface: String,

    /// The address of the node from which the session is opened. Default: the kernel's choice.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self)").message("spec.sourceAddress must be an IP address"))]
    pub source_address: String,

    /// The TCP port of the router. Default: 179.
    #[serde(default = "bgp_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub peer_port: u16,

    /// The hold time: the session ends if no message arrives from the router for this time. Whole
    /// seconds, 3s to 65535s. 0s (no hold time), which MetalLB accepts, makes the object invalid,
    /// because GoBGP does not support it. Default: 90s, or three times `keepaliveTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) == duration('0s') || duration(self) >= duration('3s') && duration(self) <= duration('65535s')").message("spec.holdTime must be a duration from 3s to 65535s"))]
    pub hold_time: Option<String>,

    /// The interval of KEEPALIVE messages. Whole seconds, 1s to 21845s, at most `holdTime`.
    /// Default: a third of `holdTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('21845s')").message("spec.keepaliveTime must be a duration from 1s to 21845s"))]
    pub keepalive_time: Option<String>,

    /// The time between two attempts to open the session. Whole seconds, 1s to 65535s. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('65535s')").message("spec.connectTime must be a duration from 1s to 65535s"))]
    pub connect_time: Option<String>,

    /// The router ID of the nodes, written as an IPv4 address. Useful only for peers whose
    /// `nodeSelectors` select one node each. Default: the first IPv4 address of the node, or a
    /// number derived from its name.
    #[serde(rename = "routerID", default, skip_serializing_if = "String::is_empty")]
    #[schemars(rename = "routerID", length(max = 15))]
    #[x_kube(validation = Rule::new("self == '' || isIP(self) && ip(self).family() == 4").message("spec.routerID must be written as an IPv4 address"))]
    pub router_id: String,

    /// Selects the nodes that have a session with this router, by their labels. A node must match
    /// at least one selector. Default: all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "selectors::selector_list_schema")]
    pub node_selectors: Vec<LabelSelector>,

    /// The password of the session (TCP-MD5, RFC 2385), at most 80 bytes. Visible to everyone who
    /// may read this object; prefer `passwordSecret`, with which this field is exclusive.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 80))]
    pub password: String,

    /// The Secret that holds the password: type `kubernetes.io/basic-auth`, key `password`. If the
    /// Secret is missing, new sessions are not opened; established sessions continue with the last
    /// password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretReference>,

    /// The name of the BFDProfile for the BFD session with the router. Default: no BFD.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub bfd_profile: String,

    /// True if the router keeps the routes while the BGP daemon of the node restarts (RFC 4724).
    /// Default: false.
    #[serde(default)]
    pub enable_graceful_restart: bool,

    /// True if the router is more than one hop away. For external peers only; exclusive with
    /// `ttlSecurityHops`. Default: false.
    #[serde(rename = "ebgpMultiHop", default)]
    #[schemars(rename = "ebgpMultiHop")]
    pub ebgp_multi_hop: bool,

    /// The number of hops to the router, 1 for a directly connected one, up to 254. Packets from
    /// farther away are dropped (RFC 5082). Default: no check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security_hops: Option<u8>,

    /// True if a session over IPv6 also carries IPv4 routes, and a session over IPv4 also IPv6
    /// routes. Default: false.
    #[serde(default)]
    pub dual_stack_address_family: bool,

    /// Not supported by GoBGP. Accepted so that MetalLB manifests apply; the object becomes
    /// invalid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub vrf: String,

    /// Accepted and ignored, as in MetalLB.
    #[serde(rename = "disableMP", default)]
    #[schemars(rename = "disableMP")]
    pub disable_mp: bool,
}

/// The state of a BGPPeer. Written by the controller.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BGPPeerStatus {
    /// The number of established sessions out of the number of selected nodes that have a gobgpd,
    /// for people: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<String>,
    /// `Valid`: whether the peer is in use as written, and why not. `Established`: whether every
    /// selected node that has a gobgpd has its session, and which nodes do not.
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
