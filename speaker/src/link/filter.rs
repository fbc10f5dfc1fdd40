//! The classic BPF programs in front of a link's packet sockets (Linux Documentation/networking/filter.rst). Pure: it makes
//! them; the kernel runs them before a frame costs a wake-up.

use socket2::SockFilter;

// Instruction codes, all of `linux/bpf_common.h`.
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_ABSOLUTE: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

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

/// Drops frames for other hosts (a promiscuous link brings them), our own outgoing frames, and frames with a VLAN tag: they
/// belong to the VLAN's own link.
pub(super) const ALL: [SockFilter; 7] = [
    load(libc::SKF_AD_PKTTYPE),
    skip_if(libc::PACKET_OTHERHOST as u32, 3, 0),
    skip_if(libc::PACKET_OUTGOING as u32, 2, 0),
    load(libc::SKF_AD_VLAN_TAG_PRESENT),
    skip_if(0, 1, 0),
    DROP,
    PASS,
];

/// The same, and of IPv6 everything but Neighbor Discovery: a node forwards gigabits of it that are no business of ours.
pub(super) const NEIGHBOURS: [SockFilter; 12] = [
    load(libc::SKF_AD_PKTTYPE),
    skip_if(libc::PACKET_OTHERHOST as u32, 8, 0),
    skip_if(libc::PACKET_OUTGOING as u32, 7, 0),
    load(libc::SKF_AD_VLAN_TAG_PRESENT),
    skip_if(0, 0, 5),
    SockFilter::new(LOAD_BYTE, 0, 0, NEXT_HEADER),
    skip_if(ICMPV6, 0, 3),
    SockFilter::new(LOAD_BYTE, 0, 0, ICMPV6_TYPE),
    skip_if(SOLICITATION, 2, 0),
    skip_if(ADVERTISEMENT, 1, 0),
    DROP,
    PASS,
];

/// Loads a word of what the kernel knows beside the frame's bytes.
const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD_ABSOLUTE, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions where the loaded word equals `value`, `otherwise` instructions where not.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
