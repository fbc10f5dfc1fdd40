//! The classic BPF program in front of a link's packet sockets (Linux Documentation/networking/filter.rst). Pure: it makes
//! the program; the kernel runs it before a frame costs a wake-up.

use socket2::SockFilter;

// Instruction codes, all of `linux/bpf_common.h`.
const LOAD_ABSOLUTE: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Bytes of a frame that are passed on: all.
const WHOLE: u32 = 0x4_0000;

/// Drops frames for other hosts (a promiscuous link brings them), our own outgoing frames, and frames with a VLAN tag: they
/// belong to the VLAN's own link.
pub(super) const fn program() -> [SockFilter; 7] {
    [
        load(libc::SKF_AD_PKTTYPE),
        skip_if(libc::PACKET_OTHERHOST as u32, 3, 0),
        skip_if(libc::PACKET_OUTGOING as u32, 2, 0),
        load(libc::SKF_AD_VLAN_TAG_PRESENT),
        skip_if(0, 1, 0),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, WHOLE),
    ]
}

/// Loads a word of what the kernel knows beside the frame's bytes.
const fn load(ancillary: i32) -> SockFilter {
    SockFilter::new(LOAD_ABSOLUTE, 0, 0, (libc::SKF_AD_OFF + ancillary) as u32)
}

/// Skips `then` instructions where the loaded word equals `value`, `otherwise` instructions where not.
const fn skip_if(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value)
}
