//! Classification of ARP and Neighbor Discovery frames. Pure and without allocation, because this
//! code runs for every such frame of the network segment before a reply is sent.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};

/// Meaning of a frame for this node. A reply is a frame of `N` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Classification<const N: usize> {
    /// A request for an address that this node owns; contains the reply.
    Request([u8; N]),
    /// A solicitation for duplicate address detection by a host that is about to use an address of
    /// this node. The reply goes to all nodes (RFC 4861 section 7.2.4).
    DadSolicitation(Ipv6Addr),
    /// A frame in which another hardware address uses an IP address that this node owns or probes.
    /// `announced` is true if the frame is not a reply to this node.
    ForeignHost { address: IpAddr, mac: Mac, announced: bool },
    /// The host with this MAC sent a reply about this address. `is_solicited` is true if the frame
    /// is a reply to a request of this node, and not sent to all hosts.
    Reply { address: IpAddr, mac: Mac, is_solicited: bool },
    /// A frame that does not concern this node.
    Irrelevant,
}

/// Classifies an ARP frame received on an interface with the hardware address `mac`. `owned` are
/// the addresses that this node owns; `is_probed` returns whether an ARP probe for an address is
/// running.
///
/// The reply goes to the sender hardware address in the request (RFC 826). Only requests to the
/// broadcast address or to this node get a reply; RFC 826 has no others. A frame whose sender
/// address equals its target is an announcement (RFC 5227 section 2.3) and not a request. A frame
/// with this node's own hardware address is a reflection, and not from a foreign host.
pub(super) fn classify_arp(
    frame: &[u8],
    arp: &Arp,
    mac: Mac,
    owned: &BTreeSet<Ipv4Addr>,
    is_probed: impl Fn(IpAddr) -> bool,
) -> Classification<{ arp::FRAME_LENGTH }> {
    let is_to_this_node = frame.starts_with(&mac.0);
    let address = IpAddr::V4(arp.sender);
    let is_reply = is_to_this_node && arp.operation == Operation::Reply && arp.sender != arp.target;
    if (owned.contains(&arp.sender) || is_probed(address)) && arp.sender_mac != mac {
        return Classification::ForeignHost { address, mac: arp.sender_mac, announced: !is_reply };
    }
    match arp.operation {
        Operation::Reply => {
            Classification::Reply { address, mac: arp.sender_mac, is_solicited: is_reply }
        }
        Operation::Request => {
            let is_to_this_node = is_to_this_node || frame.starts_with(&Mac::BROADCAST.0);
            let is_request =
                is_to_this_node && arp.sender != arp.target && owned.contains(&arp.target);
            if is_request {
                Classification::Request(arp::reply(mac, arp.target, arp.sender_mac, arp.sender))
            } else {
                Classification::Irrelevant
            }
        }
    }
}

/// Classifies a Neighbor Discovery frame, as [`classify_arp`] classifies an ARP frame. The filter
/// of the socket has already dropped frames for other hosts.
///
/// A solicitation from the unspecified address is duplicate address detection: the reply informs
/// its sender that the address is in use. Such a reply is an unsolicited advertisement to all
/// nodes. While this node probes the address, an unsolicited advertisement is therefore treated as
/// a reply, and otherwise as an announcement.
pub(super) fn classify_ndp(
    ndp: &Ndp,
    mac: Mac,
    owned: &BTreeSet<Ipv6Addr>,
    is_probed: impl Fn(IpAddr) -> bool,
) -> Classification<{ ndp::FRAME_LENGTH }> {
    let other_mac = ndp.mac.unwrap_or(ndp.source);
    let is_conflict = |address: Ipv6Addr| {
        other_mac != mac
            && ndp.source != mac
            && (owned.contains(&address) || is_probed(address.into()))
    };
    match ndp.kind {
        NdpKind::Advertisement { solicited, .. } if is_conflict(ndp.target) => {
            let address = IpAddr::V6(ndp.target);
            Classification::ForeignHost {
                address,
                mac: other_mac,
                announced: !solicited && !is_probed(address),
            }
        }
        NdpKind::Advertisement { solicited, .. } => Classification::Reply {
            address: ndp.target.into(),
            mac: other_mac,
            is_solicited: solicited,
        },
        NdpKind::Solicitation if is_conflict(ndp.sender) => Classification::ForeignHost {
            address: ndp.sender.into(),
            mac: other_mac,
            announced: true,
        },
        NdpKind::Solicitation if ndp.source != mac && owned.contains(&ndp.target) => {
            match ndp.sender {
                Ipv6Addr::UNSPECIFIED => Classification::DadSolicitation(ndp.target),
                requester => Classification::Request(ndp::solicited_advertisement(
                    mac, ndp.target, ndp.source, requester,
                )),
            }
        }
        NdpKind::Solicitation => Classification::Irrelevant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
    const PROBED: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 100);

    fn classify_arp_frame(
        frame: &[u8],
        owned: &[Ipv4Addr],
    ) -> Classification<{ arp::FRAME_LENGTH }> {
        let arp = Arp::decode(frame).expect("ARP");
        classify_arp(frame, &arp, OWN_MAC, &owned.iter().copied().collect(), |address| {
            address == PROBED
        })
    }

    #[test]
    fn arp_frames_of_foreign_hosts_are_detected() {
        let foreign = |address: Ipv4Addr, announced| Classification::ForeignHost {
            address: address.into(),
            mac: OTHER_MAC,
            announced,
        };
        let cases = [
            (arp::gratuitous_request(OTHER_MAC, VIP), foreign(VIP, true)),
            (arp::gratuitous_reply(OTHER_MAC, VIP), foreign(VIP, true)),
            (arp::request(OTHER_MAC, VIP, CLIENT), foreign(VIP, true)),
            (arp::reply(OTHER_MAC, VIP, OWN_MAC, CLIENT), foreign(VIP, false)),
            (arp::reply(OTHER_MAC, PROBED, OWN_MAC, Ipv4Addr::UNSPECIFIED), foreign(PROBED, false)),
            (
                arp::reply(OWN_MAC, VIP, OWN_MAC, CLIENT),
                Classification::Reply { address: VIP.into(), mac: OWN_MAC, is_solicited: true },
            ),
            (arp::request(OWN_MAC, VIP, VIP), Classification::Irrelevant),
        ];
        for (frame, expect) in cases {
            assert_eq!(classify_arp_frame(&frame, &[VIP]), expect, "{frame:02x?}");
        }
    }

    #[test]
    fn only_arp_requests_to_this_node_for_owned_addresses_get_a_reply() {
        let to = |destination: Mac, mut frame: [u8; arp::FRAME_LENGTH]| {
            frame[..6].copy_from_slice(&destination.0);
            frame
        };
        let request = arp::request(OTHER_MAC, CLIENT, VIP);
        let probe = arp::request(OTHER_MAC, Ipv4Addr::UNSPECIFIED, VIP);
        // A bridge that translates hardware addresses has put its own into the Ethernet header.
        let mut relayed = request;
        relayed[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        let reply =
            |requester| Classification::Request(arp::reply(OWN_MAC, VIP, OTHER_MAC, requester));
        let client_reply = |is_solicited| Classification::Reply {
            address: CLIENT.into(),
            mac: OTHER_MAC,
            is_solicited,
        };
        let cases = [
            (request, reply(CLIENT)),
            (to(OWN_MAC, request), reply(CLIENT)),
            (probe, reply(Ipv4Addr::UNSPECIFIED)),
            (relayed, reply(CLIENT)),
            (to(Mac([2, 0, 0, 0, 0, 9]), request), Classification::Irrelevant),
            (to(Mac([1, 0, 0x5e, 0, 0, 1]), request), Classification::Irrelevant),
            (arp::request(OTHER_MAC, CLIENT, PROBED), Classification::Irrelevant),
            (arp::gratuitous_request(OTHER_MAC, CLIENT), Classification::Irrelevant),
            (arp::reply(OTHER_MAC, CLIENT, OWN_MAC, CLIENT), client_reply(false)),
            (arp::reply(OTHER_MAC, CLIENT, OWN_MAC, Ipv4Addr::UNSPECIFIED), client_reply(true)),
            (arp::reply(OTHER_MAC, CLIENT, Mac::BROADCAST, VIP), client_reply(false)),
            (arp::gratuitous_reply(OTHER_MAC, CLIENT), client_reply(false)),
        ];
        for (frame, expect) in cases {
            assert_eq!(classify_arp_frame(&frame, &[VIP]), expect, "{frame:02x?}");
        }
        assert_eq!(classify_arp_frame(&request, &[]), Classification::Irrelevant);
    }

    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
    const PROBED6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x201);
    const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x100);

    fn classify_ndp_frame(
        frame: &[u8],
        owned: &[Ipv6Addr],
    ) -> Classification<{ ndp::FRAME_LENGTH }> {
        let ndp = Ndp::decode(frame).expect("Neighbor Discovery");
        classify_ndp(&ndp, OWN_MAC, &owned.iter().copied().collect(), |address| address == PROBED6)
    }

    #[test]
    fn only_solicitations_for_owned_addresses_get_a_reply() {
        let reply = |requester| {
            Classification::Request(ndp::solicited_advertisement(
                OWN_MAC, VIP6, OTHER_MAC, requester,
            ))
        };
        let client_reply = |is_solicited| Classification::Reply {
            address: CLIENT6.into(),
            mac: OTHER_MAC,
            is_solicited,
        };
        let cases: [(&[u8], Classification<{ ndp::FRAME_LENGTH }>); 7] = [
            (&ndp::solicitation(OTHER_MAC, CLIENT6, VIP6), reply(CLIENT6)),
            (&ndp::unicast_solicitation(OTHER_MAC, CLIENT6, VIP6, OWN_MAC), reply(CLIENT6)),
            (&ndp::dad_solicitation(OTHER_MAC, VIP6), Classification::DadSolicitation(VIP6)),
            (&ndp::solicitation(OTHER_MAC, CLIENT6, PROBED6), Classification::Irrelevant),
            (&ndp::dad_solicitation(OWN_MAC, VIP6), Classification::Irrelevant),
            (&ndp::unsolicited_advertisement(OTHER_MAC, CLIENT6), client_reply(false)),
            (&ndp::solicited_advertisement(OTHER_MAC, CLIENT6, OWN_MAC, VIP6), client_reply(true)),
        ];
        for (frame, expect) in cases {
            assert_eq!(classify_ndp_frame(frame, &[VIP6]), expect, "{frame:02x?}");
        }
        assert_eq!(
            classify_ndp_frame(&ndp::solicitation(OTHER_MAC, CLIENT6, VIP6), &[]),
            Classification::Irrelevant
        );
    }

    #[test]
    fn ndp_frames_of_foreign_hosts_are_detected() {
        let foreign = |address: Ipv6Addr, announced| Classification::ForeignHost {
            address: address.into(),
            mac: OTHER_MAC,
            announced,
        };
        let cases: [(&[u8], Classification<{ ndp::FRAME_LENGTH }>); 6] = [
            (&ndp::unsolicited_advertisement(OTHER_MAC, VIP6), foreign(VIP6, true)),
            (
                &ndp::solicited_advertisement(OTHER_MAC, VIP6, OWN_MAC, CLIENT6),
                foreign(VIP6, false),
            ),
            (&ndp::solicitation(OTHER_MAC, VIP6, CLIENT6), foreign(VIP6, true)),
            // The reply to this node's own duplicate address detection goes to all nodes.
            (&ndp::unsolicited_advertisement(OTHER_MAC, PROBED6), foreign(PROBED6, false)),
            (
                &ndp::solicited_advertisement(OTHER_MAC, PROBED6, OWN_MAC, CLIENT6),
                foreign(PROBED6, false),
            ),
            (
                &ndp::unsolicited_advertisement(OWN_MAC, VIP6),
                Classification::Reply { address: VIP6.into(), mac: OWN_MAC, is_solicited: false },
            ),
        ];
        for (frame, expect) in cases {
            assert_eq!(classify_ndp_frame(frame, &[VIP6]), expect, "{frame:02x?}");
        }
    }
}
