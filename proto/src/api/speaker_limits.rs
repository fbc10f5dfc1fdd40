//! Limits of a SpeakerStatus. Each speaker may write only its own object, but conditions of all
//! Services repeat parts of it. The speaker cuts its status to these limits before it writes the
//! status, the CRD refuses a longer one, and the decoder cuts what an older CRD has accepted.

use super::speaker_status::{BgpStatus, InterfaceStatus, SpeakerStatusStatus};
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
/// Maximum number of failing health checks: 500 Services of two families.
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

impl SpeakerStatusStatus {
    /// Cuts lists and texts to the limits of the CRD.
    #[must_use]
    pub fn cut(mut self) -> Self {
        cut(&mut self.version, WORD_MAX);
        self.interfaces.truncate(INTERFACES_MAX);
        self.interfaces.iter_mut().for_each(InterfaceStatus::cut);
        if let Some(path) = &mut self.data_path {
            cut(&mut path.message, MESSAGE_MAX);
        }
        self.failing_health_checks.truncate(FAILING_MAX);
        for failing in &mut self.failing_health_checks {
            cut(&mut failing.namespace, NAME_MAX);
            cut(&mut failing.name, NAME_MAX);
            cut(&mut failing.endpoint, ENDPOINT_LENGTH_MAX);
            cut(&mut failing.message, MESSAGE_MAX);
        }
        cut(&mut self.unchecked, MESSAGE_MAX);
        if let Some(bgp) = &mut self.bgp {
            bgp.cut();
        }
        self.watched_nodes.truncate(WATCHED_MAX);
        self.watched_nodes.iter_mut().for_each(|watched| cut(&mut watched.node, NAME_MAX));
        self.host_addresses.truncate(HOST_ADDRESSES_MAX);
        self.gateways.truncate(GATEWAYS_MAX);
        self
    }
}

impl InterfaceStatus {
    fn cut(&mut self) {
        cut(&mut self.name, INTERFACE_NAME_MAX);
        cut(&mut self.mac, MAC_LENGTH);
        for nodes in [&mut self.heard, &mut self.unheard] {
            nodes.truncate(NODES_MAX);
            nodes.iter_mut().for_each(|node| cut(node, NAME_MAX));
        }
        self.addresses.truncate(ADDRESSES_MAX);
        self.subnets.truncate(SUBNETS_MAX);
        self.subnets.iter_mut().for_each(|subnet| cut(subnet, SUBNET_LENGTH_MAX));
        self.issues.truncate(INTERFACE_ISSUES_MAX);
        for issue in &mut self.issues {
            cut(&mut issue.mac, MAC_LENGTH);
            if let Some(node) = &mut issue.node {
                cut(node, NAME_MAX);
            }
        }
    }
}

impl BgpStatus {
    fn cut(&mut self) {
        cut(&mut self.established, WORD_MAX);
        self.sessions.truncate(SESSIONS_MAX);
        for session in &mut self.sessions {
            cut(&mut session.peer, NAME_MAX);
            if let Some(since) = &mut session.since {
                cut(since, WORD_MAX);
            }
        }
        let of_sessions = self.sessions.iter_mut().map(|session| &mut session.issues);
        for issues in of_sessions.chain([&mut self.issues]) {
            issues.truncate(BGP_ISSUES_MAX);
            for issue in issues {
                cut(&mut issue.reason, WORD_MAX);
                cut(&mut issue.message, MESSAGE_MAX);
            }
        }
    }
}

/// Cuts a text to a number of characters.
fn cut(text: &mut String, characters_max: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters_max) {
        text.truncate(end);
    }
}
