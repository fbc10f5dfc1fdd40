//! SpeakerStatus: the state of one node's speaker. One object per node, with the name of the node.

mod truncation;

use std::net::IpAddr;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::speaker_limits::{
    ADDRESSES_MAX, BGP_ISSUES_MAX, ENDPOINT_LENGTH_MAX, FAILING_MAX, GATEWAYS_MAX,
    HOST_ADDRESSES_MAX, INTERFACE_ISSUES_MAX, INTERFACE_NAME_MAX, INTERFACES_MAX, MAC_LENGTH,
    MESSAGE_MAX, NAME_MAX, NODES_MAX, SESSIONS_MAX, SUBNET_LENGTH_MAX, SUBNETS_MAX, WATCHED_MAX,
    WORD_MAX,
};

/// Always empty; the status holds everything.
#[derive(
    CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq,
)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "SpeakerStatus",
    doc = "The state of the speaker of one node. The speaker writes it on each change and once a minute.",
    plural = "speakerstatuses",
    shortname = "fspeaker",
    category = "ferrolb",
    namespaced,
    status = "SpeakerStatusStatus",
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Owned", type_ = "integer", json_path = ".status.ownedAddresses"),
    printcolumn(name = "BGP", type_ = "string", json_path = ".status.bgp.established"),
    printcolumn(name = "DataPath", type_ = "string", json_path = ".status.dataPath.state"),
    printcolumn(name = "Failing Checks", type_ = "integer", json_path = ".status.failingServices"),
    printcolumn(name = "Draining", type_ = "boolean", json_path = ".status.draining"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.interfaces[*].issues[*].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SpeakerStatusSpec {}

/// The state of a speaker and its node, as that speaker reports it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatusStatus {
    /// The version of the speaker.
    #[serde(default)]
    #[schemars(length(max = WORD_MAX))]
    pub version: String,
    /// The interfaces that the speaker uses, by name.
    #[serde(default)]
    #[schemars(length(max = INTERFACES_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub interfaces: Vec<InterfaceStatus>,
    /// True if this node hands over its addresses to other nodes.
    #[serde(default)]
    pub draining: bool,
    /// The health of kube-proxy on this node: whether the node can forward traffic to endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_path: Option<KubeProxyStatus>,
    /// The Services of which no endpoint of one address family on this node passes its health
    /// check, by namespace and name. A list that would be too long is truncated.
    #[serde(default)]
    #[schemars(length(max = FAILING_MAX))]
    pub failing_health_checks: Vec<FailingService>,
    /// The number of Services of which no endpoint of one address family on this node passes its
    /// health check.
    #[serde(default)]
    pub failing_services: i64,
    /// The Services with endpoints of one address family on this node that are not checked although
    /// the Service requests it, by namespace and name. A list that would be too long is truncated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = FAILING_MAX))]
    pub unchecked_health_checks: Vec<UncheckedService>,
    /// The number of Services with such endpoints.
    #[serde(default)]
    pub unchecked_services: i64,
    /// The state of gobgpd and of the BGP sessions. Absent on nodes without gobgpd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpStatus>,
    /// The number of addresses that the node announces on its interfaces. An address on several
    /// interfaces counts once.
    #[serde(default)]
    pub owned_addresses: i64,
    /// The nodes that this node watches, by name, to detect their failure. Each node is watched by
    /// up to three others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = WATCHED_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["node".into()]))]
    pub watched_nodes: Vec<WatchedNode>,
    /// The addresses of all interfaces of the node, ascending, without loopback and link-local
    /// ones, and without those of interfaces that hold addresses of Services: `kube-ipvs0`,
    /// `kube-dummy-if` and `kube-lb0`. At most 64. No Service gets one of them. A Service that had
    /// one before keeps it, and Services without a request can share it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = HOST_ADDRESSES_MAX))]
    pub host_addresses: Vec<IpAddr>,
    /// The default gateways of the node, ascending, without link-local ones. At most 8. No Service
    /// gets one of them. A Service that had one before keeps it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>", length(max = GATEWAYS_MAX))]
    pub gateways: Vec<IpAddr>,
}

/// A node that another node watches.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WatchedNode {
    /// The name of the watched node.
    #[schemars(length(max = NAME_MAX))]
    pub node: String,
    /// The state of the watched node.
    pub state: WatchedNodeState,
    /// True if neither its speaker nor the port of its kubelet replies after its speaker has
    /// reported that it stops: in the state `Leaving`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// The state of a watched node, as the watching speaker sees it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedNodeState {
    /// Its speaker replies: by UDP, or on an interface.
    Replies,
    /// Its speaker has reported that it stops, and has not replied since.
    Leaving,
    /// Its speaker does not reply, but the node replies at the port of its kubelet.
    SpeakerSilent,
    /// Its speaker does not reply, and this node could not reach the port of its kubelet before
    /// either, so that nothing follows.
    Unknown,
    /// Neither its speaker nor the port of its kubelet replies, on any path.
    Silent,
}

/// The health of kube-proxy on a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KubeProxyState {
    /// No result yet: kube-proxy has not been checked for long enough.
    #[default]
    Unknown,
    /// kube-proxy works.
    Healthy,
    /// kube-proxy does not work: other nodes are preferred.
    Unhealthy,
    /// Not checked: checks are off, or no node has had a healthy kube-proxy for two minutes.
    NotChecked,
}

/// The health of kube-proxy on a node, and why.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxyStatus {
    /// The health.
    pub state: KubeProxyState,
    /// The reason of the state, for people.
    #[serde(default)]
    #[schemars(length(max = MESSAGE_MAX))]
    pub message: String,
    /// The time of the latest good check, in RFC 3339 format, if kube-proxy has worked on the node
    /// and does not work any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = WORD_MAX))]
    pub last_healthy: Option<String>,
}

/// A Service of which no endpoint of one address family on this node passes its health check.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailingService {
    /// The namespace of the Service.
    #[schemars(length(max = NAME_MAX))]
    pub namespace: String,
    /// The name of the Service.
    #[schemars(length(max = NAME_MAX))]
    pub name: String,
    /// One of the failing endpoints, `address:port`. Its family is the one that fails.
    #[schemars(length(max = ENDPOINT_LENGTH_MAX))]
    pub endpoint: String,
    /// The reason of the failure, for people.
    #[schemars(length(max = MESSAGE_MAX))]
    pub message: String,
}

/// The reason why a speaker does not check an endpoint.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum UncheckedReason {
    /// The flag `--health-checks` of the speaker is off.
    Off,
    /// The address is in no range that health checks may contact, and no route of the node shows
    /// that it belongs to one of its own pods. `--health-checks` adds ranges.
    OutsideRanges,
    /// Health checks never contact the address: it is one of a Node, of the API server, or a
    /// loopback, link-local or multicast address.
    Excluded,
    /// The EndpointSlice has no TCP port with the name of the checked one.
    NoPort,
    /// The speaker already checks the maximum number of endpoints.
    TooMany,
}

/// A Service with endpoints of one address family on this node that are not checked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UncheckedService {
    /// The namespace of the Service.
    #[schemars(length(max = NAME_MAX))]
    pub namespace: String,
    /// The name of the Service.
    #[schemars(length(max = NAME_MAX))]
    pub name: String,
    /// The first of the endpoints with this reason. Its family is that of the counted endpoints.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The reason. If endpoints have different reasons, the first in the order of the values.
    pub reason: UncheckedReason,
    /// The number of endpoints that are not checked, whatever the reason.
    pub unchecked: i64,
    /// The number of eligible endpoints.
    pub endpoints: i64,
}

/// The state of gobgpd and of the BGP sessions of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Why gobgpd is unavailable, or why some prefixes are not advertised to any router. Empty
    /// while there is no such issue.
    #[serde(default)]
    #[schemars(length(max = BGP_ISSUES_MAX))]
    pub issues: Vec<SpeakerIssue>,
    /// The number of established sessions out of the number of configured ones, for people: `2/3`.
    #[serde(default)]
    #[schemars(length(max = WORD_MAX))]
    pub established: String,
    /// The number of prefixes that the node advertises to at least one router.
    #[serde(default)]
    pub announced: i64,
    /// The sessions that the node should have, by the name of their BGPPeer.
    #[serde(default)]
    #[schemars(length(max = SESSIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["peer".into()]))]
    pub sessions: Vec<BgpSessionStatus>,
}

/// An issue of a node, for people and for programs.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerIssue {
    /// The kind of the issue, in CamelCase.
    #[schemars(length(max = WORD_MAX))]
    pub reason: String,
    /// A description of the issue and the next step.
    #[schemars(length(max = MESSAGE_MAX))]
    pub message: String,
}

/// Reason of a session's issue: its BGPPeer names a Secret that holds no usable password.
pub const PASSWORD_UNAVAILABLE: &str = "PasswordUnavailable";

/// The state of a BGP session (RFC 4271 section 8.2.2).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BgpSessionState {
    /// No connection is attempted, for example between two attempts or because the session cannot
    /// be configured.
    #[default]
    Idle,
    /// Waits for a TCP connection.
    Connect,
    /// Retries the TCP connection.
    Active,
    /// The node has sent its OPEN.
    OpenSent,
    /// The node has accepted the router's OPEN.
    OpenConfirm,
    /// The session carries routes.
    Established,
}

/// The state of a BFD session (RFC 5880 section 6.2).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BfdState {
    /// Held down administratively.
    AdminDown,
    /// No packets arrive from the router, or the router reports that it receives none from this
    /// node.
    #[default]
    Down,
    /// Packets arrive from the router, which has not confirmed yet that it receives packets from
    /// this node.
    Init,
    /// Both sides receive each other's packets.
    Up,
}

/// A BGP session of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BgpSessionStatus {
    /// The name of the BGPPeer.
    #[schemars(length(max = NAME_MAX))]
    pub peer: String,
    /// The IP address of the router. Absent until the router of an unnumbered session is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// The AS number that the router sent. Absent until the router has sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// The state of the session.
    pub state: BgpSessionState,
    /// The time since which the session is established, in RFC 3339 format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = WORD_MAX))]
    pub since: Option<String>,
    /// The state of the BFD session with the router. Absent if there is none, and while the BGP
    /// session is not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// The number of prefixes that are advertised to the router.
    #[serde(default)]
    pub prefixes: i64,
    /// Why the session is not established, or differs from its BGPPeer. Empty while there is no
    /// issue.
    #[serde(default)]
    #[schemars(length(max = BGP_ISSUES_MAX))]
    pub issues: Vec<SpeakerIssue>,
}

/// An interface of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceStatus {
    /// The name of the interface.
    #[schemars(length(max = INTERFACE_NAME_MAX))]
    pub name: String,
    /// The hardware address of the interface, `aa:bb:cc:dd:ee:ff`.
    #[schemars(length(max = MAC_LENGTH))]
    pub mac: String,
    /// True if the interface is up and can carry frames.
    pub up: bool,
    /// The names of the nodes with whose speakers the interface is in contact, ascending.
    #[serde(default)]
    #[schemars(length(max = NODES_MAX), inner(length(max = NAME_MAX)))]
    pub heard: Vec<String>,
    /// The names of the nodes in `heard` whose speakers run, but whose hellos do not arrive on the
    /// interface, ascending. A packet filter or a switch drops the frames.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = NODES_MAX), inner(length(max = NAME_MAX)))]
    pub unheard: Vec<String>,
    /// The addresses that the node announces on the interface, ascending.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = ADDRESSES_MAX))]
    pub addresses: Vec<IpAddr>,
    /// The subnets of the interface, such as `192.168.1.0/24`, ascending, without link-local ones.
    /// At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = SUBNETS_MAX), inner(length(max = SUBNET_LENGTH_MAX)))]
    pub subnets: Vec<String>,
    /// True if the interface has no IPv6 address, usually because IPv6 is disabled on it. The node
    /// announces no IPv6 addresses there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6_disabled: bool,
    /// True if the interface has received no frame for 0.42 s. After a second, the node acts as if
    /// it were alone on the segment.
    #[serde(default)]
    pub isolated: bool,
    /// True if another interface of the node is on the same segment. The node announces on that
    /// one.
    #[serde(default)]
    pub standby: bool,
    /// Present if hellos of the node were late in the last minutes, because it is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_hellos: Option<LateHellos>,
    /// Addresses for which another host replies, or for which requests may not arrive.
    #[serde(default)]
    #[schemars(length(max = INTERFACE_ISSUES_MAX))]
    pub issues: Vec<InterfaceIssue>,
}

/// Late hellos of a busy node. The times are rounded up in steps.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LateHellos {
    /// The time by which hellos were late at most.
    pub milliseconds: u32,
    /// The time until other nodes declare this node failed, for this reason.
    pub detection_milliseconds: u32,
}

/// The kind of an issue of an address on an interface.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum InterfaceIssueReason {
    /// A foreign host replies for the address: its MAC belongs to no node.
    AddressConflict,
    /// The kernel of a node replies for the address.
    KernelAnswers,
    /// Another node also uses the address, but its hellos do not arrive: a packet filter or a
    /// switch drops frames of EtherType 0x88B5.
    HellosFiltered,
    /// The address was taken over while another device on the segment still replied for its failed
    /// owner.
    StaleNeighborProxy,
    /// Requests for the address may not reach this node, its owner, because the solicited-node
    /// multicast group could not be joined.
    MulticastJoinFailed,
}

/// An issue of an address on an interface.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct InterfaceIssue {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The kind of the issue.
    pub reason: InterfaceIssueReason,
    /// The hardware address that replies. With `MulticastJoinFailed`, the hardware address of the
    /// group.
    #[schemars(length(max = MAC_LENGTH))]
    pub mac: String,
    /// The node that the issue is about, if it is about a node: for example, the node whose kernel
    /// replies for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NAME_MAX))]
    pub node: Option<String>,
}
