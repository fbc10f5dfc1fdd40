//! Counters of sessions in gobgpd, for the metrics.

use gobgp_proto as api;

/// Counters of one session in gobgpd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Numbers of messages received, by type.
    pub received: api::Message,
    /// Numbers of messages sent, by type.
    pub sent: api::Message,
    /// Number of prefixes that the router has sent and gobgpd keeps in memory.
    pub received_prefixes: u64,
    /// State and counters of the BFD session, if the BGPPeer configures BFD.
    pub bfd: Option<BfdCounts>,
}

/// State and counters of a BFD session in gobgpd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdCounts {
    /// True if the BFD session is up.
    pub up: bool,
    /// Number of control packets received.
    pub received: u64,
    /// Number of control packets sent.
    pub sent: u64,
}

/// Returns the message counters of a session, and the counters of its BFD if BFD is configured.
pub(super) fn session_counts(observed: &api::Peer, desired: &api::Peer) -> SessionCounts {
    let peer_state = observed.state.clone().unwrap_or_default();
    let messages = peer_state.messages.unwrap_or_default();
    let bfd = |state: api::BfdPeerState| {
        let packets = state.bfd_async.unwrap_or_default();
        let up = state.session_state() == api::BfdSessionState::Up;
        BfdCounts { up, received: packets.received_packets, sent: packets.transmitted_packets }
    };
    SessionCounts {
        received: messages.received.unwrap_or_default(),
        sent: messages.sent.unwrap_or_default(),
        received_prefixes: received_prefix_count(observed),
        // gobgpd reports a BFD state for sessions without BFD, too.
        bfd: peer_state.bfd_state.filter(|_| desired.bfd.is_some()).map(bfd),
    }
}

/// Returns the number of prefixes that a router has sent.
pub(super) fn received_prefix_count(observed: &api::Peer) -> u64 {
    observed.afi_safis.iter().filter_map(|family| family.state).map(|state| state.received).sum()
}
