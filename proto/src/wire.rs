//! Frame formats of the network segment: Ethernet, ARP, NDP and the hello protocol. Pure functions,
//! used by the speaker's interface threads and by the simulator.

pub mod arp;
pub mod hello;
pub mod ndp;

use std::fmt;

/// A hardware address (IEEE 802 MAC-48).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address, which reaches all hosts on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The address of no host. An ARP request carries it as target, because the target's MAC is
    /// unknown.
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Length of an untagged Ethernet header, in bytes: destination, source, EtherType.
pub const ETHERNET_HEADER_LENGTH: usize = 14;

/// Writes an Ethernet header (IEEE 802.3) to the front of `frame`.
pub fn write_ethernet_header(frame: &mut [u8], destination: Mac, source: Mac, ether_type: u16) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..ETHERNET_HEADER_LENGTH].copy_from_slice(&ether_type.to_be_bytes());
}
