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
    /// Someone at this MAC answered a question.
    Answered(Mac),
    /// Nothing to us.
    Nothing,
}

/// Reads a frame that arrived at a link whose hardware address is `mac`, where we hold `held`.
///
/// Questions are answered that went to all hosts or to us; RFC 826 knows no others. A frame whose sender claims the very
/// address it asks for is an announcement (RFC 5227 section 2.3) and no question.
pub(super) fn read(frame: &[u8], mac: Mac, held: &BTreeSet<Ipv4Addr>) -> Meaning {
    let Some(arp) = Arp::decode(frame) else { return Meaning::Nothing };
    match arp.operation {
        Operation::Reply => Meaning::Answered(arp.sender_mac),
        Operation::Request => {
            let to_us = frame.starts_with(&Mac::BROADCAST.0) || frame.starts_with(&mac.0);
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
    const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 100);

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
            (arp::request(THEIRS, CLIENT, Ipv4Addr::new(172, 30, 0, 201)), Meaning::Nothing),
            (arp::gratuitous_request(THEIRS, VIP), Meaning::Nothing),
            (arp::reply(THEIRS, VIP, MINE, CLIENT), Meaning::Answered(THEIRS)),
        ];
        for (frame, expect) in cases {
            assert_eq!(read(&frame, MINE, &[VIP].into()), expect, "{frame:02x?}");
        }
        assert_eq!(read(&asked, MINE, &BTreeSet::new()), Meaning::Nothing);
        assert_eq!(read(&asked[..20], MINE, &[VIP].into()), Meaning::Nothing);
    }
}
