//! The classic BPF programs in front of a link's packet sockets (Linux Documentation/networking/filter.rst). Pure: it makes
//! them; the kernel runs them before a frame costs a wake-up.

use ferrolb_proto::wire::Mac;
use socket2::SockFilter;

// Instruction codes, all of `linux/bpf_common.h`.
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where an Ethernet header has the source.
const SOURCE: u32 = 6;
/// Bytes of a frame that are passed on: all.
const WHOLE: u32 = 0x4_0000;
const PASS: SockFilter = SockFilter::new(RETURN, 0, 0, WHOLE);
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

// Where an untagged frame says what IPv6 carries, and which ICMPv6 message it is (RFC 8200 section 3, RFC 4443 section 2.1).
const NEXT_HEADER: u32 = 20;
const ICMPV6_TYPE: u32 = 54;
const ICMPV6: u32 = libc::IPPROTO_ICMPV6 as u32;
/// Neighbor Solicitation and Advertisement (RFC 4861 sections 4.3 and 4.4).
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// Drops frames for other hosts (a promiscuous link brings them, and the kernel takes those with the tag of a VLAN that it does not
/// have for such), our own outgoing frames, and those that are for a link above this one, a VLAN's or a macvlan's: the kernel shows
/// them to both, to this one without the tag that they had.
pub(super) fn all(index: u32) -> Vec<SockFilter> {
    then(index, [PASS])
}

/// The same, and of IPv6 everything but Neighbor Discovery: a node forwards gigabits of it that are no business of ours.
pub(super) fn neighbours(index: u32) -> Vec<SockFilter> {
    let of_ipv6 = [
        SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
        skip_if(ICMPV6, 0, 3),
        SockFilter::new(LOAD_BYTE, 0, 0, ICMPV6_TYPE),
        skip_if(SOLICITATION, 2, 0),
        skip_if(ADVERTISEMENT, 1, 0),
        DROP,
        PASS,
    ];
    then(index, of_ipv6)
}

/// What every socket of this link begins with, and then `rest`.
fn then<const N: usize>(index: u32, rest: [SockFilter; N]) -> Vec<SockFilter> {
    let begin = [
        load(libc::SKF_AD_PKTTYPE),
        skip_if(libc::PACKET_OTHERHOST as u32, 3, 0),
        skip_if(libc::PACKET_OUTGOING as u32, 2, 0),
        load(libc::SKF_AD_IFINDEX),
        skip_if(index, 1, 0),
        DROP,
    ];
    begin.into_iter().chain(rest).collect()
}

/// How many sources can be spared: each takes five instructions, and the kernel allows a socket
/// some 20 kB for filters (net.core.optmem_max), the one before included.
const SPARED_MAX: usize = 128;

/// Drops the frames from the sources `blocked`, and of the rest all but one frame of two to the
/// power `thin`, by chance, except those from the sources `spared`. The frames that are left go on
/// to `filter`.
pub(super) fn without(
    blocked: impl Iterator<Item = Mac>,
    spared: impl Iterator<Item = Mac>,
    thin: u8,
    filter: Vec<SockFilter>,
) -> Vec<SockFilter> {
    let drops = blocked.flat_map(|mac| if_from(mac, DROP));
    if thin == 0 {
        return drops.chain(filter).collect();
    }
    let chance = [load(libc::SKF_AD_RANDOM), SockFilter::new(AND, 0, 0, (1 << thin) - 1), skip_if(0, 1, 0), DROP];
    let spared: Vec<_> = spared.take(SPARED_MAX).collect();
    let end = spared.len() * IF_FROM_LENGTH + chance.len();
    let passes = spared.iter().enumerate().flat_map(|(place, mac)| {
        let rest = end - (place + 1) * IF_FROM_LENGTH;
        if_from(*mac, SockFilter::new(JUMP, 0, 0, u32::try_from(rest).unwrap_or(u32::MAX)))
    });
    drops.chain(passes).chain(chance).chain(filter).collect()
}

/// How many instructions [`if_from`] gives.
const IF_FROM_LENGTH: usize = 5;

/// The instruction `then`, for frames from this source.
fn if_from(Mac([a, b, c, d, e, f]): Mac, then: SockFilter) -> [SockFilter; IF_FROM_LENGTH] {
    [
        SockFilter::new(LOAD_WORD, 0, 0, SOURCE),
        skip_if(u32::from_be_bytes([a, b, c, d]), 0, 3),
        SockFilter::new(LOAD_HALF, 0, 0, SOURCE + 4),
        skip_if(u32::from(u16::from_be_bytes([e, f])), 0, 1),
        then,
    ]
}

/// Loads a word of what the kernel knows beside the frame's bytes.
const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD_WORD, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions where the loaded word equals `value`, `otherwise` instructions where not.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
