//! Classic BPF programs of an interface's packet sockets (Linux
//! Documentation/networking/filter.rst). Pure: this module builds the programs. The kernel runs
//! them for each frame, and a dropped frame does not wake the thread.

mod ranges;

use ferrolb_proto::range::AddressRange;
use ferrolb_proto::wire::Mac;
use socket2::SockFilter;

// Instruction codes, all of `linux/bpf_common.h`.
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_SAVED: u16 = (libc::BPF_LD | libc::BPF_MEM) as u16;
const SAVE: u16 = libc::BPF_ST as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    /// Number of instructions that a jump skips if its condition is true.
    skip_if_true: u8,
    /// Number of instructions that a jump skips if its condition is false.
    skip_if_false: u8,
    value: u32,
}

impl Instruction {
    const fn new(code: u16, skip_if_true: u8, skip_if_false: u8, value: u32) -> Self {
        Self { code, skip_if_true, skip_if_false, value }
    }
}

impl From<Instruction> for SockFilter {
    fn from(instruction: Instruction) -> Self {
        let Instruction { code, skip_if_true, skip_if_false, value } = instruction;
        Self::new(code, skip_if_true, skip_if_false, value)
    }
}

/// Offset of the source address in an Ethernet header.
const SOURCE_OFFSET: u32 = 6;
/// Return value of a program that passes a frame: the number of bytes to pass, more than any frame
/// has.
const PASSED_BYTES_MAX: u32 = 0x4_0000;
const PASS: Instruction = Instruction::new(RETURN, 0, 0, PASSED_BYTES_MAX);
const DROP: Instruction = Instruction::new(RETURN, 0, 0, 0);

// Offsets of the next header and the ICMPv6 type in an untagged IPv6 frame (RFC 8200 section 3, RFC
// 4443 section 2.1).
const NEXT_HEADER_OFFSET: u32 = 20;
const ICMPV6_TYPE_OFFSET: u32 = 54;
const ICMPV6: u32 = libc::IPPROTO_ICMPV6 as u32;
/// ICMPv6 types of Neighbor Solicitation and Neighbor Advertisement (RFC 4861 sections 4.3 and
/// 4.4).
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// Returns a program that drops the following frames:
///
/// - Frames for other hosts. A promiscuous interface receives them, and the kernel also classifies
///   frames with an unknown VLAN tag as frames for other hosts.
/// - Frames that this node sends.
/// - Frames for an interface above this one, such as a VLAN or a macvlan. The kernel passes such a
///   frame also to sockets of this interface, without its VLAN tag.
pub(super) fn hello(index: u32) -> Vec<Instruction> {
    with_common_prefix(index, [PASS])
}

/// Returns a program that drops the same frames as [`hello`]. If `ranges` are known, it also drops
/// ARP frames to all or to several hosts whose sender and target are outside the ranges.
pub(super) fn arp(index: u32, ranges: Option<&[AddressRange]>) -> Vec<Instruction> {
    with_common_prefix(index, ranges.map_or_else(|| vec![PASS], ranges::pass_arp))
}

/// Returns a program that drops the same frames as [`hello`], and all IPv6 frames except neighbor
/// solicitations and advertisements: a node forwards gigabits of other IPv6 traffic. If `ranges`
/// are known, it also drops those to several hosts whose source and target are outside the ranges.
pub(super) fn neighbor_discovery(index: u32, ranges: Option<&[AddressRange]>) -> Vec<Instruction> {
    let of_ipv6 = [
        Instruction::new(LOAD_BYTE, 0, 0, NEXT_HEADER_OFFSET),
        skip_if(ICMPV6, 0, 3),
        Instruction::new(LOAD_BYTE, 0, 0, ICMPV6_TYPE_OFFSET),
        skip_if(SOLICITATION, 2, 0),
        skip_if(ADVERTISEMENT, 1, 0),
        DROP,
    ];
    let rest = ranges.map_or_else(|| vec![PASS], ranges::pass_neighbor_discovery);
    with_common_prefix(index, of_ipv6.into_iter().chain(rest))
}

/// Returns the instructions common to all sockets of this interface, followed by `rest`.
fn with_common_prefix(index: u32, rest: impl IntoIterator<Item = Instruction>) -> Vec<Instruction> {
    let prefix = [
        load(libc::SKF_AD_PKTTYPE),
        skip_if(libc::PACKET_OTHERHOST as u32, 3, 0),
        skip_if(libc::PACKET_OUTGOING as u32, 2, 0),
        load(libc::SKF_AD_IFINDEX),
        skip_if(index, 1, 0),
        DROP,
    ];
    prefix.into_iter().chain(rest).collect()
}

/// Maximum number of sources that can be exempt from sampling. Each source takes five instructions,
/// and the kernel allows a socket 20 kB or more for its filters (net.core.optmem_max), including
/// the filter that is being replaced.
const UNSAMPLED_SOURCES_MAX: usize = 128;
/// Number of instructions that [`if_from`] returns.
const IF_FROM_LENGTH: usize = 5;

/// Returns a program that drops all frames from the sources `blocked`. From the sources `exempt`,
/// the program passes all frames, and from the other sources one frame in 2^`sampling_shift`, at
/// random. The program `filter` then examines the passed frames.
pub(super) fn limited(
    blocked: impl Iterator<Item = Mac>,
    exempt: impl Iterator<Item = Mac>,
    sampling_shift: u8,
    filter: &[Instruction],
) -> Vec<Instruction> {
    let mut program = Vec::from(save_source());
    program.extend(blocked.flat_map(|mac| if_from(mac, DROP)));
    if sampling_shift > 0 {
        let sample = [
            load(libc::SKF_AD_RANDOM),
            Instruction::new(AND, 0, 0, (1 << sampling_shift) - 1),
            skip_if(0, 1, 0),
            DROP,
        ];
        let exempt: Vec<_> = exempt.take(UNSAMPLED_SOURCES_MAX).collect();
        program.extend(exempt.iter().enumerate().flat_map(|(position, mac)| {
            let rest = (exempt.len() - position - 1) * IF_FROM_LENGTH + sample.len();
            if_from(*mac, Instruction::new(JUMP, 0, 0, u32::try_from(rest).unwrap_or(u32::MAX)))
        }));
        program.extend(sample);
    }
    program.extend(filter);
    program
}

/// Returns instructions that save the source of a frame for [`if_from`]. The kernel translates a
/// load from a frame into fourteen instructions of its own, and a load of a saved value into one.
fn save_source() -> [Instruction; 4] {
    [
        Instruction::new(LOAD_WORD, 0, 0, SOURCE_OFFSET),
        Instruction::new(SAVE, 0, 0, 0),
        Instruction::new(LOAD_HALF, 0, 0, SOURCE_OFFSET + 4),
        Instruction::new(SAVE, 0, 0, 1),
    ]
}

/// Returns instructions that execute the instruction `then` for frames from this source only.
fn if_from(Mac([a, b, c, d, e, f]): Mac, then: Instruction) -> [Instruction; IF_FROM_LENGTH] {
    [
        Instruction::new(LOAD_SAVED, 0, 0, 0),
        skip_if(u32::from_be_bytes([a, b, c, d]), 0, 3),
        Instruction::new(LOAD_SAVED, 0, 0, 1),
        skip_if(u32::from(u16::from_be_bytes([e, f])), 0, 1),
        then,
    ]
}

/// Returns the instruction that loads a word of the kernel's metadata about the frame.
const fn load(ancillary: i32) -> Instruction {
    Instruction::new(LOAD_WORD, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Returns the instruction that skips `then` instructions if the loaded word equals `value`, and
/// `otherwise` instructions if not.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction::new(JUMP_IF_EQUAL, then, otherwise, value)
}

#[cfg(test)]
mod tests;
