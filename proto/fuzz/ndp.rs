//! Fuzzes the Neighbor Discovery decoder with any bytes: no panic, and the same result as a
//! reference decoder with fixed offsets.
//!
//! Each input is decoded twice: unchanged, and with corrected length and checksum, which mutations
//! seldom get right.

#![no_main]

use std::net::Ipv6Addr;

use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};
use libfuzzer_sys::fuzz_target;

/// Offsets in a frame, in bytes: of the IPv6 header, of its payload, and of the NDP options.
const IP_HEADER: usize = 14;
const MESSAGE: usize = IP_HEADER + 40;
const OPTIONS: usize = MESSAGE + 24;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(frame) = corrected(bytes) {
        check(&frame);
    }
});

fn check(bytes: &[u8]) {
    let decoded = Ndp::decode(bytes);
    let advertisement_flags = |kind| match kind {
        NdpKind::Solicitation => None,
        NdpKind::Advertisement { solicited, overrides } => Some((solicited, overrides)),
    };
    assert_eq!(
        decoded.map(|ndp| (
            advertisement_flags(ndp.kind),
            ndp.sender,
            ndp.target,
            ndp.mac.map(|mac| mac.0)
        )),
        reference_decode(bytes)
    );
    if let Some(message) = decoded {
        // A reply to the decoded message can be decoded, and so can a solicitation for its target.
        let (address, mac) = (message.target, message.source);
        let reply = match message.sender {
            Ipv6Addr::UNSPECIFIED => ndp::unsolicited_advertisement(mac, address),
            requester => ndp::solicited_advertisement(mac, address, mac, requester),
        };
        let reply = Ndp::decode(&reply);
        assert!(reply.is_some_and(
            |reply| reply.target == message.target && reply.mac == Some(message.source)
        ));
        let solicitation = Ndp::decode(&ndp::dad_solicitation(message.source, message.target));
        assert!(solicitation.is_some_and(|solicitation| solicitation.target == message.target
            && solicitation.sender.is_unspecified()));
    }
}

/// Returns the input with a corrected payload length and checksum.
fn corrected(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    let length = u16::try_from(frame.len().checked_sub(MESSAGE)?).ok()?;
    frame.get_mut(IP_HEADER + 4..IP_HEADER + 6)?.copy_from_slice(&length.to_be_bytes());
    frame.get_mut(MESSAGE + 2..MESSAGE + 4)?.fill(0);
    let sum = sum(&frame)?;
    frame[MESSAGE + 2..MESSAGE + 4].copy_from_slice(&(!sum).to_be_bytes());
    Some(frame)
}

/// Returns the RFC 1071 sum over message and pseudo header (RFC 8200 section 8.1), without the
/// checksum field.
fn sum(frame: &[u8]) -> Option<u16> {
    let length: usize = u16::from_be_bytes([frame[IP_HEADER + 4], frame[IP_HEADER + 5]]).into();
    let mut message = frame.get(MESSAGE..MESSAGE + length)?.to_vec();
    message.get_mut(2..4)?.fill(0);
    let mut sum: u64 = frame[IP_HEADER + 8..MESSAGE].chunks(2).map(word).sum();
    sum += message.chunks(2).map(word).sum::<u64>() + length as u64 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).ok()
}

fn word(pair: &[u8]) -> u64 {
    u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from)
}

type ReferenceResult = (Option<(bool, bool)>, Ipv6Addr, Ipv6Addr, Option<[u8; 6]>);

/// Decodes a frame by field offsets, according to RFC 4861 sections 4.3, 4.4, 7.1.1 and 7.1.2.
/// Returns the flags S and O of an advertisement, the sender, the target, and the hardware address.
fn reference_decode(bytes: &[u8]) -> Option<ReferenceResult> {
    let octets = |at: usize| <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok();
    let (sender, destination, target) =
        (octets(IP_HEADER + 8)?, octets(IP_HEADER + 24)?, octets(MESSAGE + 8)?);
    let fixed = (
        &bytes[12..14],
        bytes[IP_HEADER] >> 4,
        bytes[IP_HEADER + 6],
        bytes[IP_HEADER + 7],
        bytes[MESSAGE + 1],
    );
    let length: usize = u16::from_be_bytes([bytes[IP_HEADER + 4], bytes[IP_HEADER + 5]]).into();
    let end = MESSAGE + length;
    if fixed != (&[0x86, 0xdd], 6, 58, 255, 0)
        || length < OPTIONS - MESSAGE
        || end > bytes.len()
        || target[0] == 0xff
        || sender[0] == 0xff
    {
        return None;
    }
    if bytes[MESSAGE + 2..MESSAGE + 4] != (!sum(bytes)?).to_be_bytes() {
        return None;
    }
    let (flags, wanted) = match bytes[MESSAGE] {
        135 => (None, 1),
        136 => (Some((bytes[MESSAGE + 4] & 0x40 != 0, bytes[MESSAGE + 4] & 0x20 != 0)), 2),
        _ => return None,
    };
    let (mut at, mut has_option, mut mac) = (OPTIONS, false, None);
    while at < end {
        let size = 8 * usize::from(*bytes[..end].get(at + 1)?);
        if size == 0 || at + size > end {
            return None;
        }
        has_option |= bytes[at] == wanted;
        if bytes[at] == wanted && size == 8 && mac.is_none() {
            mac = bytes[at + 2..at + 8].try_into().ok();
        }
        at += size;
    }
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target[13..]);
    let valid = match flags {
        None => sender != [0; 16] || destination == group && !has_option,
        Some((solicited, _)) => !(solicited && destination[0] == 0xff),
    };
    valid.then(|| (flags, sender.into(), target.into(), mac))
}
