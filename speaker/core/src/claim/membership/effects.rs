//! Effects of the membership on the rest of the claim machine. The types only contain values.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

use crate::claim::Output;

/// Effect of an input on the rest of the claim machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::claim) enum MemberEffect {
    /// The driver must execute this output.
    Output(Output),
    /// The driver must send a liveness probe to a peer.
    Probe {
        node: Arc<str>,
        mac: Mac,
        /// Address that the failed peer has announced.
        announced: Option<IpAddr>,
        /// True if the probe asks for `announced`, and not for an address that the peer claims.
        prefers_announced: bool,
    },
    /// The flags of this node have changed, or whether it may claim addresses.
    OwnStateChanged,
    /// This node must release all its addresses.
    ReleaseAll,
    /// A newcomer has become a peer.
    Joined {
        node: Arc<str>,
        epoch: u64,
        /// State of the earlier epoch of the peer, if it is known.
        before: Option<EarlierEpoch>,
    },
    /// The rank of a peer has changed, or whether the peer is alive.
    PeerChanged(Arc<str>),
    /// A peer was declared failed.
    Failed {
        node: Arc<str>,
        mac: Mac,
        /// Time of its latest frame.
        last_frame: Instant,
        /// True if a device has replied to ARP for the peer.
        arp_replied: bool,
    },
    /// A failed peer has turned out to be alive without a frame of its own.
    Returned(Arc<str>),
    /// A peer has become unheard.
    BecameUnheard {
        node: Arc<str>,
        /// Time of its latest frame.
        last_frame: Instant,
    },
    /// A failed peer, challenged because of an announcement, remains failed.
    RemainsFailed {
        node: Arc<str>,
        mac: Mac,
        /// Address that was announced with the MAC of the peer.
        announced: Option<IpAddr>,
        /// True if a host has replied to ARP with the MAC of the peer.
        arp_replied: bool,
    },
    /// The state of a failed peer was removed.
    Removed(Arc<str>),
}

/// State of a peer at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::claim) struct EarlierEpoch {
    pub(in crate::claim) is_leaving: bool,
    pub(in crate::claim) failed: bool,
}
