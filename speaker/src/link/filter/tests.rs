//! Comparison of the BPF programs with predicates in Rust, by a small interpreter of classic BPF.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferrolb_proto::wire::{arp, ndp};
use ferrolb_speaker_core::plan::{IPV4_RANGES_MAX, IPV6_RANGES_MAX};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const INDEX: u32 = 7;
/// Maximum number of instructions into which the kernel translates a filter, so that a socket can
/// have two of them if net.core.optmem_max is 20 kB: an instruction takes 8 bytes.
const TRANSLATED_MAX: usize = 1_270;

/// Metadata of a frame that the programs read.
#[derive(Clone, Copy, Debug)]
struct Metadata {
    packet_type: u32,
    index: u32,
    random: u32,
}

const fn received_as(packet_type: u8) -> Metadata {
    Metadata { packet_type: packet_type as u32, index: INDEX, random: 0 }
}

/// Returns whether the program passes a frame. Like the kernel, a load beyond the end of the frame
/// ends the program without passing the frame.
fn passes(program: &[Instruction], frame: &[u8], metadata: Metadata) -> bool {
    run(program, frame, metadata).is_some_and(|passed| passed > 0)
}

fn run(program: &[Instruction], frame: &[u8], metadata: Metadata) -> Option<u32> {
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    const IFINDEX: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let (mut a, mut saved, mut at) = (0_u32, [0_u32; 16], 0_usize);
    let load = |offset: u32, length: usize| {
        let bytes = frame.get(offset as usize..)?.get(..length)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    loop {
        let Instruction { code, skip_if_true, skip_if_false, value } = program[at];
        let mut skipped = 0;
        let mut jump = |condition| skipped = if condition { skip_if_true } else { skip_if_false };
        match u32::from(code) {
            // BPF_LD | BPF_W | BPF_ABS and so on (linux/bpf_common.h).
            0x20 if value == PACKET_TYPE => a = metadata.packet_type,
            0x20 if value == IFINDEX => a = metadata.index,
            0x20 if value == RANDOM => a = metadata.random,
            0x20 => a = load(value, 4)?,
            0x28 => a = load(value, 2)?,
            0x30 => a = load(value, 1)?,
            0x60 => a = saved[value as usize],
            0x02 => saved[value as usize] = a,
            0x54 => a &= value,
            0x05 => at += value as usize,
            0x15 => jump(a == value),
            0x25 => jump(a > value),
            0x35 => jump(a >= value),
            0x06 => return Some(value),
            code => panic!("unknown instruction code {code:#x}"),
        }
        at += 1 + usize::from(skipped);
    }
}

/// Returns the largest number of instructions into which the kernel translates a program
/// (`bpf_convert_filter` in net/core/filter.c).
fn translated_length(program: &[Instruction]) -> usize {
    let length = |instruction: &Instruction| match instruction.code {
        LOAD_WORD | LOAD_HALF | LOAD_BYTE => 15,
        RETURN => 2,
        LOAD_SAVED | SAVE | JUMP => 1,
        _ if instruction.skip_if_true > 0 && instruction.skip_if_false > 0 => 3,
        _ => 2,
    };
    program.iter().map(length).sum()
}

fn range(text: &str) -> AddressRange {
    text.parse().expect("a range")
}

/// Addresses close to the ends of the ranges, so that random ranges and addresses often meet.
fn ipv4() -> impl Strategy<Value = Ipv4Addr> {
    (select(vec![0_u32, 0x0a00_0000, 0x7fff_fff0, 0xac1e_0000, 0xffff_ff00]), 0_u32..12)
        .prop_map(|(base, host)| Ipv4Addr::from_bits(base + host))
}

fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    let bit = select(vec![0_u32, 1, 31, 32, 33, 64]);
    prop::collection::vec(bit, 0..4).prop_map(|bits| {
        let base = 0xfd30_u128 << 112;
        Ipv6Addr::from_bits(bits.into_iter().fold(base, |address, bit| address ^ 1 << bit))
    })
}

fn range_between(a: IpAddr, b: IpAddr) -> AddressRange {
    range(&format!("{}-{}", a.min(b), a.max(b)))
}

/// Short ranges, so that most addresses are outside all of them.
fn ranges() -> impl Strategy<Value = Vec<AddressRange>> {
    let v4 = (ipv4(), 0_u32..3).prop_map(|(first, length)| {
        let last = Ipv4Addr::from_bits(first.to_bits() + length);
        range_between(first.into(), last.into())
    });
    let v6 = (ipv6(), select(vec![0_u32, 1, 31, 32])).prop_map(|(one, bit)| {
        let other = Ipv6Addr::from_bits(one.to_bits() ^ 1 << bit);
        range_between(one.into(), other.into())
    });
    prop::collection::vec(prop_oneof![v4, v6], 0..8)
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let packet_types = [
        libc::PACKET_HOST,
        libc::PACKET_BROADCAST,
        libc::PACKET_MULTICAST,
        libc::PACKET_OTHERHOST,
        libc::PACKET_OUTGOING,
    ];
    (select(packet_types.to_vec()), select(vec![INDEX, INDEX, INDEX, 8])).prop_map(
        |(packet_type, index)| Metadata { packet_type: u32::from(packet_type), index, random: 0 },
    )
}

/// Returns whether a frame with these addresses may pass, without regard to its protocol.
fn may_pass(
    metadata: Metadata,
    ranges: Option<&[AddressRange]>,
    addresses: [IpAddr; 2],
    covers: fn(&AddressRange, IpAddr) -> bool,
) -> bool {
    let is_received = metadata.index == INDEX
        && ![libc::PACKET_OTHERHOST, libc::PACKET_OUTGOING]
            .map(u32::from)
            .contains(&metadata.packet_type);
    let is_covered =
        |address: &IpAddr| ranges.is_none_or(|all| all.iter().any(|one| covers(one, *address)));
    is_received
        && (metadata.packet_type == u32::from(libc::PACKET_HOST)
            || addresses.iter().any(is_covered))
}

fn contains(range: &AddressRange, address: IpAddr) -> bool {
    range.overlaps(&AddressRange::single(address))
}

/// Returns whether the longest prefix that covers the range covers the address.
fn prefix_contains(range: &AddressRange, address: IpAddr) -> bool {
    let widened = |length| AddressRange::network(range.first(), length);
    let covering = (0..=128).rev().map(widened).find(|network| contains(network, range.last()));
    range.first().is_ipv6() && covering.is_some_and(|network| contains(&network, address))
}

proptest! {
    #[test]
    fn the_arp_program_equals_its_predicate(
        ranges in prop::option::of(ranges()),
        sender in ipv4(),
        target in ipv4(),
        metadata in metadata(),
        cut in 0_usize..100,
    ) {
        let frame = arp::request(Mac([2, 0, 0, 0, 0, 1]), sender, target);
        let program = arp(INDEX, ranges.as_deref());
        let expect = may_pass(metadata, ranges.as_deref(), [sender.into(), target.into()], contains);
        prop_assert_eq!(passes(&program, &frame, metadata), expect);
        // A truncated frame is no ARP frame, so it may be dropped; the program must end.
        let _ = passes(&program, &frame[..cut.min(frame.len())], metadata);
    }

    #[test]
    fn the_neighbor_discovery_program_equals_its_predicate(
        ranges in prop::option::of(ranges()),
        sender in ipv6(),
        target in ipv6(),
        metadata in metadata(),
        kind in select(vec![135_u8, 136, 133, 128]),
        next_header in select(vec![58_u8, 58, 58, 6]),
    ) {
        let mut frame = ndp::solicitation(Mac([2, 0, 0, 0, 0, 1]), sender, target);
        (frame[20], frame[54]) = (next_header, kind);
        let program = neighbor_discovery(INDEX, ranges.as_deref());
        let is_ndp = next_header == 58 && [135, 136].contains(&kind);
        let addresses = [sender.into(), target.into()];
        let expect = is_ndp && may_pass(metadata, ranges.as_deref(), addresses, prefix_contains);
        prop_assert_eq!(passes(&program, &frame, metadata), expect);
    }

    #[test]
    fn blocked_sources_are_dropped_and_exempt_ones_are_not_sampled(
        blocked in prop::collection::btree_set(0_u8..16, 0..8),
        exempt in prop::collection::btree_set(0_u8..16, 0..8),
        source in 0_u8..16,
        metadata in metadata(),
        sampling_shift in 0_u8..7,
        random: u32,
    ) {
        let mac = |n: u8| Mac([2, 0, 0, n / 4, 0, n % 4]);
        let frame = arp::request(mac(source), Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let macs = |sources: &BTreeSet<u8>| sources.iter().copied().map(mac).collect::<Vec<_>>();
        let (blocked_macs, exempt_macs) = (macs(&blocked), macs(&exempt));
        let program = limited(
            blocked_macs.into_iter(),
            exempt_macs.into_iter(),
            sampling_shift,
            &hello(INDEX),
        );
        let is_sampled = random.trailing_zeros() >= u32::from(sampling_shift);
        let expect = passes(&hello(INDEX), &frame, metadata)
            && !blocked.contains(&source)
            && (is_sampled || exempt.contains(&source));
        prop_assert_eq!(passes(&program, &frame, Metadata { random, ..metadata }), expect);
    }
}

#[test]
fn requests_for_addresses_in_ranges_pass() {
    let ranges = [range("172.30.0.200-172.30.0.209"), range("fd30::200-fd30::2ff")];
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let (client, client6) =
        (Ipv4Addr::new(172, 30, 0, 100), Ipv6Addr::from_bits(0xfd30 << 112 | 1));
    let arp_program = arp(INDEX, Some(&ranges));
    let broadcast = received_as(libc::PACKET_BROADCAST);
    for (last, expect) in [(199, false), (200, true), (209, true), (210, false)] {
        let vip = Ipv4Addr::new(172, 30, 0, last);
        let frames = [
            arp::request(mac, client, vip),
            arp::request(mac, Ipv4Addr::UNSPECIFIED, vip),
            arp::gratuitous_reply(mac, vip),
            arp::request(mac, vip, client),
        ];
        for frame in frames {
            assert_eq!(passes(&arp_program, &frame, broadcast), expect, "{vip}: {frame:02x?}");
            assert!(passes(&arp_program, &frame, received_as(libc::PACKET_HOST)));
        }
    }
    let ndp_program = neighbor_discovery(INDEX, Some(&ranges));
    let multicast = received_as(libc::PACKET_MULTICAST);
    for (last, expect) in [(0x1ff, false), (0x200, true), (0x2ff, true), (0x300, false)] {
        let vip = Ipv6Addr::from_bits(0xfd30 << 112 | last);
        let frames: [&[u8]; 4] = [
            &ndp::solicitation(mac, client6, vip),
            &ndp::dad_solicitation(mac, vip),
            &ndp::unsolicited_advertisement(mac, vip),
            &ndp::solicitation(mac, vip, client6),
        ];
        for frame in frames {
            assert_eq!(passes(&ndp_program, frame, multicast), expect, "{vip}: {frame:02x?}");
        }
    }
}

#[test]
fn the_largest_programs_fit_into_the_smallest_memory_of_a_socket() {
    let v4 = (0..IPV4_RANGES_MAX).map(|n| range(&format!("203.0.{n}.1-203.0.{n}.9")));
    let v6 = (0..IPV6_RANGES_MAX).map(|n| range(&format!("fd30:{n}::1-fd30:{n}::3")));
    let ranges: Vec<_> = v4.chain(v6).collect();
    let blocked = || (0..8).map(|n| Mac([2, 0, 0, 0, 0, n]));
    for program in [arp(INDEX, Some(&ranges)), neighbor_discovery(INDEX, Some(&ranges))] {
        let length = translated_length(&limited(blocked(), [].into_iter(), 6, &program));
        println!("{} instructions, {length} translated", program.len());
        assert!(length <= TRANSLATED_MAX, "{length}");
    }
    let members = (0..=u8::MAX).map(|n| Mac([2, 0, 0, 0, 1, n]));
    let length = translated_length(&limited(blocked(), members, 6, &hello(INDEX)));
    assert!(length <= TRANSLATED_MAX, "{length}");
}
