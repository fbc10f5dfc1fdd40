//! Neighbor Discovery that is malformed, breaks the rules (RFC 4861 sections 7.1.1 and 7.1.2) or is
//! spoofed: the speakers do not accept such frames, and the owner keeps its addresses. For invalid
//! ARP and hello frames see tests/cluster/hostile_frames.rs.

use std::net::Ipv6Addr;
use std::time::Duration;

use ferrolb_proto::wire::{ETHERNET_HEADER_LENGTH, Mac, ndp};
use ferrolb_speaker::metrics::DropReason;
use ferrolb_speaker_core::claim::{AddressConflict, ConflictKind};

use crate::raw_socket::{FRAME_LENGTH_MAX, RawSocket};
use crate::segment::Segment;
use crate::speaker::{
    BOTH_VIPS, HOSTS, TestSpeaker, VIP6, client_replies, runtime, start_pair, wait_for_count,
};

/// Sender of the requests and of the spoofed frames.
const REQUESTER: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x105);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
// Offsets in a frame (RFC 8200 section 3, RFC 4861 section 4.3), in bytes.
const PAYLOAD_LENGTH: usize = ETHERNET_HEADER_LENGTH + 4;
const HOP_LIMIT: usize = ETHERNET_HEADER_LENGTH + 7;
const SENDER: usize = ETHERNET_HEADER_LENGTH + 8;
const DESTINATION: usize = ETHERNET_HEADER_LENGTH + 24;
const TYPE: usize = ETHERNET_HEADER_LENGTH + 40;
const CODE: usize = TYPE + 1;
const CHECKSUM: usize = TYPE + 2;
const FLAGS: usize = TYPE + 4;
const OPTIONS: usize = TYPE + 24;
/// Number of frames between two plain requests, fewer than a socket queues for a delayed thread.
const CHUNK: usize = 50;
/// Duration of duplicate address detection for a new address, including the wait for replies. After
/// this time the owner defends the address against a foreign host.
const DUPLICATE_DETECTION_TIME: Duration = Duration::from_millis(600 + 1000);
/// Repetitions of each spoofed frame.
const SPOOFED_REPEATS: usize = 20;

/// Returns the frame with the bytes at these offsets replaced, and with the correct payload length
/// and checksum (RFC 4443 section 2.3).
fn patch(frame: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (at, bytes) in changes {
        frame.resize(frame.len().max(at + bytes.len()), 0);
        frame[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let length = u16::try_from(frame.len() - TYPE).expect("a frame");
    frame[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 2].copy_from_slice(&length.to_be_bytes());
    frame[CHECKSUM..CHECKSUM + 2].fill(0);
    let words = frame[SENDER..]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>() + u32::from(length) + u32::from(libc::IPPROTO_ICMPV6 as u8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded");
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Returns `head` and random bytes up to the length, the same in every run (xorshift32, seeded by
/// the length).
fn append_noise(head: &[u8], length: usize) -> Vec<u8> {
    let mut state = 2_463_534_242_u32 ^ u32::try_from(length).unwrap_or_default();
    let mut frame = head.to_vec();
    frame.resize_with(length, || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    });
    frame
}

/// The topology of these tests: both speakers and the sockets at the ends of the segment.
struct Topology {
    owner: TestSpeaker,
    other: TestSpeaker,
    client: RawSocket,
    /// The owner's interface, as its kernel sees it.
    owner_port: RawSocket,
}

impl Topology {
    async fn create(lan: &Segment) -> Self {
        let (owner, other) = start_pair(lan, &BOTH_VIPS).await;
        let host = HOSTS
            .into_iter()
            .find(|host| lan.mac(host) == owner.mac)
            .expect("the owner is one of the hosts");
        let (client, owner_port) =
            (RawSocket::open(lan, "client", "eth0"), RawSocket::open(lan, host, "eth0"));
        Self { owner, other, client, owner_port }
    }

    /// Sends frames and waits until all have reached the owner's interface. Returns how many of
    /// them got a reply from the owner.
    async fn count_replies(&self, frames: &[Vec<u8>]) -> usize {
        let before = client_replies(&self.owner, &self.other);
        let mut count = 0;
        for chunk in frames.chunks(CHUNK) {
            chunk.iter().for_each(|frame| self.client.send(frame));
            let replies = self.client.probe_and_collect_replies();
            assert!(replies.iter().all(|reply| reply.mac == self.owner.mac), "{replies:?}");
            count += replies.len();
            for frame in chunk {
                self.owner_port
                    .read_until("each frame at the owner's interface", |seen| seen == frame);
            }
        }
        // The owner sent no other reply, such as one to all nodes for a sender without an address.
        wait_for_count(|| client_replies(&self.owner, &self.other), before + count as u64).await;
        count - 2 * frames.chunks(CHUNK).len()
    }

    fn assert_owner_unchanged(&self) {
        assert!(self.owner.owns_any() && !self.other.owns_any());
    }
}

/// Returns invalid requests, grouped by their fault.
fn invalid_requests(mac: Mac, owner: Mac) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let valid = ndp::solicitation(mac, REQUESTER, VIP6);
    let dad = ndp::dad_solicitation(mac, VIP6);
    let flipped = |at: usize| {
        let mut frame = valid.to_vec();
        frame[at] ^= 0x55;
        frame
    };
    let mac_option = [&[1, 1][..], &mac.0].concat();
    let rules: [&[(usize, &[u8])]; 11] = [
        &[(HOP_LIMIT, &[254])],
        &[(HOP_LIMIT, &[0])],
        &[(CODE, &[1])],
        &[(TYPE, &[134])],
        &[(SENDER, &ALL_NODES.octets())],
        &[(SENDER, &[0; 16])],
        &[(OPTIONS + 1, &[0])],
        &[(OPTIONS + 1, &[2])],
        &[(OPTIONS + 1, &[255])],
        &[(OPTIONS + 8, &[14])],
        &[(OPTIONS + 8, &[14, 0, 0, 0, 0, 0, 0, 0])],
    ];
    let mut unicast_dad = patch(&dad, &[(DESTINATION, &VIP6.octets())]);
    unicast_dad[..6].copy_from_slice(&owner.0);
    let invalid_dad = [
        unicast_dad,
        patch(&dad, &[(DESTINATION, &ALL_NODES.octets())]),
        patch(&dad, &[(OPTIONS, mac_option.as_slice())]),
    ];
    // An extension header without content before the message (RFC 8200 section 4.3).
    let mut extended = valid[..TYPE].to_vec();
    extended[ETHERNET_HEADER_LENGTH + 6] = 0;
    extended[PAYLOAD_LENGTH + 1] += 8;
    extended.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&valid[TYPE..]);
    vec![
        (
            "truncated at each length",
            (ETHERNET_HEADER_LENGTH..valid.len()).map(|end| valid[..end].to_vec()).collect(),
        ),
        // The flow label is not changed, because it has no meaning for a host.
        (
            "one byte changed, each in turn",
            [12..15, 18..valid.len()].into_iter().flatten().map(flipped).collect(),
        ),
        (
            "a violated rule of RFC 4861, with a correct checksum",
            rules.iter().map(|changes| patch(&valid, changes)).collect(),
        ),
        (
            "invalid duplicate address detection: unicast, to all nodes, or with a MAC option",
            invalid_dad.to_vec(),
        ),
        ("behind an extension header", vec![extended]),
        (
            "random bytes of each length",
            (ETHERNET_HEADER_LENGTH..=FRAME_LENGTH_MAX)
                .map(|length| append_noise(&valid[..14], length))
                .collect(),
        ),
        (
            "random bytes after the headers",
            (TYPE + 1..=FRAME_LENGTH_MAX)
                .map(|length| append_noise(&valid[..=TYPE], length))
                .collect(),
        ),
    ]
}

/// Returns requests in an unusual form that require a reply.
fn unusual_requests(mac: Mac) -> Vec<Vec<u8>> {
    let valid = ndp::solicitation(mac, REQUESTER, VIP6);
    let label = |at: usize| {
        let mut frame = valid.to_vec();
        frame[at] ^= 0x55;
        frame
    };
    let padded = |length: usize| append_noise(&valid, length);
    let nonces = [14, 1, 9, 9, 9, 9, 9, 9].repeat((FRAME_LENGTH_MAX - valid.len()) / 8);
    let long_option = [&[1, 2][..], &[9; 14]].concat();
    vec![
        label(15),
        label(16),
        label(17),
        padded(100),
        padded(FRAME_LENGTH_MAX),
        patch(&valid, &[(valid.len(), &nonces)]),
        patch(&valid, &[(OPTIONS, &long_option)]),
        patch(&valid[..OPTIONS], &[]),
        patch(&valid, &[(DESTINATION, &ALL_NODES.octets())]),
    ]
}

/// Returns spoofed frames that claim the address for another host, one of each form, and then
/// frames that are invalid or claim no address.
fn spoofed_frames(mac: Mac, owner: Mac) -> [Vec<Vec<u8>>; 2] {
    let advertisement = ndp::unsolicited_advertisement(mac, VIP6);
    let with_mac_option = |at: Mac| patch(&advertisement, &[(OPTIONS + 2, &at.0)]);
    let mut reflected = advertisement.to_vec();
    reflected[6..12].copy_from_slice(&owner.0);
    [
        vec![
            advertisement.to_vec(),
            patch(&advertisement, &[(FLAGS, &[0])]),
            patch(&advertisement[..OPTIONS], &[]),
            with_mac_option(Mac::ZERO),
            with_mac_option(Mac::BROADCAST),
            ndp::solicited_advertisement(mac, VIP6, owner, REQUESTER).to_vec(),
            ndp::solicitation(mac, VIP6, REQUESTER).to_vec(),
        ],
        vec![
            patch(&advertisement, &[(FLAGS, &[0x60])]),
            patch(&advertisement, &[(HOP_LIMIT, &[64])]),
            patch(&advertisement, &[(SENDER, &ALL_NODES.octets())]),
            patch(&advertisement, &[(OPTIONS + 1, &[0])]),
            with_mac_option(owner),
            reflected,
        ],
    ]
}

#[test]
fn only_valid_solicitations_get_a_reply() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let topology = Topology::create(&lan).await;
        let (client, owner) = (topology.client.mac, &topology.owner);
        for (fault, frames) in invalid_requests(client, owner.mac) {
            assert_eq!(topology.count_replies(&frames).await, 0, "{fault}");
        }
        for (index, frame) in unusual_requests(client).into_iter().enumerate() {
            assert_eq!(topology.count_replies(&[frame]).await, 1, "request {index} gets no reply");
        }
        topology.assert_owner_unchanged();
        assert_eq!(
            owner.metrics.dropped(DropReason::KernelNdp).get(),
            0,
            "the kernel dropped no NDP frame"
        );
        assert_eq!(owner.metrics.foreign_frames.get(), 0);
    });
}

#[test]
fn spoofed_advertisements_are_counted_and_move_no_address() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let mut topology = Topology::create(&lan).await;
        let (client, owner) = (topology.client.mac, topology.owner.mac);
        let foreign_frames = topology.owner.metrics.foreign_frames.clone();
        tokio::time::sleep(DUPLICATE_DETECTION_TIME).await;
        let [claims, ignored] = spoofed_frames(client, owner);
        for frame in ignored {
            assert_eq!(topology.count_replies(&vec![frame; SPOOFED_REPEATS]).await, 0);
        }
        assert_eq!(foreign_frames.get(), 0);
        for (frame, forms) in claims.into_iter().zip(1..) {
            assert_eq!(topology.count_replies(&vec![frame; SPOOFED_REPEATS]).await, 0);
            wait_for_count(|| foreign_frames.get(), forms * SPOOFED_REPEATS as u64).await;
        }
        let conflict =
            AddressConflict { address: VIP6.into(), mac: client, kind: ConflictKind::ForeignHost };
        topology
            .owner
            .wait_until("reported the foreign host", |report| {
                *report.conflicts == [conflict.clone()]
            })
            .await;
        topology.assert_owner_unchanged();
        lan.client_learns(VIP6, owner).await;
    });
}
