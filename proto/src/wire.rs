//! Frames on the local network: their formats, and nothing else. The speaker's link threads and the simulator use them.

pub mod arp;
pub mod hello;
pub mod ndp;

use std::fmt;

/// A hardware address (IEEE 802 MAC-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All hosts on the wire.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No host: the unknown target of an ARP request.
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Length of an untagged Ethernet header, in bytes: destination, source, EtherType.
pub const ETHERNET_HEADER: usize = 14;

/// Writes an Ethernet header (IEEE 802.3) to the front of `frame`.
pub(crate) fn ethernet(frame: &mut [u8], destination: Mac, source: Mac, ether_type: u16) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..ETHERNET_HEADER].copy_from_slice(&ether_type.to_be_bytes());
}
