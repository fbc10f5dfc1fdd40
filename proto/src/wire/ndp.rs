//! Neighbor Discovery over Ethernet (RFC 4861; duplicate address detection RFC 4862): who has an IPv6 address. No allocation:
//! this is the answer path.
//!
//! Headers are read by `pnet_packet`; options are not, because its parser panics on hostile lengths. A message that RFC 4861
//! sections 7.1.1 and 7.1.2 tell a host to discard silently is no message here.

use std::net::Ipv6Addr;

use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::ndp::{NeighborAdvertPacket, NeighborSolicitPacket};
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types, checksum};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;

use super::{ETHERNET_HEADER, Mac, ethernet};

/// EtherType of IPv6.
pub const ETHER_TYPE: u16 = 0x86dd;
/// Length of an IPv6 header, in bytes.
const IPV6_HEADER: usize = 40;
/// Length of a solicitation or advertisement before its options, in bytes.
const BARE: usize = 24;
/// Length of the option that names a hardware address, in bytes.
const OPTION: usize = 8;
/// Length of a frame with that option, in bytes.
pub const FRAME: usize = ETHERNET_HEADER + IPV6_HEADER + BARE + OPTION;
/// Length of a frame without options, in bytes.
pub const DAD_FRAME: usize = FRAME - OPTION;
/// What a router on the way would have lowered (RFC 4861 section 3.1): who sends with it is on this wire.
const HOP_LIMIT: u8 = 255;
/// All nodes on the wire.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The option of a solicitation that says where its sender is.
const SOURCE_LINK_LAYER: u8 = 1;
/// The option of an advertisement that says where its target is.
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Flag S of an advertisement: it answers.
const SOLICITED: u8 = 0x40;
/// Flag O of an advertisement: it replaces what caches have.
const OVERRIDE: u8 = 0x20;

/// What a message says (RFC 4861 sections 4.3 and 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has the target address?
    Solicitation,
    /// The target address is here.
    Advertisement {
        /// It answers a question (flag S).
        solicited: bool,
        /// It replaces what caches have (flag O).
        overrides: bool,
    },
}

/// The fields of a message that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ndp {
    /// Source of the Ethernet header: where an answer goes.
    pub source: Mac,
    /// Question or answer.
    pub kind: Kind,
    /// Source of the IPv6 header; unspecified in duplicate address detection.
    pub sender: Ipv6Addr,
    /// The address that is asked for, or told of.
    pub target: Ipv6Addr,
    /// Where the sender of a solicitation, or the target of an advertisement, is by the message's own word: the first such option.
    pub mac: Option<Mac>,
}

impl Ndp {
    /// Reads a whole frame, Ethernet header first. `None` for whatever is not a valid solicitation or advertisement, also when it
    /// comes behind an IPv6 extension header.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let header = EthernetPacket::new(frame)?;
        if header.get_ethertype() != EtherTypes::Ipv6 {
            return None;
        }
        let ip = Ipv6Packet::new(frame.get(ETHERNET_HEADER..)?)?;
        if (ip.get_version(), ip.get_next_header(), ip.get_hop_limit()) != (6, IpNextHeaderProtocols::Icmpv6, HOP_LIMIT)
        {
            return None;
        }
        // What follows the payload is the frame's padding.
        let message = frame.get(ETHERNET_HEADER + IPV6_HEADER..)?.get(..ip.get_payload_length().into())?;
        let icmp = Icmpv6Packet::new(message)?;
        let (sender, destination) = (ip.get_source(), ip.get_destination());
        if icmp.get_icmpv6_code() != Icmpv6Code(0) || icmp.get_checksum() != checksum(&icmp, &sender, &destination) {
            return None;
        }
        let (kind, target, option) = match icmp.get_icmpv6_type() {
            Icmpv6Types::NeighborSolicit => {
                let target = NeighborSolicitPacket::new(message)?.get_target_addr();
                (Kind::Solicitation, target, SOURCE_LINK_LAYER)
            }
            Icmpv6Types::NeighborAdvert => {
                let advert = NeighborAdvertPacket::new(message)?;
                let has = |flag| advert.get_flags() & flag != 0;
                let kind = Kind::Advertisement { solicited: has(SOLICITED), overrides: has(OVERRIDE) };
                (kind, advert.get_target_addr(), TARGET_LINK_LAYER)
            }
            _ => return None,
        };
        let named = link_layer(message.get(BARE..)?, option)?;
        // A group is nobody who could be answered (RFC 4291 section 2.7).
        let valid = !target.is_multicast()
            && !sender.is_multicast()
            && match kind {
                Kind::Solicitation if sender.is_unspecified() => destination == group(target) && named.is_none(),
                Kind::Advertisement { solicited: true, .. } => !destination.is_multicast(),
                Kind::Solicitation | Kind::Advertisement { .. } => true,
            };
        let mac = named.and_then(|address| address.try_into().ok()).map(Mac);
        valid.then(|| Self { source: Mac(header.get_source().octets()), kind, sender, target, mac })
    }
}

/// The address in the first option of this type; one of another length, which is for another kind of link, only where there is no
/// other. The outer `None`: an option has no length, or is longer than the message, which makes that invalid.
fn link_layer(mut options: &[u8], wanted: u8) -> Option<Option<&[u8]>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * OPTION)?;
        let address = option.get(2..)?;
        if kind == wanted && found.is_none_or(|found: &[u8]| found.len() != OPTION - 2) {
            found = Some(address);
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// The solicited-node multicast group of an address (RFC 4291 section 2.7.1), to which questions for it are sent.
#[must_use]
pub fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 section 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The answer to a solicitation of a host that has the address `asker`: `address` is at `mac`, told to `to` alone. A host that has
/// none yet is answered by [`unsolicited`] (RFC 4861 section 7.2.4).
#[must_use]
pub fn answer(mac: Mac, address: Ipv6Addr, to: Mac, asker: Ipv6Addr) -> [u8; FRAME] {
    told(Way { to, from: mac, sender: address, destination: asker }, SOLICITED | OVERRIDE, address)
}

/// Tells all hosts that `address` is at `mac` (RFC 4861 section 7.2.6), whatever they have in their caches.
#[must_use]
pub fn unsolicited(mac: Mac, address: Ipv6Addr) -> [u8; FRAME] {
    told(Way { to: group_mac(ALL_NODES), from: mac, sender: address, destination: ALL_NODES }, OVERRIDE, address)
}

/// The question who has `address`, from a host that has `sender`, to all of its group.
#[must_use]
pub fn solicitation(mac: Mac, sender: Ipv6Addr, address: Ipv6Addr) -> [u8; FRAME] {
    let group = group(address);
    asked(Way { to: group_mac(group), from: mac, sender, destination: group }, address)
}

/// The same to the host at `to` alone, as caches ask whether it is still there (RFC 4861 section 7.3.3).
#[must_use]
pub fn unicast_solicitation(mac: Mac, sender: Ipv6Addr, address: Ipv6Addr, to: Mac) -> [u8; FRAME] {
    asked(Way { to, from: mac, sender, destination: address }, address)
}

/// The question of a host that wants to have `address` itself (RFC 4862 section 5.4.2).
#[must_use]
pub fn dad_solicitation(mac: Mac, address: Ipv6Addr) -> [u8; DAD_FRAME] {
    let group = group(address);
    let way = Way { to: group_mac(group), from: mac, sender: Ipv6Addr::UNSPECIFIED, destination: group };
    let mut frame = [0; DAD_FRAME];
    frame[ETHERNET_HEADER + IPV6_HEADER] = SOLICITATION;
    finish(&mut frame, way, address);
    frame
}

/// From whom a frame goes to whom.
#[derive(Clone, Copy)]
struct Way {
    to: Mac,
    from: Mac,
    sender: Ipv6Addr,
    destination: Ipv6Addr,
}

fn asked(way: Way, target: Ipv6Addr) -> [u8; FRAME] {
    named(way, [SOLICITATION, 0, SOURCE_LINK_LAYER], target)
}

fn told(way: Way, flags: u8, target: Ipv6Addr) -> [u8; FRAME] {
    named(way, [ADVERTISEMENT, flags, TARGET_LINK_LAYER], target)
}

/// A message with the option that says where its sender is.
fn named(way: Way, [kind, flags, option]: [u8; 3], target: Ipv6Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let message = &mut frame[ETHERNET_HEADER + IPV6_HEADER..];
    (message[0], message[4]) = (kind, flags);
    message[BARE..BARE + 2].copy_from_slice(&[option, 1]);
    message[BARE + 2..].copy_from_slice(&way.from.0);
    finish(&mut frame, way, target);
    frame
}

/// Writes all that every message has.
fn finish(frame: &mut [u8], way: Way, target: Ipv6Addr) {
    ethernet(frame, way.to, way.from, ETHER_TYPE);
    let (head, message) = frame[ETHERNET_HEADER..].split_at_mut(IPV6_HEADER);
    head[0] = 6 << 4;
    head[4..6].copy_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    (head[6], head[7]) = (IpNextHeaderProtocols::Icmpv6.0, HOP_LIMIT);
    head[8..24].copy_from_slice(&way.sender.octets());
    head[24..].copy_from_slice(&way.destination.octets());
    message[8..BARE].copy_from_slice(&target.octets());
    let sum = Icmpv6Packet::new(message).map_or(0, |icmp| checksum(&icmp, &way.sender, &way.destination));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
