//! Frames with VLAN tags (IEEE 802.1Q) at an interface without VLANs: frames of another VLAN are
//! dropped, those with only a priority are accepted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ferrolb_proto::wire::hello::{Body, FailingReport, Flags, Frame};
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_speaker::metrics::DropReason;

use crate::raw_socket::{CapturedReply, RawSocket, plain_replies};
use crate::segment::Segment;
use crate::speaker::{
    BOTH, HOSTS, VIP, VIP6, client_replies, key, runtime, start_pair, wait_for_count,
};

/// The EtherTypes of a customer's tag and of a provider's (IEEE 802.1Q clause 9.5).
const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// The priority bits of a tag, all set.
const PRIORITY: u16 = 0xe000;
/// Sender of tagged requests.
const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 105);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x105);

/// Returns the frame with these tags, the outermost first: EtherType and control information.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags
        .iter()
        .flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()].concat());
    [&frame[..12], &tags.collect::<Vec<_>>(), &frame[12..]].concat()
}

/// Returns requests for the addresses in every form that gets a reply; the reply to the last one
/// goes to all nodes.
fn requests(from: Mac, to: Mac) -> [Vec<u8>; 6] {
    let mut to_one = arp::request(from, ASKER, VIP);
    to_one[..6].copy_from_slice(&to.0);
    [
        arp::request(from, ASKER, VIP).to_vec(),
        to_one.to_vec(),
        arp::request(from, Ipv4Addr::UNSPECIFIED, VIP).to_vec(),
        ndp::solicitation(from, ASKER6, VIP6).to_vec(),
        ndp::unicast_solicitation(from, ASKER6, VIP6, to).to_vec(),
        ndp::dad_solicitation(from, VIP6).to_vec(),
    ]
}

#[test]
fn a_question_with_the_tag_of_another_network_is_not_answered() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let seen = RawSocket::tagged(&lan, "client", "eth0");
        let ways: [&[(u16, u16)]; 8] = [
            &[(C_TAG, 5)],
            &[(C_TAG, PRIORITY | 5)],
            &[(C_TAG, 4095)],
            &[(S_TAG, 5)],
            &[(S_TAG, 5), (C_TAG, 6)],
            &[(S_TAG, 5), (C_TAG, 0)],
            &[(S_TAG, 0), (C_TAG, 5)],
            &[(C_TAG, 0), (C_TAG, 5)],
        ];
        let before = client_replies(&owner, &other);
        for tags in ways {
            requests(client.mac, owner.mac)
                .iter()
                .for_each(|question| client.send(&tagged(question, tags)));
            assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac), "{tags:04x?}");
        }
        // Only the plain requests: duplicate address detection, whose reply goes to all nodes, got
        // none either.
        wait_for_count(|| client_replies(&owner, &other), before + 2 * 8).await;
        // No frame of a speaker had a tag. The socket does receive a tagged frame:
        let last = Mac([2, 0, 0, 0, 0, 9]);
        RawSocket::open(&lan, "node2", "eth0")
            .send(&tagged(&arp::gratuitous_request(last, ASKER), ways[0]));
        let frames = seen.until("a frame with a tag", |frame| frame[6..12] == last.0);
        assert_eq!(frames.len(), 1, "{frames:02x?}");
    });
}

#[test]
fn a_question_with_a_priority_and_no_network_is_answered_as_the_kernel_does() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let seen = RawSocket::tagged(&lan, "client", "eth0");
        // An address of the node itself: its kernel's behavior is the reference for ours.
        let own = Ipv4Addr::new(172, 30, 0, 9);
        let name = HOSTS.into_iter().find(|name| lan.mac(name) == owner.mac).expect("one of them");
        lan.ip("-n", name, &format!("address add {own}/24 dev eth0"));
        let ways: [&[(u16, u16)]; 4] =
            [&[(C_TAG, 0)], &[(C_TAG, PRIORITY)], &[(S_TAG, 0)], &[(S_TAG, 0), (C_TAG, 0)]];
        for tags in ways {
            client.send(&tagged(&arp::request(client.mac, ASKER, own), tags));
            let before = client_replies(&owner, &other);
            requests(client.mac, owner.mac)
                .iter()
                .for_each(|question| client.send(&tagged(question, tags)));
            let told = |address: IpAddr, asker: IpAddr| CapturedReply {
                address,
                mac: owner.mac,
                requester: asker,
            };
            let (v4, v6) = (told(VIP.into(), ASKER.into()), told(VIP6.into(), ASKER6.into()));
            let probed = told(VIP.into(), Ipv4Addr::UNSPECIFIED.into());
            let mut expect = vec![told(own.into(), ASKER.into()), v4, v4, probed, v6, v6];
            expect.extend(plain_replies(owner.mac));
            let mut answers = client.probe_and_collect_replies();
            answers.sort();
            expect.sort();
            assert_eq!(answers, expect, "{tags:04x?}");
            // The reply to duplicate address detection goes to all nodes, as announcements do.
            wait_for_count(|| client_replies(&owner, &other), before + 6 + 2).await;
        }
        assert_eq!(seen.next(), None, "the answers have no tag");
    });
}

#[test]
fn a_frame_for_a_link_above_is_not_heard_by_the_link_below() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let host = HOSTS.into_iter().find(|host| lan.mac(host) == owner.mac).expect("one of them");
        // As with a VLAN, the kernel also passes a macvlan's frames to the sockets of the interface
        // below.
        let above = Mac([2, 0, 0, 0, 0, 8]);
        lan.ip(
            "-n",
            host,
            &format!("link add link eth0 name above0 address {above} up type macvlan mode private"),
        );
        let seen = RawSocket::open(&lan, host, "eth0");
        let question = ndp::unicast_solicitation(client.mac, ASKER6, VIP6, above);
        let before = client_replies(&owner, &other);
        client.send(&question);
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        wait_for_count(|| client_replies(&owner, &other), before + 2).await;
        seen.until("the question at the link below", |frame| frame == question);
    });
}

#[test]
fn a_hello_with_the_tag_of_another_network_is_not_heard() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &BOTH).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let hello = |sequence| {
            let body = Body::Hello {
                generation: 0,
                accepted_keys: vec![key().id()],
                failing: FailingReport::default(),
            };
            let interval = Duration::from_millis(50);
            let (epoch, flags) = (9, Flags::default());
            let frame = Frame {
                node: "node9".into(),
                epoch,
                sequence,
                clock: u64::from(sequence),
                interval,
                flags,
                body,
            };
            frame.encode(client.mac, None, &key())
        };
        let unproven = owner.metrics.dropped(DropReason::ChallengePending);
        let before = unproven.get();
        for sequence in 1..=20 {
            client.send(&tagged(&hello(sequence), &[(C_TAG, 5)]));
            client.send(&tagged(&hello(sequence), &[(S_TAG, 5), (C_TAG, 6)]));
        }
        // One with only a priority, and a plain one: both are accepted, and their sender has yet to
        // prove that it is alive.
        client.send(&tagged(&hello(21), &[(C_TAG, PRIORITY)]));
        client.send(&hello(22));
        wait_for_count(|| unproven.get(), before + 2).await;
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        let report = owner.progress.borrow().clone().expect("the thread lives");
        assert_eq!((report.speakers.len(), report.owned.len()), (1, 2), "node9 is nobody");
    });
}
