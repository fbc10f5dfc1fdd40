//! Neighbor Discovery that is broken, breaks the rules or lies (RFC 4861 sections 7.1.1 and 7.1.2): none of it is answered or
//! believed, and the owner goes on. ARP and hello frames of that kind have a test in a whole cluster (tests/cluster/hostile_frames.rs).

use std::net::Ipv6Addr;
use std::time::Duration;

use ferrolb_proto::claim::{Trouble, TroubleKind};
use ferrolb_proto::wire::{ETHERNET_HEADER, Mac, ndp};
use ferrolb_speaker::metrics::Drop;

use crate::lan::Lan;
use crate::port::{LONGEST, Port};
use crate::speaker::{BOTH, HOSTS, Speaker, VIP6, answered, counted, elected, runtime};

/// Who asks, and from where lies come.
const ASKER: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x105);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
// Where things are in a frame (RFC 8200 section 3, RFC 4861 section 4.3), in bytes.
const PAYLOAD_LENGTH: usize = ETHERNET_HEADER + 4;
const HOP_LIMIT: usize = ETHERNET_HEADER + 7;
const SENDER: usize = ETHERNET_HEADER + 8;
const DESTINATION: usize = ETHERNET_HEADER + 24;
const TYPE: usize = ETHERNET_HEADER + 40;
const CODE: usize = TYPE + 1;
const CHECKSUM: usize = TYPE + 2;
const FLAGS: usize = TYPE + 4;
const OPTIONS: usize = TYPE + 24;
/// Frames that are sent before the next plain question: fewer than a socket keeps for a thread that is late.
const CHUNK: usize = 50;
/// How long a fresh address is checked, and answers to that are listened for. What a stranger says after it does not get the address.
const CHECKED: Duration = Duration::from_millis(600 + 1000);
/// How often each lie is told.
const LIES: usize = 20;

/// The frame with these bytes put in, and its payload length and checksum (RFC 4443 section 2.3) right again.
fn with(frame: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (at, bytes) in changes {
        frame.resize(frame.len().max(at + bytes.len()), 0);
        frame[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let length = u16::try_from(frame.len() - TYPE).expect("a frame");
    frame[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 2].copy_from_slice(&length.to_be_bytes());
    frame[CHECKSUM..CHECKSUM + 2].fill(0);
    let words = frame[SENDER..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u32>() + u32::from(length) + u32::from(libc::IPPROTO_ICMPV6 as u8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded");
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Bytes without sense behind `head`, the same at every run (xorshift32, seeded by the length).
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

/// The wire of these tests: both speakers, and who is at its ends.
struct Stage {
    owner: Speaker,
    other: Speaker,
    client: Port,
    /// The owner's link, as its kernel sees it.
    door: Port,
}

impl Stage {
    async fn set(lan: &Lan) -> Self {
        let (owner, other) = elected(lan, &BOTH).await;
        let host = HOSTS.into_iter().find(|host| lan.mac(host) == owner.mac).expect("one of them");
        let (client, door) = (Port::open(lan, "client", "eth0"), Port::open(lan, host, "eth0"));
        Self { owner, other, client, door }
    }

    /// Sends frames; how many of them were answered, by the owner. All of them have reached its link.
    async fn answered(&self, frames: &[Vec<u8>]) -> usize {
        let before = answered(&self.owner, &self.other);
        let mut count = 0;
        for chunk in frames.chunks(CHUNK) {
            chunk.iter().for_each(|frame| self.client.send(frame));
            let answers = self.client.answers();
            assert!(answers.iter().all(|answer| answer.mac == self.owner.mac), "{answers:?}");
            count += answers.len();
            for frame in chunk {
                self.door.until("each frame at the owner's link", |seen| seen == frame);
            }
        }
        // None went elsewhere, as the answer to a host without an address does.
        counted(|| answered(&self.owner, &self.other), before + count as u64).await;
        count - 2 * frames.chunks(CHUNK).len()
    }

    fn nothing_moved(&self) {
        assert!(self.owner.holds() && !self.other.holds());
    }
}

/// Questions that are none; what is wrong with them.
fn broken(mac: Mac, owner: Mac) -> Vec<(&'static str, Vec<Vec<u8>>)> {
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
    let of_nobody =
        [to_one, with(&nobody, &[(DESTINATION, &ALL_NODES.octets())]), with(&nobody, &[(OPTIONS, own.as_slice())])];
    // An extension header without content in front of the message (RFC 8200 section 4.3).
    let mut extended = asked[..TYPE].to_vec();
    extended[ETHERNET_HEADER + 6] = 0;
    extended[PAYLOAD_LENGTH + 1] += 8;
    extended.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&asked[TYPE..]);
    vec![
        ("cut short, at each length", (ETHERNET_HEADER..asked.len()).map(|end| asked[..end].to_vec()).collect()),
        // But for the flow label, which means nothing to a host.
        ("one byte changed, each in turn", [12..15, 18..asked.len()].into_iter().flatten().map(flipped).collect()),
        (
            "against a rule, and with a checksum that is right",
            rules.iter().map(|changes| with(&asked, changes)).collect(),
        ),
        ("of nobody, who asks one host, all, or says where it is", of_nobody.to_vec()),
        ("behind an extension header", vec![extended]),
        ("noise of every length", (ETHERNET_HEADER..=LONGEST).map(|length| noise(&asked[..14], length)).collect()),
        ("noise behind the headers", (TYPE + 1..=LONGEST).map(|length| noise(&asked[..=TYPE], length)).collect()),
    ]
}

/// Questions in an unusual form that a host has to answer.
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

/// Frames that say that the address is somewhere else, each in its own words; and those that nobody has to believe, or that say nothing.
fn lies(mac: Mac, owner: Mac) -> [Vec<Vec<u8>>; 2] {
    let told = ndp::unsolicited(mac, VIP6);
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
            ndp::answer(mac, VIP6, owner, ASKER).to_vec(),
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
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let stage = Stage::set(&lan).await;
        let (client, owner) = (stage.client.mac, &stage.owner);
        for (what, frames) in broken(client, owner.mac) {
            assert_eq!(stage.answered(&frames).await, 0, "{what}");
        }
        for (place, frame) in unusual(client).into_iter().enumerate() {
            assert_eq!(stage.answered(&[frame]).await, 1, "form {place}");
        }
        stage.nothing_moved();
        assert_eq!(owner.metrics.dropped(Drop::KernelNdp).get(), 0, "all of it was read");
        assert_eq!(owner.metrics.strangers.get(), 0);
    });
}

#[test]
fn a_stranger_that_says_an_ipv6_address_is_its_own_is_counted_and_does_not_get_it() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let mut stage = Stage::set(&lan).await;
        let (client, owner) = (stage.client.mac, stage.owner.mac);
        let strangers = stage.owner.metrics.strangers.clone();
        tokio::time::sleep(CHECKED).await;
        let [seen, unseen] = lies(client, owner);
        for lie in unseen {
            assert_eq!(stage.answered(&vec![lie; LIES]).await, 0);
        }
        assert_eq!(strangers.get(), 0);
        for (lie, told) in seen.into_iter().zip(1..) {
            assert_eq!(stage.answered(&vec![lie; LIES]).await, 0);
            counted(|| strangers.get(), told * LIES as u64).await;
        }
        let trouble = Trouble { address: VIP6.into(), mac: client, kind: TroubleKind::Stranger };
        stage.owner.until("named the stranger", |report| *report.troubles == [trouble.clone()]).await;
        stage.nothing_moved();
        lan.client_learns(VIP6, owner).await;
    });
}
