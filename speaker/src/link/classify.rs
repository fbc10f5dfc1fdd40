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
    /// The host with this MAC sent a reply about this address.
    Reply { address: IpAddr, mac: Mac },
    /// A frame that does not concern this node.
    Irrelevant,
}

/// Classifies an ARP frame received on an interface with the hardware address `mac`. `held` are the
/// addresses that this node owns; `checked` returns whether an ARP probe for an address is running.
///
/// The reply goes to the sender hardware address in the request (RFC 826). Only requests to the
/// broadcast address or to this node get a reply; RFC 826 has no others. A frame whose sender
/// address equals its target is an announcement (RFC 5227 section 2.3) and not a request. A frame
/// with this node's own hardware address is a reflection, and not from a foreign host.
pub(super) fn classify_arp(
    frame: &[u8],
    arp: &Arp,
    mac: Mac,
    held: &BTreeSet<Ipv4Addr>,
    checked: impl Fn(IpAddr) -> bool,
) -> Classification<{ arp::FRAME_LENGTH }> {
    let to_us = frame.starts_with(&mac.0);
    let address = IpAddr::V4(arp.sender);
    if (held.contains(&arp.sender) || checked(address)) && arp.sender_mac != mac {
        let answer = to_us && arp.operation == Operation::Reply && arp.sender != arp.target;
        return Classification::ForeignHost { address, mac: arp.sender_mac, announced: !answer };
    }
    match arp.operation {
        Operation::Reply => Classification::Reply { address, mac: arp.sender_mac },
        Operation::Request => {
            let to_us = to_us || frame.starts_with(&Mac::BROADCAST.0);
            let asked = to_us && arp.sender != arp.target && held.contains(&arp.target);
            if asked {
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
/// its sender that the address is in use. If this node sends such a solicitation, the reply also
/// goes to all nodes. An unsolicited advertisement is therefore treated as a reply while this node
/// probes the address, and as an announcement otherwise.
pub(super) fn classify_ndp(
    ndp: &Ndp,
    mac: Mac,
    held: &BTreeSet<Ipv6Addr>,
    checked: impl Fn(IpAddr) -> bool,
) -> Classification<{ ndp::FRAME_LENGTH }> {
    let theirs = ndp.mac.unwrap_or(ndp.source);
    let ours = |address: Ipv6Addr| {
        theirs != mac && ndp.source != mac && (held.contains(&address) || checked(address.into()))
    };
    match ndp.kind {
        NdpKind::Advertisement { solicited, .. } if ours(ndp.target) => {
            let address = IpAddr::V6(ndp.target);
            Classification::ForeignHost {
                address,
                mac: theirs,
                announced: !solicited && !checked(address),
            }
        }
        NdpKind::Advertisement { .. } => {
            Classification::Reply { address: ndp.target.into(), mac: theirs }
        }
        NdpKind::Solicitation if ours(ndp.sender) => {
            Classification::ForeignHost { address: ndp.sender.into(), mac: theirs, announced: true }
        }
        NdpKind::Solicitation if ndp.source != mac && held.contains(&ndp.target) => {
            match ndp.sender {
                Ipv6Addr::UNSPECIFIED => Classification::DadSolicitation(ndp.target),
                asker => Classification::Request(ndp::solicited_advertisement(
                    mac, ndp.target, ndp.source, asker,
                )),
            }
        }
        NdpKind::Solicitation => Classification::Irrelevant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
    const CHECKED: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 100);

    fn meaning(frame: &[u8], held: &[Ipv4Addr]) -> Classification<{ arp::FRAME_LENGTH }> {
        let arp = Arp::decode(frame).expect("ARP");
        classify_arp(frame, &arp, MINE, &held.iter().copied().collect(), |address| {
            address == CHECKED
        })
    }

    #[test]
    fn who_else_has_an_address_of_ours_is_told_from_who_asks_for_it() {
        let foreign = |address: Ipv4Addr, announced| Classification::ForeignHost {
            address: address.into(),
            mac: THEIRS,
            announced,
        };
        let cases = [
            (arp::gratuitous_request(THEIRS, VIP), foreign(VIP, true)),
            (arp::gratuitous_reply(THEIRS, VIP), foreign(VIP, true)),
            (arp::request(THEIRS, VIP, CLIENT), foreign(VIP, true)),
            (arp::reply(THEIRS, VIP, MINE, CLIENT), foreign(VIP, false)),
            (arp::reply(THEIRS, CHECKED, MINE, Ipv4Addr::UNSPECIFIED), foreign(CHECKED, false)),
            (
                arp::reply(MINE, VIP, MINE, CLIENT),
                Classification::Reply { address: VIP.into(), mac: MINE },
            ),
            (arp::request(MINE, VIP, VIP), Classification::Irrelevant),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning(&frame, &[VIP]), expect, "{frame:02x?}");
        }
    }

    #[test]
    fn only_questions_for_a_held_address_are_answered_and_only_when_they_are_for_us() {
        let to = |destination: Mac, mut frame: [u8; arp::FRAME_LENGTH]| {
            frame[..6].copy_from_slice(&destination.0);
            frame
        };
        let asked = arp::request(THEIRS, CLIENT, VIP);
        let probe = arp::request(THEIRS, Ipv4Addr::UNSPECIFIED, VIP);
        // A bridge that translates hardware addresses has put its own into the Ethernet header.
        let mut relayed = asked;
        relayed[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        let answer = |asker| Classification::Request(arp::reply(MINE, VIP, THEIRS, asker));
        let cases = [
            (asked, answer(CLIENT)),
            (to(MINE, asked), answer(CLIENT)),
            (probe, answer(Ipv4Addr::UNSPECIFIED)),
            (relayed, answer(CLIENT)),
            (to(Mac([2, 0, 0, 0, 0, 9]), asked), Classification::Irrelevant),
            (to(Mac([1, 0, 0x5e, 0, 0, 1]), asked), Classification::Irrelevant),
            (arp::request(THEIRS, CLIENT, CHECKED), Classification::Irrelevant),
            (arp::gratuitous_request(THEIRS, CLIENT), Classification::Irrelevant),
            (
                arp::reply(THEIRS, CLIENT, MINE, CLIENT),
                Classification::Reply { address: CLIENT.into(), mac: THEIRS },
            ),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning(&frame, &[VIP]), expect, "{frame:02x?}");
        }
        assert_eq!(meaning(&asked, &[]), Classification::Irrelevant);
    }

    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
    const CHECKED6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x201);
    const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x100);

    fn meaning6(frame: &[u8], held: &[Ipv6Addr]) -> Classification<{ ndp::FRAME_LENGTH }> {
        let ndp = Ndp::decode(frame).expect("Neighbor Discovery");
        classify_ndp(&ndp, MINE, &held.iter().copied().collect(), |address| address == CHECKED6)
    }

    #[test]
    fn neighbours_are_answered_that_ask_for_what_is_held_with_and_without_an_address_of_their_own()
    {
        let answer = |asker| {
            Classification::Request(ndp::solicited_advertisement(MINE, VIP6, THEIRS, asker))
        };
        let cases: [(&[u8], Classification<{ ndp::FRAME_LENGTH }>); 6] = [
            (&ndp::solicitation(THEIRS, CLIENT6, VIP6), answer(CLIENT6)),
            (&ndp::unicast_solicitation(THEIRS, CLIENT6, VIP6, MINE), answer(CLIENT6)),
            (&ndp::dad_solicitation(THEIRS, VIP6), Classification::DadSolicitation(VIP6)),
            (&ndp::solicitation(THEIRS, CLIENT6, CHECKED6), Classification::Irrelevant),
            (&ndp::dad_solicitation(MINE, VIP6), Classification::Irrelevant),
            (
                &ndp::unsolicited_advertisement(THEIRS, CLIENT6),
                Classification::Reply { address: CLIENT6.into(), mac: THEIRS },
            ),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning6(frame, &[VIP6]), expect, "{frame:02x?}");
        }
        assert_eq!(
            meaning6(&ndp::solicitation(THEIRS, CLIENT6, VIP6), &[]),
            Classification::Irrelevant
        );
    }

    #[test]
    fn neighbours_that_have_an_address_of_ours_are_seen() {
        let foreign = |address: Ipv6Addr, announced| Classification::ForeignHost {
            address: address.into(),
            mac: THEIRS,
            announced,
        };
        let cases: [(&[u8], Classification<{ ndp::FRAME_LENGTH }>); 6] = [
            (&ndp::unsolicited_advertisement(THEIRS, VIP6), foreign(VIP6, true)),
            (&ndp::solicited_advertisement(THEIRS, VIP6, MINE, CLIENT6), foreign(VIP6, false)),
            (&ndp::solicitation(THEIRS, VIP6, CLIENT6), foreign(VIP6, true)),
            // The reply to our own duplicate address detection goes to all nodes.
            (&ndp::unsolicited_advertisement(THEIRS, CHECKED6), foreign(CHECKED6, false)),
            (
                &ndp::solicited_advertisement(THEIRS, CHECKED6, MINE, CLIENT6),
                foreign(CHECKED6, false),
            ),
            (
                &ndp::unsolicited_advertisement(MINE, VIP6),
                Classification::Reply { address: VIP6.into(), mac: MINE },
            ),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning6(frame, &[VIP6]), expect, "{frame:02x?}");
        }
    }
}
