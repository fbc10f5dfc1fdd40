//! Ends of BPF programs that pass only frames about addresses in ranges. Pure; part of the programs
//! of an interface's packet sockets. A frame to this node alone always passes.

use std::net::IpAddr;

use ferrolb_proto::range::AddressRange;

use super::{AND, DROP, Instruction, LOAD_SAVED, LOAD_WORD, PASS, SAVE, load, skip_if};

const JUMP_IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;

/// Offsets of the sender and the target protocol address in an ARP frame (RFC 826).
const ARP_ADDRESS_OFFSETS: [u32; 2] = [28, 38];
/// Offsets of the IPv6 source and of the target in a solicitation or advertisement (RFC 8200
/// section 3, RFC 4861 sections 4.3 and 4.4).
const NDP_ADDRESS_OFFSETS: [u32; 2] = [22, 62];
/// Number of words in an IPv6 address.
const WORDS: u32 = 4;

/// Returns instructions that pass ARP frames whose sender or target is in the IPv4 `ranges`.
pub(super) fn pass_arp(ranges: &[AddressRange]) -> Vec<Instruction> {
    let conditions = ARP_ADDRESS_OFFSETS.into_iter().flat_map(|offset| {
        let checks = ranges.iter().filter_map(ipv4_bounds).flat_map(pass_if_between);
        [Instruction::new(LOAD_WORD, 0, 0, offset)].into_iter().chain(checks)
    });
    pass_unicast_or(conditions)
}

/// Returns instructions that pass Neighbor Discovery frames whose source or target has a prefix
/// that covers one of the IPv6 `ranges`.
pub(super) fn pass_neighbor_discovery(ranges: &[AddressRange]) -> Vec<Instruction> {
    let conditions = NDP_ADDRESS_OFFSETS.into_iter().flat_map(|offset| {
        let save = (0..WORDS).flat_map(move |word| {
            [
                Instruction::new(LOAD_WORD, 0, 0, offset + 4 * word),
                Instruction::new(SAVE, 0, 0, word),
            ]
        });
        save.chain(ranges.iter().filter_map(covering_prefix).flat_map(pass_if_in_prefix))
    });
    pass_unicast_or(conditions)
}

/// Returns instructions that pass frames to this node alone, and those for which `conditions` pass.
fn pass_unicast_or(conditions: impl Iterator<Item = Instruction>) -> Vec<Instruction> {
    let unicast =
        [load(libc::SKF_AD_PKTTYPE), skip_if(libc::PACKET_HOST as u32, 0, 1), PASS].into_iter();
    unicast.chain(conditions).chain([DROP]).collect()
}

fn pass_if_between((first, last): (u32, u32)) -> [Instruction; 3] {
    [
        Instruction::new(JUMP_IF_AT_LEAST, 0, 2, first),
        Instruction::new(JUMP_IF_ABOVE, 1, 0, last),
        PASS,
    ]
}

/// Returns instructions that pass if the saved words begin with the first `length` bits of
/// `address`.
fn pass_if_in_prefix((address, length): (u128, u32)) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    let words = length.div_ceil(u32::BITS);
    for word in 0..words {
        let value = (address >> (u128::BITS - u32::BITS * (word + 1))) as u32;
        instructions.push(Instruction::new(LOAD_SAVED, 0, 0, word));
        let bits = (length - u32::BITS * word).min(u32::BITS);
        if bits < u32::BITS {
            instructions.push(Instruction::new(AND, 0, 0, !(u32::MAX >> bits)));
        }
        // Full words take two instructions, a partial word at the end takes three.
        let rest = 2 * (words - word - 1) + u32::from(bits == u32::BITS && length % u32::BITS > 0);
        let to_end = u8::try_from(rest + 1).unwrap_or(u8::MAX);
        instructions.push(skip_if(value, 0, to_end));
    }
    instructions.push(PASS);
    instructions
}

fn ipv4_bounds(range: &AddressRange) -> Option<(u32, u32)> {
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Some((first.to_bits(), last.to_bits())),
        _ => None,
    }
}

/// Returns the longest prefix that covers an IPv6 range, with host bits zero, and its length.
fn covering_prefix(range: &AddressRange) -> Option<(u128, u32)> {
    let (IpAddr::V6(first), IpAddr::V6(last)) = (range.first(), range.last()) else { return None };
    let (first, last) = (first.to_bits(), last.to_bits());
    let length = (first ^ last).leading_zeros();
    Some((first & !u128::MAX.checked_shr(length).unwrap_or(0), length))
}
