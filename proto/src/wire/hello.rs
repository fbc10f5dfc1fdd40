//! Hello protocol between speakers on a network segment: one signed frame format with its own
//! EtherType (docs/internals/adr/0003-ownership.md). The types only contain values.
//!
//! Layout after the Ethernet header; all numbers are big endian, all lengths in bytes:
//!
//! ```text
//!  0        1        2                 4                                   8
//!  | version | kind   | flags           | key id                            |
//!  | boot epoch (random, new at every start)                                |  8
//!  | the sender's monotonic clock, ns                                       | 16
//!  | claim set: change counter         | claim set: number of addresses     | 24
//!  | claim set: digest                                                      | 32
//!  | hello interval, ms | length of TLVs | TLVs: type u16, length u16, value … 40
//!  | HMAC-SHA256 over all before it, truncated to 16 bytes                  |
//! ```
//!
//! A datagram of the second path (UDP) contains the same bytes, without an Ethernet header.
//!
//! Bytes after the signature are Ethernet padding. Unknown TLVs are skipped, so versions that
//! differ by one are compatible.

mod claim_set;
mod codec;
mod keys;

use std::net::IpAddr;
use std::time::Duration;

pub use claim_set::{Claim, ClaimRank, ClaimSetSummary, Stretch};
pub use codec::{ADDRESSES_PER_FRAME_MAX, DATAGRAM_MAX, FRAME_MAX, HelloDecodeError};
pub use keys::{HelloKey, HelloKeyRing, KEY_LENGTH};

use super::Mac;

/// EtherType of the hello protocol: IEEE 802 local experimental 1.
pub const ETHER_TYPE: u16 = 0x88B5;
/// Group address of all speakers: a locally administered multicast MAC.
pub const GROUP: Mac = Mac([0x03, b'F', b'L', b'B', 0, 1]);
/// Version of the frames that this speaker sends. Received frames may differ by one version.
pub const VERSION: u8 = 2;
/// Maximum length of a node name in a frame, in bytes (`metadata.name` of a Node, RFC 1123).
pub const NODE_NAME_MAX: usize = 253;
/// Maximum number of other speakers that a speaker tracks on one segment. It ignores and counts the
/// frames of further ones.
pub const PEERS_MAX: usize = 2048;
/// Maximum number of claims of one speaker that others track. They ignore and count further claims.
pub const CLAIMS_PER_PEER_MAX: usize = 65_536;

/// State of the sender, which every frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flags {
    /// True if the sender is about to stop, or its main loop is stalled. The sender makes no new
    /// claims.
    pub leaving: bool,
    /// True if the sender's node has an announcement drain, and therefore hands over its addresses.
    pub draining: bool,
    /// True if kube-proxy on the sender's node is unhealthy.
    pub unhealthy: bool,
    /// True if the sender's node is in preempt delay, because it has recently started, recovered,
    /// or been without peers.
    pub in_preempt_delay: bool,
    /// True if the sender receives no frames on this interface.
    pub isolated: bool,
    /// True if kube-proxy on the sender's node was checked and is healthy. Other speakers conclude
    /// that kube-proxy can be checked in this cluster.
    pub health_checked: bool,
}

/// Contents of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Periodic proof that the sender runs. Multicast.
    Hello {
        /// IDs of the keys that the sender accepts.
        accepted_keys: Vec<u32>,
    },
    /// The sender owns these addresses from now on, with these ranks, at most
    /// [`ADDRESSES_PER_FRAME_MAX`]. Multicast.
    Claim(Vec<Claim>),
    /// The sender has stopped announcing these addresses. Multicast.
    Release {
        /// Released addresses, at most [`ADDRESSES_PER_FRAME_MAX`].
        addresses: Vec<IpAddr>,
        /// True if a foreign host uses the addresses, so that no node should claim them for a
        /// while.
        contested: bool,
    },
    /// Challenge: the receiver must respond at once, to prove that it runs. Unicast.
    Challenge {
        /// Random number that the challenge response must repeat.
        nonce: u64,
    },
    /// Challenge response. Unicast.
    ChallengeReply {
        /// Nonce of the challenge.
        nonce: u64,
    },
    /// Requests the whole claim set of the receiver. Unicast.
    ListRequest,
    /// One stretch of the sender's claim set. Multicast.
    List(Stretch),
    /// According to the sender's view of the Kubernetes API, the receiver may not announce these
    /// addresses that it owns, at most [`ADDRESSES_PER_FRAME_MAX`]. Unicast.
    Doubt(Vec<IpAddr>),
    /// Response to a challenge that arrived by the second path. Only by the second path.
    PathReport {
        /// Nonce of the challenge.
        nonce: u64,
        /// Facts about the frames between the sender and the segment.
        report: PathReport,
    },
    /// Message between a speaker that watches a node and the speaker of that node. Only by the
    /// second path.
    NodeWatch(NodeWatch),
}

/// Message between a speaker that watches a node and the speaker of that node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeWatch {
    /// Challenge of the watching speaker, with a nonce that the reply must repeat.
    Challenge(u64),
    /// Reply to the challenge with this nonce. With [`Flags::leaving`], it announces that the
    /// sender's speaker stops.
    Reply(u64),
}

/// Facts by which the challenger decides whether the sender still exchanges frames with the
/// segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathReport {
    /// True if the sender has just received a frame of the challenger on the segment.
    pub receives: bool,
    /// True if the sender has replied to an ARP request or a neighbor solicitation of the
    /// challenger since the challenge.
    pub has_replied: bool,
    /// True if a node or host on the segment has replied to a request of the sender since the
    /// challenge.
    pub is_received: bool,
}

impl PathReport {
    /// Returns the facts of two reports for the same challenge, which may arrive in any order.
    #[must_use]
    pub const fn merged_with(self, other: Self) -> Self {
        Self {
            receives: self.receives || other.receives,
            has_replied: self.has_replied || other.has_replied,
            is_received: self.is_received || other.is_received,
        }
    }

    /// Returns whether a peer with this report still exchanges frames with the segment.
    /// `arp_replied` is true if an ARP reply with the peer's MAC has arrived. A device may send
    /// such a reply for an absent peer, so it counts only if the peer has sent one.
    #[must_use]
    pub const fn proves_exchange(self, arp_replied: bool) -> bool {
        (self.receives && self.is_received) || (self.has_replied && arp_replied)
    }
}

impl Body {
    /// Returns the claims in the frame.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        if let Self::Claim(claims) | Self::List(Stretch { claims, .. }) = self {
            claims
        } else {
            &[]
        }
    }
}

/// One frame, without its Ethernet header and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Node name of the sender, at most [`NODE_NAME_MAX`] bytes.
    pub node: Box<str>,
    /// Random number that the sender chooses at every start.
    pub epoch: u64,
    /// The sender's monotonic clock, in nanoseconds.
    pub clock: u64,
    /// Summary of the sender's claim set after this frame.
    pub claim_set: ClaimSetSummary,
    /// Hello interval that the sender will not exceed, in whole milliseconds up to 65,535.
    pub interval: Duration,
    /// Time after the sender's latest frame before which no receiver declares the sender failed, in
    /// whole milliseconds (the Detection Time of RFC 5880 section 6.8.4). `None` if the sender's
    /// version does not state the time: it then follows from the interval.
    pub detection_time: Option<Duration>,
    /// State of the sender.
    pub flags: Flags,
    /// Contents of the frame.
    pub body: Body,
}

#[cfg(test)]
mod tests;
