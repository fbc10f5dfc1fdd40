//! What an ARP frame asks of us. Pure and without allocation: this is the answer path, run for every ARP frame of the wire.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};

/// What to make of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Someone asks for an address that we hold: this is the answer.
    Asked([u8; arp::FRAME]),
    /// Another hardware address has an address that we hold or check. `announced`: it was no answer to us.
    Foreign { address: Ipv4Addr, mac: Mac, announced: bool },
    /// Someone at this MAC answered a question.
    Answered(Mac),
    /// Nothing to us.
    Nothing,
}

/// Reads a frame that arrived at a link whose hardware address is `mac`, where we hold `held` and check what `checked` says.
///
/// Questions are answered that went to all hosts or to us; RFC 826 knows no others. A frame whose sender claims the very
/// address it asks for is an announcement (RFC 5227 section 2.3) and no question. Frames of our own hardware address are
/// reflections.
pub(super) fn read(
    frame: &[u8],
    arp: &Arp,
    mac: Mac,
    held: &BTreeSet<Ipv4Addr>,
    checked: impl Fn(Ipv4Addr) -> bool,
) -> Meaning {
    let to_us = frame.starts_with(&mac.0);
    if (held.contains(&arp.sender) || checked(arp.sender)) && arp.sender_mac != mac {
        let answer = to_us && arp.operation == Operation::Reply && arp.sender != arp.target;
        return Meaning::Foreign { address: arp.sender, mac: arp.sender_mac, announced: !answer };
    }
    match arp.operation {
        Operation::Reply => Meaning::Answered(arp.sender_mac),
        Operation::Request => {
            let to_us = to_us || frame.starts_with(&Mac::BROADCAST.0);
            let asked = to_us && arp.sender != arp.target && held.contains(&arp.target);
            if asked { Meaning::Asked(arp::reply(mac, arp.target, arp.source, arp.sender)) } else { Meaning::Nothing }
        }
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

    fn meaning(frame: &[u8], held: &[Ipv4Addr]) -> Meaning {
        let arp = Arp::decode(frame).expect("ARP");
        read(frame, &arp, MINE, &held.iter().copied().collect(), |address| address == CHECKED)
    }

    #[test]
    fn who_else_has_an_address_of_ours_is_told_from_who_asks_for_it() {
        let foreign = |address, announced| Meaning::Foreign { address, mac: THEIRS, announced };
        let cases = [
            (arp::gratuitous_request(THEIRS, VIP), foreign(VIP, true)),
            (arp::gratuitous_reply(THEIRS, VIP), foreign(VIP, true)),
            (arp::request(THEIRS, VIP, CLIENT), foreign(VIP, true)),
            (arp::reply(THEIRS, VIP, MINE, CLIENT), foreign(VIP, false)),
            (arp::reply(THEIRS, CHECKED, MINE, Ipv4Addr::UNSPECIFIED), foreign(CHECKED, false)),
            (arp::reply(MINE, VIP, MINE, CLIENT), Meaning::Answered(MINE)),
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
        let answer = |asker| Meaning::Asked(arp::reply(MINE, VIP, THEIRS, asker));
        let cases = [
            (asked, answer(CLIENT)),
            (to(MINE, asked), answer(CLIENT)),
            (probe, answer(Ipv4Addr::UNSPECIFIED)),
            (to(Mac([2, 0, 0, 0, 0, 9]), asked), Meaning::Nothing),
            (to(Mac([1, 0, 0x5e, 0, 0, 1]), asked), Meaning::Nothing),
            (arp::request(THEIRS, CLIENT, CHECKED), Meaning::Nothing),
            (arp::gratuitous_request(THEIRS, CLIENT), Meaning::Nothing),
            (arp::reply(THEIRS, CLIENT, MINE, CLIENT), Meaning::Answered(THEIRS)),
        ];
        for (frame, expect) in cases {
            assert_eq!(meaning(&frame, &[VIP]), expect, "{frame:02x?}");
        }
        assert_eq!(meaning(&asked, &[]), Meaning::Nothing);
    }
}
