//! The words that speakers exchange on a wire: one signed frame format of our own EtherType (docs/adr/0003-hello-frames.md).
//!
//! After the Ethernet header, all numbers big endian, all lengths in bytes:
//!
//! ```text
//!  0        1        2                 4                                   8
//!  | version | kind   | flags           | key id                            |
//!  | boot epoch (random, new at every start)                                |  8
//!  | sequence of multicast frames      | hello interval, ms | length of TLVs | 16
//!  | the sender's monotonic clock, ns                                       | 24
//!  | TLVs: type u16, length u16, value …                                    | 32
//!  | HMAC-SHA256 over all before it, truncated to 16 bytes                  |
//! ```
//!
//! What follows the signature is Ethernet padding. Unknown TLVs are skipped, so versions that differ by one understand
//! each other.

mod codec;
mod keys;

use std::net::IpAddr;
use std::time::Duration;

pub use codec::{ADDRESSES_PER_FRAME_MAX, DecodeError, FRAME_MAX};
pub use keys::{KEY_LENGTH, Key, KeyRing};

use super::Mac;

/// EtherType of the hello protocol: IEEE 802 local experimental 1.
pub const ETHER_TYPE: u16 = 0x88B5;
/// The group address that all speakers listen to: a locally administered multicast MAC.
pub const GROUP: Mac = Mac([0x03, b'F', b'L', b'B', 0, 1]);
/// The version that we speak; frames of this one and the next are understood.
pub const VERSION: u8 = 1;
/// The longest node name in a frame, in bytes (`metadata.name` of a Node, RFC 1123).
pub const NODE_MAX: usize = 253;

/// What the sender says of itself in every frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flags {
    /// It is about to stop and claims nothing.
    pub leaving: bool,
    /// Its node is being drained.
    pub draining: bool,
    /// Its data path is not healthy.
    pub unhealthy: bool,
    /// It was frozen too often of late.
    pub unstable: bool,
    /// It started, came back or was alone a short while ago.
    pub fresh: bool,
    /// It hears nothing.
    pub deaf: bool,
    /// Its data path was asked after and works: such a check means something in this cluster.
    pub checked: bool,
}

/// Why a speaker stops answering for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Another one has it, or nobody should: I stay a candidate.
    HandedOver,
    /// Count me out for a while, or until I claim it.
    Refused,
    /// As refused; and nobody should claim it for a while, because a host that is none of us uses it.
    Contested,
}

/// What a hello says of the addresses that its sender may announce, and for which its endpoints all fail their health check: all of them, or
/// a stretch of the list. Of that stretch it replaces all that was said before: who is not named does not fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// Ascending, at most [`ADDRESSES_PER_FRAME_MAX`].
    pub addresses: Vec<IpAddr>,
    /// The stretch begins with the first of these: of addresses before it nothing is said.
    pub more_before: bool,
    /// The stretch ends with the last of these: of addresses after it nothing is said.
    pub more_after: bool,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// I am here, and hold the claim set of this generation (0: none). Multicast, periodic.
    Hello {
        /// Generation of the sender's claim set.
        generation: u32,
        /// Ids of the keys it accepts.
        accepts: Vec<u32>,
        /// For which addresses health checks fail at the sender.
        failing: Failing,
    },
    /// I answer for these addresses from now on. Multicast.
    Claim {
        /// Generation of the claim set before this frame.
        before: u32,
        /// Generation after it.
        generation: u32,
        /// The addresses added.
        addresses: Vec<IpAddr>,
        /// How long each is best left with the sender, whoever is better by order alone, in units of 10 ms up to 655 s. Addresses
        /// without one are free to go.
        keeps: Vec<Duration>,
    },
    /// I no longer answer for these addresses. Multicast.
    Release {
        /// Generation of the claim set before this frame.
        before: u32,
        /// Generation after it.
        generation: u32,
        /// The addresses given up.
        addresses: Vec<IpAddr>,
        /// Why.
        why: Release,
    },
    /// Do you live? Unicast.
    Challenge {
        /// To be returned.
        nonce: u64,
    },
    /// I do. Unicast.
    Answer {
        /// The challenge's nonce.
        nonce: u64,
    },
    /// Tell me your whole claim set. Unicast.
    Ask,
    /// One part of my whole claim set; what is in no part I do not claim. Unicast or multicast.
    List {
        /// Generation of the claim set.
        generation: u32,
        /// This part, from 0.
        part: u16,
        /// How many parts there are.
        parts: u16,
        /// The addresses of this part.
        addresses: Vec<IpAddr>,
        /// As in a claim, for the addresses of this part.
        keeps: Vec<Duration>,
    },
}

impl Body {
    /// Whether frames of this kind go to the group and carry a sequence number of their own.
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::Claim { .. } | Self::Release { .. })
    }
}

/// One frame, without its Ethernet header and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender's Node name, at most [`NODE_MAX`] bytes.
    pub node: Box<str>,
    /// Random at every start of the sender.
    pub epoch: u64,
    /// Number of multicast frames the sender has sent in this epoch, this one included.
    pub sequence: u32,
    /// The sender's monotonic clock, in nanoseconds.
    pub clock: u64,
    /// The hello interval that the sender keeps, in whole milliseconds up to 65,535.
    pub interval: Duration,
    /// What the sender says of itself.
    pub flags: Flags,
    /// What the frame says.
    pub body: Body,
}

#[cfg(test)]
mod tests;
