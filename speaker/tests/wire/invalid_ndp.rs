//! Neighbor Discovery that is malformed, breaks the rules (RFC 4861 sections 7.1.1 and 7.1.2) or
//! spoofs: the speakers neither reply nor accept it, and the owner keeps its addresses. ARP and
//! hello frames of this kind have a test in a whole cluster (tests/cluster/hostile_frames.rs).

use std::net::Ipv6Addr;
use std::time::Duration;

use ferrolb_proto::claim::{AddressConflict, ConflictKind};
use ferrolb_proto::wire::{ETHERNET_HEADER_LENGTH, Mac, ndp};
use ferrolb_speaker::metrics::DropReason;

use crate::raw_socket::{LONGEST, RawSocket};
use crate::segment::Segment;
use crate::speaker::{
    BOTH, HOSTS, TestSpeaker, VIP6, client_replies, runtime, start_pair, wait_for_count,
};

/// Sender of the requests and of the spoofed frames.
const ASKER: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x105);
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
/// Frames between two plain requests: fewer than a socket queues for a delayed thread.
const CHUNK: usize = 50;
/// Duration of the ARP probes of a new address and of the wait for replies. A foreign host that
/// claims the address later does not get it.
const ARP_PROBE_TIME: Duration = Duration::from_millis(600 + 1000);
/// Repetitions of each spoofed frame.
const SPOOFED_REPEATS: usize = 20;

/// Returns the frame with these bytes replaced, and with the correct payload length and checksum
/// (RFC 4443 section 2.3).
fn with(frame: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
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

/// Returns random bytes after `head`, the same in every run (xorshift32, seeded by the length).
fn noise(head: &[u8], length: usize) -> Vec<u8> {
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
        let (owner, other) = start_pair(lan, &BOTH).await;
        let host = HOSTS.into_iter().find(|host| lan.mac(host) == owner.mac).expect("one of them");
        let (client, door) =
            (RawSocket::open(lan, "client", "eth0"), RawSocket::open(lan, host, "eth0"));
        Self { owner, other, client, owner_port: door }
    }

    /// Sends frames and waits until all have reached the owner's interface. Returns how many of
    /// them got a reply from the owner.
    async fn answered(&self, frames: &[Vec<u8>]) -> usize {
        let before = client_replies(&self.owner, &self.other);
        let mut count = 0;
        for chunk in frames.chunks(CHUNK) {
            chunk.iter().for_each(|frame| self.client.send(frame));
            let answers = self.client.probe_and_collect_replies();
            assert!(answers.iter().all(|answer| answer.mac == self.owner.mac), "{answers:?}");
            count += answers.len();
            for frame in chunk {
                self.owner_port.until("each frame at the owner's link", |seen| seen == frame);
            }
        }
        // No reply went elsewhere, as a reply to a host without an address does.
        wait_for_count(|| client_replies(&self.owner, &self.other), before + count as u64).await;
        count - 2 * frames.chunks(CHUNK).len()
    }

    fn assert_owner_unchanged(&self) {
        assert!(self.owner.owns_any() && !self.other.owns_any());
    }
}

/// Returns invalid requests, each kind with its fault.
fn invalid(mac: Mac, owner: Mac) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let asked = ndp::solicitation(mac, ASKER, VIP6);
    let nobody = ndp::dad_solicitation(mac, VIP6);
    let flipped = |at: usize| {
        let mut frame = asked.to_vec();
        frame[at] ^= 0x55;
        frame
    };
    let own = [&[1, 1][..], &mac.0].concat();
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
    let mut to_one = with(&nobody, &[(DESTINATION, &VIP6.octets())]);
    to_one[..6].copy_from_slice(&owner.0);
    let of_nobody = [
        to_one,
        with(&nobody, &[(DESTINATION, &ALL_NODES.octets())]),
        with(&nobody, &[(OPTIONS, own.as_slice())]),
    ];
    // An extension header without content before the message (RFC 8200 section 4.3).
    let mut extended = asked[..TYPE].to_vec();
    extended[ETHERNET_HEADER_LENGTH + 6] = 0;
    extended[PAYLOAD_LENGTH + 1] += 8;
    extended.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&asked[TYPE..]);
    vec![
        (
            "cut short, at each length",
            (ETHERNET_HEADER_LENGTH..asked.len()).map(|end| asked[..end].to_vec()).collect(),
        ),
        // Except for the flow label, which has no meaning for a host.
        (
            "one byte changed, each in turn",
            [12..15, 18..asked.len()].into_iter().flatten().map(flipped).collect(),
        ),
        (
            "against a rule, and with a checksum that is right",
            rules.iter().map(|changes| with(&asked, changes)).collect(),
        ),
        ("of nobody, who asks one host, all, or says where it is", of_nobody.to_vec()),
        ("behind an extension header", vec![extended]),
        (
            "noise of every length",
            (ETHERNET_HEADER_LENGTH..=LONGEST).map(|length| noise(&asked[..14], length)).collect(),
        ),
        (
            "noise behind the headers",
            (TYPE + 1..=LONGEST).map(|length| noise(&asked[..=TYPE], length)).collect(),
        ),
    ]
}

/// Returns requests in an unusual form that require a reply.
fn unusual(mac: Mac) -> Vec<Vec<u8>> {
    let asked = ndp::solicitation(mac, ASKER, VIP6);
    let label = |at: usize| {
        let mut frame = asked.to_vec();
        frame[at] ^= 0x55;
        frame
    };
    let padded = |length: usize| noise(&asked, length);
    let nonces = [14, 1, 9, 9, 9, 9, 9, 9].repeat((LONGEST - asked.len()) / 8);
    let long_option = [&[1, 2][..], &[9; 14]].concat();
    vec![
        label(15),
        label(16),
        label(17),
        padded(100),
        padded(LONGEST),
        with(&asked, &[(asked.len(), &nonces)]),
        with(&asked, &[(OPTIONS, &long_option)]),
        with(&asked[..OPTIONS], &[]),
        with(&asked, &[(DESTINATION, &ALL_NODES.octets())]),
    ]
}

/// Returns spoofed frames that claim the address for another host, each in a different form, and
/// then frames that are invalid or claim nothing.
fn spoofed(mac: Mac, owner: Mac) -> [Vec<Vec<u8>>; 2] {
    let told = ndp::unsolicited_advertisement(mac, VIP6);
    let option = |at: Mac| with(&told, &[(OPTIONS + 2, &at.0)]);
    let mut reflected = told.to_vec();
    reflected[6..12].copy_from_slice(&owner.0);
    [
        vec![
            told.to_vec(),
            with(&told, &[(FLAGS, &[0])]),
            with(&told[..OPTIONS], &[]),
            option(Mac::ZERO),
            option(Mac::BROADCAST),
            ndp::solicited_advertisement(mac, VIP6, owner, ASKER).to_vec(),
            ndp::solicitation(mac, VIP6, ASKER).to_vec(),
        ],
        vec![
            with(&told, &[(FLAGS, &[0x60])]),
            with(&told, &[(HOP_LIMIT, &[64])]),
            with(&told, &[(SENDER, &ALL_NODES.octets())]),
            with(&told, &[(OPTIONS + 1, &[0])]),
            option(owner),
            reflected,
        ],
    ]
}

#[test]
fn a_question_for_an_ipv6_address_is_answered_in_every_form_that_has_to_be_and_in_no_other() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let stage = Topology::create(&lan).await;
        let (client, owner) = (stage.client.mac, &stage.owner);
        for (what, frames) in invalid(client, owner.mac) {
            assert_eq!(stage.answered(&frames).await, 0, "{what}");
        }
        for (place, frame) in unusual(client).into_iter().enumerate() {
            assert_eq!(stage.answered(&[frame]).await, 1, "form {place}");
        }
        stage.assert_owner_unchanged();
        assert_eq!(owner.metrics.dropped(DropReason::KernelNdp).get(), 0, "all of it was read");
        assert_eq!(owner.metrics.foreign_frames.get(), 0);
    });
}

#[test]
fn a_stranger_that_says_an_ipv6_address_is_its_own_is_counted_and_does_not_get_it() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let mut stage = Topology::create(&lan).await;
        let (client, owner) = (stage.client.mac, stage.owner.mac);
        let strangers = stage.owner.metrics.foreign_frames.clone();
        tokio::time::sleep(ARP_PROBE_TIME).await;
        let [seen, unseen] = spoofed(client, owner);
        for lie in unseen {
            assert_eq!(stage.answered(&vec![lie; SPOOFED_REPEATS]).await, 0);
        }
        assert_eq!(strangers.get(), 0);
        for (lie, told) in seen.into_iter().zip(1..) {
            assert_eq!(stage.answered(&vec![lie; SPOOFED_REPEATS]).await, 0);
            wait_for_count(|| strangers.get(), told * SPOOFED_REPEATS as u64).await;
        }
        let trouble =
            AddressConflict { address: VIP6.into(), mac: client, kind: ConflictKind::ForeignHost };
        stage
            .owner
            .until("named the stranger", |report| *report.conflicts == [trouble.clone()])
            .await;
        stage.assert_owner_unchanged();
        lan.client_learns(VIP6, owner).await;
    });
}
