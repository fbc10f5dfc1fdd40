//! Encoding and decoding of hello frames. No received bytes can cause a panic, or make the decoder
//! use more memory than one frame.

use std::net::IpAddr;
use std::time::Duration;

use super::keys::SIGNATURE_LENGTH;
use super::{
    Body, ETHER_TYPE, FailingReport, Flags, Frame, GROUP, HelloKey, HelloKeyRing, NODE_NAME_MAX,
    ReleaseReason, VERSION,
};
use crate::wire::{ETHERNET_HEADER_LENGTH, Mac, write_ethernet_header};

/// Length of the fixed part of a frame, which precedes the TLVs, in bytes.
const FIXED_LENGTH: usize = 32;
/// Maximum length of a frame with its Ethernet header, in bytes: an MTU of 1,500.
pub const FRAME_MAX: usize = ETHERNET_HEADER_LENGTH + 1500;
/// Number of addresses of any family that always fit in one frame.
pub const ADDRESSES_PER_FRAME_MAX: usize = 64;

const KIND_HELLO: u8 = 1;
const KIND_CLAIM: u8 = 2;
const KIND_RELEASE: u8 = 3;
const KIND_CHALLENGE: u8 = 4;
const KIND_CHALLENGE_REPLY: u8 = 5;
const KIND_LIST_REQUEST: u8 = 6;
const KIND_LIST: u8 = 7;

const TLV_NODE: u16 = 1;
const TLV_GENERATION: u16 = 2;
const TLV_PREVIOUS_GENERATION: u16 = 3;
const TLV_ACCEPTED_KEYS: u16 = 4;
const TLV_V4: u16 = 5;
const TLV_V6: u16 = 6;
const TLV_NONCE: u16 = 7;
const TLV_PART: u16 = 8;
const TLV_REFUSED: u16 = 9;
const TLV_CONTESTED: u16 = 10;
const TLV_PREEMPT_DELAYS: u16 = 11;
const TLV_FAILING_V4: u16 = 12;
const TLV_FAILING_V6: u16 = 13;
/// TLV of one byte with the bits [`MORE_BEFORE`] and [`MORE_AFTER`]. Without this TLV, a report
/// covers all failing addresses of the sender.
const TLV_FAILING_MORE: u16 = 14;
const MORE_BEFORE: u8 = 1;
const MORE_AFTER: u8 = 2;
/// Unit of the preempt delays in [`TLV_PREEMPT_DELAYS`].
const PREEMPT_DELAY_UNIT: Duration = Duration::from_millis(10);

/// Reason why a received frame was dropped. Each interface has a counter for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloDecodeError {
    /// The frame is no hello frame, is truncated or longer than [`FRAME_MAX`], or lacks a value
    /// that its kind requires.
    #[error("malformed")]
    Malformed,
    /// This speaker does not support the version of the frame.
    #[error("unsupported version")]
    Version,
    /// The frame is signed with a key of another cluster, or with a key that this node has not read
    /// yet. Both cases are normal.
    #[error("foreign key")]
    ForeignKey,
    /// The signature is invalid.
    #[error("wrong signature")]
    Signature,
}

impl Frame {
    /// Encodes and signs the whole frame, from `source` to `destination`, or to [`GROUP`] if
    /// `destination` is `None`.
    #[must_use]
    pub fn encode(&self, source: Mac, destination: Option<Mac>, key: &HelloKey) -> Vec<u8> {
        let mut out = vec![0; ETHERNET_HEADER_LENGTH + FIXED_LENGTH];
        write_ethernet_header(&mut out, destination.unwrap_or(GROUP), source, ETHER_TYPE);
        tlv(&mut out, TLV_NODE, self.node.as_bytes());
        let kind = encode_body(&self.body, &mut out);
        let tlvs =
            u16::try_from(out.len() - ETHERNET_HEADER_LENGTH - FIXED_LENGTH).unwrap_or(u16::MAX);
        let interval = u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX);
        let fixed = &mut out[ETHERNET_HEADER_LENGTH..];
        fixed[0] = VERSION;
        fixed[1] = kind;
        fixed[2..4].copy_from_slice(&flag_bits(self.flags).to_be_bytes());
        fixed[4..8].copy_from_slice(&key.id().to_be_bytes());
        fixed[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        fixed[16..20].copy_from_slice(&self.sequence.to_be_bytes());
        fixed[20..22].copy_from_slice(&interval.to_be_bytes());
        fixed[22..24].copy_from_slice(&tlvs.to_be_bytes());
        fixed[24..32].copy_from_slice(&self.clock.to_be_bytes());
        let signature = key.signature(&out[ETHERNET_HEADER_LENGTH..]);
        out.extend_from_slice(&signature);
        debug_assert!(out.len() <= FRAME_MAX, "callers split addresses by ADDRESSES_PER_FRAME_MAX");
        out
    }

    /// Decodes a whole frame, Ethernet header first; returns its source and contents.
    ///
    /// # Errors
    /// Returns the reason why the frame must be dropped; see [`HelloDecodeError`].
    pub fn decode(bytes: &[u8], keys: &HelloKeyRing) -> Result<(Mac, Self), HelloDecodeError> {
        let mut header = Reader(bytes);
        let (_destination, source) = (header.array::<6>()?, header.array::<6>()?);
        if header.u16()? != ETHER_TYPE || bytes.len() > FRAME_MAX {
            return Err(HelloDecodeError::Malformed);
        }
        let payload = header.0;
        let mut fixed = Reader(payload);
        let (version, kind) = (fixed.take(1)?[0], fixed.take(1)?[0]);
        if version == 0 || version.abs_diff(VERSION) > 1 {
            return Err(HelloDecodeError::Version);
        }
        let (flags, key) = (fixed.u16()?, fixed.u32()?);
        let (epoch, sequence) = (fixed.u64()?, fixed.u32()?);
        let (interval, length) = (fixed.u16()?, usize::from(fixed.u16()?));
        let clock = fixed.u64()?;
        let tlvs = fixed.take(length)?;
        let signature = fixed.take(SIGNATURE_LENGTH)?;
        let key = keys.find(key).ok_or(HelloDecodeError::ForeignKey)?;
        if !key.verifies(&payload[..FIXED_LENGTH + length], signature) {
            return Err(HelloDecodeError::Signature);
        }
        let tlvs = Tlvs::read(tlvs)?;
        let node = std::str::from_utf8(tlvs.node.ok_or(HelloDecodeError::Malformed)?)
            .map_err(|_| HelloDecodeError::Malformed)?;
        if node.is_empty() || node.len() > NODE_NAME_MAX || interval == 0 {
            return Err(HelloDecodeError::Malformed);
        }
        let frame = Self {
            node: node.into(),
            epoch,
            sequence,
            clock,
            interval: Duration::from_millis(interval.into()),
            flags: flags_from(flags),
            body: tlvs.body(kind, version)?,
        };
        Ok((Mac(source), frame))
    }
}

fn encode_body(body: &Body, out: &mut Vec<u8>) -> u8 {
    match body {
        Body::Hello { generation, accepted_keys, failing } => {
            tlv(out, TLV_GENERATION, &generation.to_be_bytes());
            tlv(
                out,
                TLV_ACCEPTED_KEYS,
                &accepted_keys.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>(),
            );
            failing_tlvs(out, failing);
            KIND_HELLO
        }
        Body::Claim { previous_generation: before, generation, addresses, preempt_delays } => {
            change_tlvs(out, *before, *generation, addresses);
            preempt_delays_tlv(out, addresses, preempt_delays);
            KIND_CLAIM
        }
        Body::Release { previous_generation: before, generation, addresses, reason } => {
            change_tlvs(out, *before, *generation, addresses);
            if *reason != ReleaseReason::HandedOver {
                tlv(out, TLV_REFUSED, &[]);
            }
            if *reason == ReleaseReason::Contested {
                tlv(out, TLV_CONTESTED, &[]);
            }
            KIND_RELEASE
        }
        Body::Challenge { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_CHALLENGE
        }
        Body::ChallengeReply { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_CHALLENGE_REPLY
        }
        Body::ListRequest => KIND_LIST_REQUEST,
        Body::List { generation, part, parts, addresses, preempt_delays } => {
            tlv(out, TLV_GENERATION, &generation.to_be_bytes());
            tlv(out, TLV_PART, &[part.to_be_bytes(), parts.to_be_bytes()].concat());
            address_tlvs(out, (TLV_V4, TLV_V6), addresses);
            preempt_delays_tlv(out, addresses, preempt_delays);
            KIND_LIST
        }
    }
}

fn change_tlvs(out: &mut Vec<u8>, before: u32, generation: u32, addresses: &[IpAddr]) {
    tlv(out, TLV_GENERATION, &generation.to_be_bytes());
    tlv(out, TLV_PREVIOUS_GENERATION, &before.to_be_bytes());
    address_tlvs(out, (TLV_V4, TLV_V6), addresses);
}

/// Writes one TLV for each family of which there are addresses. `kinds` are the TLV types for IPv4
/// and IPv6.
fn address_tlvs(out: &mut Vec<u8>, kinds: (u16, u16), addresses: &[IpAddr]) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(a) => v4.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => v6.extend_from_slice(&a.octets()),
        }
    }
    for (kind, value) in [(kinds.0, v4), (kinds.1, v6)] {
        if !value.is_empty() {
            tlv(out, kind, &value);
        }
    }
}

fn failing_tlvs(out: &mut Vec<u8>, failing: &FailingReport) {
    let FailingReport { addresses, more_before, more_after } = failing;
    address_tlvs(out, (TLV_FAILING_V4, TLV_FAILING_V6), addresses);
    let more = (u8::from(*more_before) * MORE_BEFORE) | (u8::from(*more_after) * MORE_AFTER);
    if more != 0 {
        tlv(out, TLV_FAILING_MORE, &[more]);
    }
}

/// Writes the preempt delays in the order in which [`address_tlvs`] writes the addresses: IPv4
/// first.
fn preempt_delays_tlv(out: &mut Vec<u8>, addresses: &[IpAddr], preempt_delays: &[Duration]) {
    if preempt_delays.is_empty() {
        return;
    }
    let units = |delay: &Duration| {
        u16::try_from(delay.as_millis() / PREEMPT_DELAY_UNIT.as_millis()).unwrap_or(u16::MAX)
    };
    let of_family = |v6: bool| {
        addresses.iter().zip(preempt_delays).filter(move |(address, _)| address.is_ipv6() == v6)
    };
    let all = of_family(false).chain(of_family(true));
    tlv(
        out,
        TLV_PREEMPT_DELAYS,
        &all.flat_map(|(_, delay)| units(delay).to_be_bytes()).collect::<Vec<_>>(),
    );
}

fn tlv(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

const fn flag_bits(f: Flags) -> u16 {
    (f.leaving as u16)
        | (f.draining as u16) << 1
        | (f.unhealthy as u16) << 2
        | (f.flapping as u16) << 3
        | (f.in_preempt_delay as u16) << 4
        | (f.isolated as u16) << 5
        | (f.health_checked as u16) << 6
}

const fn flags_from(bits: u16) -> Flags {
    Flags {
        leaving: bits & 1 != 0,
        draining: bits & 2 != 0,
        unhealthy: bits & 4 != 0,
        flapping: bits & 8 != 0,
        in_preempt_delay: bits & 16 != 0,
        isolated: bits & 32 != 0,
        health_checked: bits & 64 != 0,
    }
}

/// Decoded values of the known TLVs of a frame, in the order of the frame.
#[derive(Default)]
struct Tlvs<'a> {
    node: Option<&'a [u8]>,
    generation: Option<u32>,
    before: Option<u32>,
    accepted_keys: Vec<u32>,
    addresses: Vec<IpAddr>,
    nonce: Option<u64>,
    part: Option<(u16, u16)>,
    reason: Option<ReleaseReason>,
    preempt_delays: Vec<Duration>,
    failing: FailingReport,
}

impl<'a> Tlvs<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, HelloDecodeError> {
        let mut all = Self::default();
        let mut rest = Reader(bytes);
        while !rest.0.is_empty() {
            let (kind, length) = (rest.u16()?, rest.u16()?);
            let mut value = Reader(rest.take(length.into())?);
            match kind {
                TLV_NODE => all.node = Some(value.0),
                TLV_GENERATION => all.generation = Some(value.u32()?),
                TLV_PREVIOUS_GENERATION => all.before = Some(value.u32()?),
                TLV_NONCE => all.nonce = Some(value.u64()?),
                TLV_PART => all.part = Some((value.u16()?, value.u16()?)),
                TLV_REFUSED if all.reason.is_none() => {
                    all.reason = Some(ReleaseReason::NotCandidate)
                }
                TLV_CONTESTED => all.reason = Some(ReleaseReason::Contested),
                TLV_PREEMPT_DELAYS => {
                    while !value.0.is_empty() {
                        all.preempt_delays.push(PREEMPT_DELAY_UNIT * u32::from(value.u16()?));
                    }
                }
                TLV_ACCEPTED_KEYS => {
                    while !value.0.is_empty() {
                        all.accepted_keys.push(value.u32()?);
                    }
                }
                TLV_V4 => value.addresses::<4>(&mut all.addresses)?,
                TLV_V6 => value.addresses::<16>(&mut all.addresses)?,
                TLV_FAILING_V4 => value.addresses::<4>(&mut all.failing.addresses)?,
                TLV_FAILING_V6 => value.addresses::<16>(&mut all.failing.addresses)?,
                TLV_FAILING_MORE => {
                    let more = value.take(1)?[0];
                    all.failing.more_before = more & MORE_BEFORE != 0;
                    all.failing.more_after = more & MORE_AFTER != 0;
                }
                _ => {}
            }
        }
        Ok(all)
    }

    fn body(self, kind: u8, version: u8) -> Result<Body, HelloDecodeError> {
        let generation = self.generation.ok_or(HelloDecodeError::Malformed);
        let before = self.before.ok_or(HelloDecodeError::Malformed);
        let nonce = self.nonce.ok_or(HelloDecodeError::Malformed);
        // Sort the addresses IPv4 first, as the sender wrote them, because the delays are in that
        // order.
        let (mut addresses, mut preempt_delays, mut failing) =
            (self.addresses, self.preempt_delays, self.failing);
        addresses.sort_by_key(IpAddr::is_ipv6);
        failing.addresses.sort_unstable();
        preempt_delays.truncate(addresses.len());
        Ok(match kind {
            KIND_HELLO => {
                Body::Hello { generation: generation?, accepted_keys: self.accepted_keys, failing }
            }
            KIND_CLAIM => Body::Claim {
                previous_generation: before?,
                generation: generation?,
                addresses,
                preempt_delays,
            },
            KIND_RELEASE => {
                let reason = self.reason.unwrap_or(ReleaseReason::HandedOver);
                Body::Release {
                    previous_generation: before?,
                    generation: generation?,
                    addresses,
                    reason,
                }
            }
            KIND_CHALLENGE => Body::Challenge { nonce: nonce? },
            KIND_CHALLENGE_REPLY => Body::ChallengeReply { nonce: nonce? },
            KIND_LIST_REQUEST => Body::ListRequest,
            KIND_LIST => {
                let (part, parts) = self
                    .part
                    .filter(|(part, parts)| part < parts)
                    .ok_or(HelloDecodeError::Malformed)?;
                Body::List { generation: generation?, part, parts, addresses, preempt_delays }
            }
            // A later version may have kinds of frames that this version does not support.
            _ if version > VERSION => return Err(HelloDecodeError::Version),
            _ => return Err(HelloDecodeError::Malformed),
        })
    }
}

/// The part of a frame that is not decoded yet. A read past the end returns
/// [`HelloDecodeError::Malformed`].
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HelloDecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(HelloDecodeError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloDecodeError> {
        self.take(N)?.try_into().map_err(|_| HelloDecodeError::Malformed)
    }

    /// Decodes the rest as addresses of `N` bytes each.
    fn addresses<const N: usize>(&mut self, out: &mut Vec<IpAddr>) -> Result<(), HelloDecodeError>
    where
        IpAddr: From<[u8; N]>,
    {
        while !self.0.is_empty() {
            out.push(IpAddr::from(self.array::<N>()?));
        }
        Ok(())
    }

    fn u16(&mut self) -> Result<u16, HelloDecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, HelloDecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, HelloDecodeError> {
        self.array().map(u64::from_be_bytes)
    }
}
