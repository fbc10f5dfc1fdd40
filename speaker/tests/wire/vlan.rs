//! Frames with VLAN tags (IEEE 802.1Q) at an interface without VLANs: frames of another VLAN are
//! dropped, and frames with only a priority are accepted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Flags, Frame};
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_speaker::metrics::DropReason;

use crate::raw_socket::{CapturedReply, RawSocket, plain_replies};
use crate::segment::Segment;
use crate::speaker::{
    BOTH_VIPS, HOSTS, VIP, VIP6, client_replies, key, runtime, start_pair, wait_for_count,
};

/// The EtherTypes of a customer's tag and of a provider's (IEEE 802.1Q clause 9.5).
const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// The priority bits of a tag, all set.
const PRIORITY: u16 = 0xe000;
/// Sender of tagged requests.
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 105);
const REQUESTER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x105);

/// Returns the frame with these tags, the outermost first. A tag is an EtherType and its control
/// information.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags
        .iter()
        .flat_map(|(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()].concat());
    [&frame[..12], &tags.collect::<Vec<_>>(), &frame[12..]].concat()
}

/// Returns requests for the addresses in every form that gets a reply; the reply to the last
/// request goes to all nodes.
fn requests(from: Mac, to: Mac) -> [Vec<u8>; 6] {
    let mut unicast_request = arp::request(from, REQUESTER, VIP);
    unicast_request[..6].copy_from_slice(&to.0);
    [
        arp::request(from, REQUESTER, VIP).to_vec(),
        unicast_request.to_vec(),
        arp::request(from, Ipv4Addr::UNSPECIFIED, VIP).to_vec(),
        ndp::solicitation(from, REQUESTER6, VIP6).to_vec(),
        ndp::unicast_solicitation(from, REQUESTER6, VIP6, to).to_vec(),
        ndp::dad_solicitation(from, VIP6).to_vec(),
    ]
}

#[test]
fn requests_tagged_with_another_vlan_get_no_reply() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let tagged_socket = RawSocket::tagged(&lan, "client", "eth0");
        let tag_stacks: [&[(u16, u16)]; 8] = [
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
        for tags in tag_stacks {
            requests(client.mac, owner.mac)
                .iter()
                .for_each(|request| client.send(&tagged(request, tags)));
            assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac), "{tags:04x?}");
        }
        // Only the plain requests got replies. The count includes replies to all nodes, so
        // duplicate address detection got none either.
        wait_for_count(|| client_replies(&owner, &other), before + 2 * 8).await;
        // No frame of a speaker had a tag: the socket receives only the tagged frame sent here.
        let sender = Mac([2, 0, 0, 0, 0, 9]);
        RawSocket::open(&lan, "node2", "eth0")
            .send(&tagged(&arp::gratuitous_request(sender, REQUESTER), tag_stacks[0]));
        let frames =
            tagged_socket.read_until("a frame with a tag", |frame| frame[6..12] == sender.0);
        assert_eq!(frames.len(), 1, "{frames:02x?}");
    });
}

#[test]
fn priority_tagged_requests_get_replies_as_from_the_kernel() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let tagged_socket = RawSocket::tagged(&lan, "client", "eth0");
        // The node's kernel replies for the node's own address; the speaker must reply to the same
        // frames.
        let node_address = Ipv4Addr::new(172, 30, 0, 9);
        let name = HOSTS
            .into_iter()
            .find(|name| lan.mac(name) == owner.mac)
            .expect("the owner is one of the hosts");
        lan.ip("-n", name, &format!("address add {node_address}/24 dev eth0"));
        let tag_stacks: [&[(u16, u16)]; 4] =
            [&[(C_TAG, 0)], &[(C_TAG, PRIORITY)], &[(S_TAG, 0)], &[(S_TAG, 0), (C_TAG, 0)]];
        for tags in tag_stacks {
            client.send(&tagged(&arp::request(client.mac, REQUESTER, node_address), tags));
            let before = client_replies(&owner, &other);
            requests(client.mac, owner.mac)
                .iter()
                .for_each(|request| client.send(&tagged(request, tags)));
            let reply_for = |address: IpAddr, requester: IpAddr| CapturedReply {
                address,
                mac: owner.mac,
                requester,
            };
            let (v4, v6) = (
                reply_for(VIP.into(), REQUESTER.into()),
                reply_for(VIP6.into(), REQUESTER6.into()),
            );
            let probed = reply_for(VIP.into(), Ipv4Addr::UNSPECIFIED.into());
            let mut expect =
                vec![reply_for(node_address.into(), REQUESTER.into()), v4, v4, probed, v6, v6];
            expect.extend(plain_replies(owner.mac));
            let mut replies = client.probe_and_collect_replies();
            replies.sort();
            expect.sort();
            assert_eq!(replies, expect, "{tags:04x?}");
            // The reply to duplicate address detection goes to all nodes, as announcements do.
            wait_for_count(|| client_replies(&owner, &other), before + 6 + 2).await;
        }
        assert_eq!(tagged_socket.next(), None, "the replies have no tag");
    });
}

#[test]
fn a_frame_for_a_macvlan_is_ignored_by_the_lower_interface() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, other) = start_pair(&lan, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let host = HOSTS
            .into_iter()
            .find(|host| lan.mac(host) == owner.mac)
            .expect("the owner is one of the hosts");
        // The kernel also passes the frames of a macvlan, like those of a VLAN, to the sockets of
        // the lower interface.
        let macvlan_mac = Mac([2, 0, 0, 0, 0, 8]);
        lan.ip(
            "-n",
            host,
            &format!(
                "link add link eth0 name above0 address {macvlan_mac} up type macvlan mode private"
            ),
        );
        let lower_socket = RawSocket::open(&lan, host, "eth0");
        let request = ndp::unicast_solicitation(client.mac, REQUESTER6, VIP6, macvlan_mac);
        let before = client_replies(&owner, &other);
        client.send(&request);
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        wait_for_count(|| client_replies(&owner, &other), before + 2).await;
        lower_socket.read_until("the request at the lower interface", |frame| frame == request);
    });
}

#[test]
fn a_hello_tagged_with_another_vlan_is_ignored() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let hello = |clock| {
            let body = Body::Hello { accepted_keys: vec![key().id()] };
            let interval = Duration::from_millis(50);
            let (epoch, flags) = (9, Flags::default());
            let frame = Frame {
                node: "node9".into(),
                epoch,
                clock,
                claim_set: ClaimSetSummary::default(),
                interval,
                detection_time: None,
                flags,
                body,
            };
            frame.encode(client.mac, None, &key())
        };
        let challenge_pending = owner.metrics.dropped(DropReason::ChallengePending);
        let before = challenge_pending.get();
        for clock in 1..=20 {
            client.send(&tagged(&hello(clock), &[(C_TAG, 5)]));
            client.send(&tagged(&hello(clock), &[(S_TAG, 5), (C_TAG, 6)]));
        }
        // The speaker accepts a hello with only a priority and one without a tag. Their sender has
        // not responded to a challenge yet.
        client.send(&tagged(&hello(21), &[(C_TAG, PRIORITY)]));
        client.send(&hello(22));
        wait_for_count(|| challenge_pending.get(), before + 2).await;
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        let report = owner.thread_state.borrow().clone().expect("the thread runs");
        assert_eq!((report.speakers.len(), report.owned.len()), (1, 2), "node9 is no member");
    });
}
