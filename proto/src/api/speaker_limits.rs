//! Limits of a SpeakerStatus. Each speaker may write only its own object, but conditions of all
//! Services repeat parts of it. The speaker cuts its status to these limits before it writes the
//! status, the CRD refuses a longer one, and the decoder cuts what an older CRD has accepted.

use crate::wire::hello::{CLAIMS_PER_PEER_MAX, PEERS_MAX};

/// Maximum number of interfaces of a node.
pub(super) const INTERFACES_MAX: usize = 1_024;
/// Maximum length of an interface's name in Linux.
pub(super) const INTERFACE_NAME_MAX: usize = 15;
/// Length of a hardware address.
pub(super) const MAC_LENGTH: usize = 17;
/// Maximum number of nodes with which an interface is in contact.
pub(super) const NODES_MAX: usize = PEERS_MAX;
/// Maximum length of the name of an object.
pub(super) const NAME_MAX: usize = 253;
/// Maximum number of addresses that a node announces on an interface.
pub(super) const ADDRESSES_MAX: usize = CLAIMS_PER_PEER_MAX;
/// Maximum number of subnets of an interface.
pub const SUBNETS_MAX: usize = 64;
/// Maximum length of a subnet.
pub(super) const SUBNET_LENGTH_MAX: usize = 43;
/// Maximum number of issues of an interface.
pub(super) const INTERFACE_ISSUES_MAX: usize = 4_096;
/// Maximum number of failing health checks, and of unchecked ones: 500 Services of two families.
pub(super) const FAILING_MAX: usize = 1_000;
/// Maximum length of an endpoint, `[address]:port`.
pub(super) const ENDPOINT_LENGTH_MAX: usize = 53;
/// Maximum number of BGP sessions of a node.
pub(super) const SESSIONS_MAX: usize = 1_024;
/// Maximum number of issues of a session, or of gobgpd.
pub(super) const BGP_ISSUES_MAX: usize = 16;
/// Maximum number of nodes that a node watches.
pub(super) const WATCHED_MAX: usize = 16;
/// Maximum number of addresses of the node's interfaces.
pub const HOST_ADDRESSES_MAX: usize = 64;
/// Maximum number of default gateways of the node.
pub const GATEWAYS_MAX: usize = 8;
/// Maximum length of a message, in characters.
pub(super) const MESSAGE_MAX: usize = 1_024;
/// Maximum length of a version, a time, a count or a reason.
pub(super) const WORD_MAX: usize = 64;
