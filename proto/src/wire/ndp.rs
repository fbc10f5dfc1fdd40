//! Neighbor Discovery over Ethernet (RFC 4861; duplicate address detection RFC 4862). No function
//! allocates memory, because the functions run for every reply.
//!
//! `pnet_packet` decodes the headers. This module decodes the options itself, because the option
//! parser of `pnet_packet` panics on hostile lengths. Messages that hosts must silently discard
//! (RFC 4861 sections 7.1.1 and 7.1.2) are not decoded.

use std::net::Ipv6Addr;

use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::ndp::{NeighborAdvertPacket, NeighborSolicitPacket};
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types, checksum};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;

use super::{ETHERNET_HEADER_LENGTH, Mac, write_ethernet_header};

/// EtherType of IPv6.
pub const ETHER_TYPE: u16 = 0x86dd;
/// Length of an IPv6 header, in bytes.
const IPV6_HEADER: usize = 40;
/// Length of a solicitation or advertisement before its options, in bytes.
const MESSAGE_HEADER: usize = 24;
/// Length of the option with a hardware address, in bytes.
const LINK_LAYER_OPTION: usize = 8;
/// Length of a frame with one hardware address option, in bytes.
pub const FRAME_LENGTH: usize =
    ETHERNET_HEADER_LENGTH + IPV6_HEADER + MESSAGE_HEADER + LINK_LAYER_OPTION;
/// Length of a frame without options, as in duplicate address detection, in bytes.
pub const DAD_FRAME_LENGTH: usize = FRAME_LENGTH - LINK_LAYER_OPTION;
/// Hop limit of every valid message. A frame from another segment has a lower one, because routers
/// decrement it (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;
/// Multicast group of all nodes on the segment (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Type of the option in a solicitation that carries the sender's hardware address.
const SOURCE_LINK_LAYER: u8 = 1;
/// Type of the option in an advertisement that carries the target's hardware address.
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Flag S of an advertisement: the advertisement is a reply to a solicitation.
const SOLICITED: u8 = 0x40;
/// Flag O of an advertisement: the receivers must replace existing cache entries.
const OVERRIDE: u8 = 0x20;

/// Type of an NDP message (RFC 4861 sections 4.3 and 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpKind {
    /// Requests the hardware address of the target address.
    Solicitation,
    /// Reports the hardware address of the target address.
    Advertisement {
        /// True if the advertisement is a reply to a solicitation (flag S).
        solicited: bool,
        /// True if the receivers must replace existing cache entries (flag O).
        overrides: bool,
    },
}

/// Fields of an NDP message that the speaker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ndp {
    /// Source of the Ethernet header, to which a reply is sent.
    pub source: Mac,
    /// Solicitation or advertisement.
    pub kind: NdpKind,
    /// Source of the IPv6 header; unspecified in duplicate address detection.
    pub sender: Ipv6Addr,
    /// The address whose hardware address is requested or advertised.
    pub target: Ipv6Addr,
    /// Hardware address of the sender of a solicitation, or of the target of an advertisement, from
    /// the first option that carries it.
    pub mac: Option<Mac>,
}

impl Ndp {
    /// Decodes a whole frame, Ethernet header first. Returns `None` for every frame that is not a
    /// valid solicitation or advertisement, and for messages behind an IPv6 extension header.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let header = EthernetPacket::new(frame)?;
        if header.get_ethertype() != EtherTypes::Ipv6 {
            return None;
        }
        let ip = Ipv6Packet::new(frame.get(ETHERNET_HEADER_LENGTH..)?)?;
        if (ip.get_version(), ip.get_next_header(), ip.get_hop_limit())
            != (6, IpNextHeaderProtocols::Icmpv6, HOP_LIMIT)
        {
            return None;
        }
        // Bytes after the payload are padding of the frame.
        let message = frame
            .get(ETHERNET_HEADER_LENGTH + IPV6_HEADER..)?
            .get(..ip.get_payload_length().into())?;
        let icmp = Icmpv6Packet::new(message)?;
        let (sender, destination) = (ip.get_source(), ip.get_destination());
        if icmp.get_icmpv6_code() != Icmpv6Code(0)
            || icmp.get_checksum() != checksum(&icmp, &sender, &destination)
        {
            return None;
        }
        let (kind, target, option) = match icmp.get_icmpv6_type() {
            Icmpv6Types::NeighborSolicit => {
                let target = NeighborSolicitPacket::new(message)?.get_target_addr();
                (NdpKind::Solicitation, target, SOURCE_LINK_LAYER)
            }
            Icmpv6Types::NeighborAdvert => {
                let advert = NeighborAdvertPacket::new(message)?;
                let has = |flag| advert.get_flags() & flag != 0;
                let kind =
                    NdpKind::Advertisement { solicited: has(SOLICITED), overrides: has(OVERRIDE) };
                (kind, advert.get_target_addr(), TARGET_LINK_LAYER)
            }
            _ => return None,
        };
        let option_value = link_layer_address(message.get(MESSAGE_HEADER..)?, option)?;
        // A multicast address belongs to no single host, so it is no valid sender or target (RFC
        // 4291 section 2.7).
        let valid = !target.is_multicast()
            && !sender.is_multicast()
            && match kind {
                NdpKind::Solicitation if sender.is_unspecified() => {
                    destination == solicited_node_group(target) && option_value.is_none()
                }
                NdpKind::Advertisement { solicited: true, .. } => !destination.is_multicast(),
                NdpKind::Solicitation | NdpKind::Advertisement { .. } => true,
            };
        let mac = option_value.and_then(|address| address.try_into().ok()).map(Mac);
        valid.then(|| Self { source: Mac(header.get_source().octets()), kind, sender, target, mac })
    }
}

/// Returns the hardware address in the first option of the type `wanted` that holds 6 bytes. An
/// address of another length (of another link layer) is returned only if no option holds 6 bytes.
///
/// The inner `None` means that the message has no such option. The outer `None` means an invalid
/// message: an option has length zero, or is longer than the message.
fn link_layer_address(mut options: &[u8], wanted: u8) -> Option<Option<&[u8]>> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * LINK_LAYER_OPTION)?;
        let address = option.get(2..)?;
        if kind == wanted && found.is_none_or(|found: &[u8]| found.len() != LINK_LAYER_OPTION - 2) {
            found = Some(address);
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

/// Returns the solicited-node group of an address (RFC 4291 section 2.7.1), to which hosts send
/// solicitations for the address.
#[must_use]
pub fn solicited_node_group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Returns the Ethernet address of an IPv6 multicast group (RFC 2464 section 7).
#[must_use]
pub fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Returns the advertisement that `address` is at `mac`, as a reply to the host that solicited it:
/// MAC `to`, address `requester`. The reply to a host without an address is
/// [`unsolicited_advertisement`] instead (RFC 4861 section 7.2.4).
#[must_use]
pub fn solicited_advertisement(
    mac: Mac,
    address: Ipv6Addr,
    to: Mac,
    requester: Ipv6Addr,
) -> [u8; FRAME_LENGTH] {
    encode_advertisement(
        FrameAddresses { to, from: mac, sender: address, destination: requester },
        SOLICITED | OVERRIDE,
        address,
    )
}

/// Returns an unsolicited neighbor advertisement to all nodes that `address` is at `mac` (RFC 4861
/// section 7.2.6). The receivers replace their cache entries.
#[must_use]
pub fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr) -> [u8; FRAME_LENGTH] {
    encode_advertisement(
        FrameAddresses {
            to: multicast_mac(ALL_NODES),
            from: mac,
            sender: address,
            destination: ALL_NODES,
        },
        OVERRIDE,
        address,
    )
}

/// Returns a solicitation for `address` to its solicited-node group, from a host with the MAC `mac`
/// and the address `sender`.
#[must_use]
pub fn solicitation(mac: Mac, sender: Ipv6Addr, address: Ipv6Addr) -> [u8; FRAME_LENGTH] {
    let group = solicited_node_group(address);
    encode_solicitation(
        FrameAddresses { to: multicast_mac(group), from: mac, sender, destination: group },
        address,
    )
}

/// Returns a solicitation for `address` to the host with the MAC `to` only, as in neighbor
/// unreachability detection (RFC 4861 section 7.3.3).
#[must_use]
pub fn unicast_solicitation(
    mac: Mac,
    sender: Ipv6Addr,
    address: Ipv6Addr,
    to: Mac,
) -> [u8; FRAME_LENGTH] {
    encode_solicitation(FrameAddresses { to, from: mac, sender, destination: address }, address)
}

/// Returns the solicitation for duplicate address detection, from a host that is about to use
/// `address` (RFC 4862 section 5.4.2).
#[must_use]
pub fn dad_solicitation(mac: Mac, address: Ipv6Addr) -> [u8; DAD_FRAME_LENGTH] {
    let group = solicited_node_group(address);
    let addresses = FrameAddresses {
        to: multicast_mac(group),
        from: mac,
        sender: Ipv6Addr::UNSPECIFIED,
        destination: group,
    };
    let mut frame = [0; DAD_FRAME_LENGTH];
    frame[ETHERNET_HEADER_LENGTH + IPV6_HEADER] = SOLICITATION;
    write_common_fields(&mut frame, addresses, address);
    frame
}

/// Ethernet and IPv6 addresses of a frame's source and destination.
#[derive(Clone, Copy)]
struct FrameAddresses {
    to: Mac,
    from: Mac,
    sender: Ipv6Addr,
    destination: Ipv6Addr,
}

fn encode_solicitation(addresses: FrameAddresses, target: Ipv6Addr) -> [u8; FRAME_LENGTH] {
    encode_with_option(addresses, [SOLICITATION, 0, SOURCE_LINK_LAYER], target)
}

fn encode_advertisement(
    addresses: FrameAddresses,
    flags: u8,
    target: Ipv6Addr,
) -> [u8; FRAME_LENGTH] {
    encode_with_option(addresses, [ADVERTISEMENT, flags, TARGET_LINK_LAYER], target)
}

/// Returns a frame with the option that carries the sender's hardware address.
fn encode_with_option(
    addresses: FrameAddresses,
    [kind, flags, option]: [u8; 3],
    target: Ipv6Addr,
) -> [u8; FRAME_LENGTH] {
    let mut frame = [0; FRAME_LENGTH];
    let message = &mut frame[ETHERNET_HEADER_LENGTH + IPV6_HEADER..];
    (message[0], message[4]) = (kind, flags);
    message[MESSAGE_HEADER..MESSAGE_HEADER + 2].copy_from_slice(&[option, 1]);
    message[MESSAGE_HEADER + 2..].copy_from_slice(&addresses.from.0);
    write_common_fields(&mut frame, addresses, target);
    frame
}

/// Writes the headers, the target and the checksum, which all frames have.
fn write_common_fields(frame: &mut [u8], addresses: FrameAddresses, target: Ipv6Addr) {
    write_ethernet_header(frame, addresses.to, addresses.from, ETHER_TYPE);
    let (head, message) = frame[ETHERNET_HEADER_LENGTH..].split_at_mut(IPV6_HEADER);
    head[0] = 6 << 4;
    head[4..6].copy_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
    (head[6], head[7]) = (IpNextHeaderProtocols::Icmpv6.0, HOP_LIMIT);
    head[8..24].copy_from_slice(&addresses.sender.octets());
    head[24..].copy_from_slice(&addresses.destination.octets());
    message[8..MESSAGE_HEADER].copy_from_slice(&target.octets());
    let sum = Icmpv6Packet::new(message)
        .map_or(0, |icmp| checksum(&icmp, &addresses.sender, &addresses.destination));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests;
