//! What a frame of ARP or Neighbor Discovery asks of us. Pure and without allocation: this is the answer path, run for every
//! such frame of the wire.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::ndp::{self, Kind, Ndp};

/// What to make of a frame; an answer is a frame of `N` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<const N: usize> {
    /// Someone asks for an address that we hold: this is the answer.
    Asked([u8; N]),
    /// Someone wants to have an address that we hold: all are told that it is here (RFC 4861 section 7.2.4).
    Wanted(Ipv6Addr),
    /// Another hardware address has an address that we hold or check. `announced`: it was no answer to us.
    Foreign { address: IpAddr, mac: Mac, announced: bool },
    /// Someone at this MAC answered a question about this address.
    Answered { address: IpAddr, mac: Mac },
    /// Nothing to us.
    Nothing,
}

/// Reads an ARP frame that arrived at a link whose hardware address is `mac`, where we hold `held` and check what `checked` says.
///
/// The answer goes to the sender hardware address that the question names (RFC 826).
/// Questions are answered that went to all hosts or to us; RFC 826 knows no others. A frame whose sender claims the very
/// address it asks for is an announcement (RFC 5227 section 2.3) and no question. Frames of our own hardware address are
/// reflections.
pub(super) fn read_arp(
    frame: &[u8],
    arp: &Arp,
    mac: Mac,
    held: &BTreeSet<Ipv4Addr>,
    checked: impl Fn(IpAddr) -> bool,
) -> Meaning<{ arp::FRAME }> {
    let to_us = frame.starts_with(&mac.0);
    let address = IpAddr::V4(arp.sender);
    if (held.contains(&arp.sender) || checked(address)) && arp.sender_mac != mac {
        let answer = to_us && arp.operation == Operation::Reply && arp.sender != arp.target;
        return Meaning::Foreign { address, mac: arp.sender_mac, announced: !answer };
    }
    match arp.operation {
        Operation::Reply => Meaning::Answered { address, mac: arp.sender_mac },
        Operation::Request => {
            let to_us = to_us || frame.starts_with(&Mac::BROADCAST.0);
            let asked = to_us && arp.sender != arp.target && held.contains(&arp.target);
            if asked {
                Meaning::Asked(arp::reply(mac, arp.target, arp.sender_mac, arp.sender))
            } else {
                Meaning::Nothing
            }
        }
    }
}

/// The same for Neighbor Discovery. The socket's filter has left out what is for other hosts.
///
/// Who asks for an address of ours without having one yet (duplicate address detection) wants to have it, and must learn that it may
/// not. An answer to our own such question goes to all, so it tells of a stranger for as long as the address is checked, and is an
/// announcement after that.
pub(super) fn read_ndp(
    ndp: &Ndp,
    mac: Mac,
    held: &BTreeSet<Ipv6Addr>,
    checked: impl Fn(IpAddr) -> bool,
) -> Meaning<{ ndp::FRAME }> {
    let theirs = ndp.mac.unwrap_or(ndp.source);
    let ours =
        |address: Ipv6Addr| theirs != mac && ndp.source != mac && (held.contains(&address) || checked(address.into()));
    match ndp.kind {
        Kind::Advertisement { solicited, .. } if ours(ndp.target) => {
            let address = IpAddr::V6(ndp.target);
            Meaning::Foreign { address, mac: theirs, announced: !solicited && !checked(address) }
        }
        Kind::Advertisement { .. } => Meaning::Answered { address: ndp.target.into(), mac: theirs },
        Kind::Solicitation if ours(ndp.sender) => {
            Meaning::Foreign { address: ndp.sender.into(), mac: theirs, announced: true }
        }
        Kind::Solicitation if ndp.source != mac && held.contains(&ndp.target) => match ndp.sender {
            Ipv6Addr::UNSPECIFIED => Meaning::Wanted(ndp.target),
            asker => Meaning::Asked(ndp::answer(mac, ndp.target, ndp.source, asker)),
        },
        Kind::Solicitation => Meaning::Nothing,
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

    fn meaning(frame: &[u8], held: &[Ipv4Addr]) -> Meaning<{ arp::FRAME }> {
        let arp = Arp::decode(frame).expect("ARP");
        read_arp(frame, &arp, MINE, &held.iter().copied().collect(), |address| address == CHECKED)
    }

    #[test]
    fn who_else_has_an_address_of_ours_is_told_from_who_asks_for_it() {
        let foreign =
            |address: Ipv4Addr, announced| Meaning::Foreign { address: address.into(), mac: THEIRS, announced };
        let cases = [
            (arp::gratuitous_request(THEIRS, VIP), foreign(VIP, true)),
            (arp::gratuitous_reply(THEIRS, VIP), foreign(VIP, true)),
            (arp::request(THEIRS, VIP, CLIENT), foreign(VIP, true)),
            (arp::reply(THEIRS, VIP, MINE, CLIENT), foreign(VIP, false)),
            (arp::reply(THEIRS, CHECKED, MINE, Ipv4Addr::UNSPECIFIED), foreign(CHECKED, false)),
            (arp::reply(MINE, VIP, MINE, CLIENT), Meaning::Answered { address: VIP.into(), mac: MINE }),
            (arp::request(MINE, VIP, VIP), Meaning::Nothing),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning(&frame, &[VIP]), expect, "{frame:02x?}");
        }
    }

    #[test]
    fn only_questions_for_a_held_address_are_answered_and_only_when_they_are_for_us() {
        let to = |destination: Mac, mut frame: [u8; arp::FRAME]| {
            frame[..6].copy_from_slice(&destination.0);
            frame
        };
        let asked = arp::request(THEIRS, CLIENT, VIP);
        let probe = arp::request(THEIRS, Ipv4Addr::UNSPECIFIED, VIP);
        // A bridge that translates hardware addresses put its own into the Ethernet header.
        let mut relayed = asked;
        relayed[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        let answer = |asker| Meaning::Asked(arp::reply(MINE, VIP, THEIRS, asker));
        let cases = [
            (asked, answer(CLIENT)),
            (to(MINE, asked), answer(CLIENT)),
            (probe, answer(Ipv4Addr::UNSPECIFIED)),
            (relayed, answer(CLIENT)),
            (to(Mac([2, 0, 0, 0, 0, 9]), asked), Meaning::Nothing),
            (to(Mac([1, 0, 0x5e, 0, 0, 1]), asked), Meaning::Nothing),
            (arp::request(THEIRS, CLIENT, CHECKED), Meaning::Nothing),
            (arp::gratuitous_request(THEIRS, CLIENT), Meaning::Nothing),
            (arp::reply(THEIRS, CLIENT, MINE, CLIENT), Meaning::Answered { address: CLIENT.into(), mac: THEIRS }),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning(&frame, &[VIP]), expect, "{frame:02x?}");
        }
        assert_eq!(meaning(&asked, &[]), Meaning::Nothing);
    }

    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
    const CHECKED6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x201);
    const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x100);

    fn meaning6(frame: &[u8], held: &[Ipv6Addr]) -> Meaning<{ ndp::FRAME }> {
        let ndp = Ndp::decode(frame).expect("Neighbor Discovery");
        read_ndp(&ndp, MINE, &held.iter().copied().collect(), |address| address == CHECKED6)
    }

    #[test]
    fn neighbours_are_answered_that_ask_for_what_is_held_with_and_without_an_address_of_their_own() {
        let answer = |asker| Meaning::Asked(ndp::answer(MINE, VIP6, THEIRS, asker));
        let cases: [(&[u8], Meaning<{ ndp::FRAME }>); 6] = [
            (&ndp::solicitation(THEIRS, CLIENT6, VIP6), answer(CLIENT6)),
            (&ndp::unicast_solicitation(THEIRS, CLIENT6, VIP6, MINE), answer(CLIENT6)),
            (&ndp::dad_solicitation(THEIRS, VIP6), Meaning::Wanted(VIP6)),
            (&ndp::solicitation(THEIRS, CLIENT6, CHECKED6), Meaning::Nothing),
            (&ndp::dad_solicitation(MINE, VIP6), Meaning::Nothing),
            (&ndp::unsolicited(THEIRS, CLIENT6), Meaning::Answered { address: CLIENT6.into(), mac: THEIRS }),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning6(frame, &[VIP6]), expect, "{frame:02x?}");
        }
        assert_eq!(meaning6(&ndp::solicitation(THEIRS, CLIENT6, VIP6), &[]), Meaning::Nothing);
    }

    #[test]
    fn neighbours_that_have_an_address_of_ours_are_seen() {
        let foreign =
            |address: Ipv6Addr, announced| Meaning::Foreign { address: address.into(), mac: THEIRS, announced };
        let cases: [(&[u8], Meaning<{ ndp::FRAME }>); 6] = [
            (&ndp::unsolicited(THEIRS, VIP6), foreign(VIP6, true)),
            (&ndp::answer(THEIRS, VIP6, MINE, CLIENT6), foreign(VIP6, false)),
            (&ndp::solicitation(THEIRS, VIP6, CLIENT6), foreign(VIP6, true)),
            // The answer to our own duplicate address detection goes to all.
            (&ndp::unsolicited(THEIRS, CHECKED6), foreign(CHECKED6, false)),
            (&ndp::answer(THEIRS, CHECKED6, MINE, CLIENT6), foreign(CHECKED6, false)),
            (&ndp::unsolicited(MINE, VIP6), Meaning::Answered { address: VIP6.into(), mac: MINE }),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning6(frame, &[VIP6]), expect, "{frame:02x?}");
        }
    }
}
