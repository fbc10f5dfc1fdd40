//! SpeakerStatus: what one node's speaker sees and does. One object per node, named after it.

use std::net::IpAddr;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Always empty: all there is to know is in the status.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "ferrolb.io",
    version = "v1beta1",
    kind = "SpeakerStatus",
    doc = "The state of one node's speaker. Only that speaker writes it: on change, and once a minute.",
    plural = "speakerstatuses",
    shortname = "fspeaker",
    namespaced,
    status = "SpeakerStatusStatus",
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Addresses", type_ = "integer", json_path = ".status.ownedAddresses"),
    printcolumn(name = "BGP", type_ = "string", json_path = ".status.bgp.established"),
    printcolumn(name = "DataPath", type_ = "string", json_path = ".status.dataPath.state"),
    printcolumn(name = "Failing", type_ = "integer", json_path = ".status.failingServices"),
    printcolumn(name = "Draining", type_ = "boolean", json_path = ".status.draining"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SpeakerStatusSpec {}

/// What the speaker says of itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatusStatus {
    /// The speaker's version.
    #[serde(default)]
    pub version: String,
    /// The links it speaks on, by name.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub links: Vec<LinkStatus>,
    /// Whether this node hands its addresses over.
    #[serde(default)]
    pub draining: bool,
    /// Whether the node can bring traffic to endpoints, as far as its kube-proxy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_path: Option<DataPathStatus>,
    /// The Services of which none of this node's own endpoints of an address family passes its health check, by namespace and name; those of
    /// many that fit.
    #[serde(default)]
    pub failing: Vec<FailingService>,
    /// How many such Services there are.
    #[serde(default)]
    pub failing_services: i64,
    /// Which endpoints are not checked although their Services ask for it, and why, for a person;
    /// empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unchecked: String,
    /// How its gobgpd and its sessions stand; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpStatus>,
    /// How many addresses it announces on its interfaces; one on several interfaces counts once.
    #[serde(default)]
    pub owned_addresses: i64,
}

/// What is known of a node's data path.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPathState {
    /// It has not been asked after for long enough.
    #[default]
    Unknown,
    /// It works.
    Healthy,
    /// It does not: other nodes announce first.
    Unhealthy,
    /// Nothing here or elsewhere answers for a data path: it is not judged.
    NotChecked,
}

/// A node's data path.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DataPathStatus {
    /// What is known.
    pub state: DataPathState,
    /// Why, for a person.
    #[serde(default)]
    pub message: String,
}

/// A Service none of whose endpoints of an address family on the node passes its health check.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailingService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// One of the endpoints, `address:port`; its family is the one that is meant.
    pub endpoint: String,
    /// What its check says.
    pub message: String,
}

/// A node's gobgpd and its sessions.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Why gobgpd cannot be used, or what is not announced for all sessions, for a person; empty: all is well.
    #[serde(default)]
    pub message: String,
    /// How many of the sessions that it should have are established, for a person to read: `2/3`.
    #[serde(default)]
    pub established: String,
    /// Prefixes of which some router is told: 0 once a node that drains has withdrawn all that others announce.
    #[serde(default)]
    pub announced: i64,
    /// Prefixes of which some router is told no longer, because the node drains and other nodes tell it.
    #[serde(default)]
    pub withdrawn: i64,
    /// The sessions that it should have, by the name of their BGPPeer.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["peer".into()]))]
    pub sessions: Vec<BgpSessionStatus>,
}

/// How a BGP session stands (RFC 4271 section 8.2.2).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BgpSessionState {
    /// It rests, or cannot be had.
    #[default]
    Idle,
    /// It waits for a connection.
    Connect,
    /// It tries again to connect.
    Active,
    /// Its OPEN was sent.
    OpenSent,
    /// The router's OPEN was taken.
    OpenConfirm,
    /// Routes are announced over it.
    Established,
}

/// How a BFD session stands (RFC 5880 section 6.2).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BfdState {
    /// It is held down.
    AdminDown,
    /// The router is not heard, or does not hear this node.
    #[default]
    Down,
    /// The router is heard.
    Init,
    /// Both hear each other.
    Up,
}

/// A BGP session of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BgpSessionStatus {
    /// The name of its BGPPeer.
    pub peer: String,
    /// Where the router is; absent until an unnumbered one is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// The router's AS number, as it says it; absent until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// How it stands.
    pub state: BgpSessionState,
    /// Since when it is established, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How the BFD that watches it stands; absent where it has none, and while it is not established.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// How many prefixes the router is announced.
    #[serde(default)]
    pub prefixes: i64,
    /// Why it is not established, or not as its BGPPeer says, for a person.
    #[serde(default)]
    pub message: String,
}

/// One link of a node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The link's name.
    pub name: String,
    /// Its hardware address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Whether it can carry frames.
    pub up: bool,
    /// The nodes whose speakers are heard on it, by name, ascending.
    #[serde(default)]
    pub heard: Vec<String>,
    /// The addresses that the node answers for on it, ascending.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpAddr>,
    /// True if it has received no frame for a second; it then acts as if it were alone.
    #[serde(default)]
    pub deaf: bool,
    /// True if another interface of the node is on the same segment: the node announces there
    /// instead.
    #[serde(default)]
    pub muted: bool,
    /// Addresses that somebody else answers for, or whose questions may not be heard.
    #[serde(default)]
    pub troubles: Vec<LinkTrouble>,
}

/// Why an address is in trouble on a link.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleReason {
    /// A stranger answers for it, whose MAC is no node's.
    AddressConflict,
    /// The kernel of a node answers for it.
    KernelAnswers,
    /// It was taken over although something on the network went on answering for its dead owner.
    AnsweredByProxy,
    /// Questions for it may not reach this node, which holds it: its solicited-node group could not be joined.
    GroupNotJoined,
}

/// An address in trouble.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
pub struct LinkTrouble {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// What the trouble is.
    pub reason: TroubleReason,
    /// The hardware address that answers; where it is about a group, the group's.
    pub mac: String,
    /// The node whose kernel it is, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}
