//! Encoding and decoding of hello frames. No received bytes can cause a panic, or make the decoder
//! use more memory than one frame.

use std::net::IpAddr;
use std::time::Duration;

use super::keys::SIGNATURE_LENGTH;
use super::{
    Body, Claim, ClaimRank, ClaimSetSummary, ETHER_TYPE, Flags, Frame, GROUP, HelloKey,
    HelloKeyRing, NODE_NAME_MAX, NodeWatch, PathReport, Stretch, VERSION,
};
use crate::wire::{ETHERNET_HEADER_LENGTH, Mac, write_ethernet_header};

/// Length of the fixed part of a frame, which precedes the TLVs, in bytes.
const FIXED_LENGTH: usize = 44;
/// Maximum length of a frame with its Ethernet header, in bytes: an MTU of 1,500.
pub const FRAME_MAX: usize = ETHERNET_HEADER_LENGTH + DATAGRAM_MAX;
/// Maximum length of a datagram of the second path, in bytes.
pub const DATAGRAM_MAX: usize = 1500;
/// Versions of received frames that this speaker supports. Version 1 has another fixed part.
const SUPPORTED_VERSIONS: std::ops::RangeInclusive<u8> = VERSION..=VERSION + 1;
/// Number of addresses of any family that always fit in one frame.
pub const ADDRESSES_PER_FRAME_MAX: usize = 45;

const KIND_HELLO: u8 = 1;
const KIND_CLAIM: u8 = 2;
const KIND_RELEASE: u8 = 3;
const KIND_CHALLENGE: u8 = 4;
const KIND_CHALLENGE_REPLY: u8 = 5;
const KIND_LIST_REQUEST: u8 = 6;
const KIND_LIST: u8 = 7;
const KIND_DOUBT: u8 = 8;
const KIND_PATH_REPORT: u8 = 9;
const KIND_NODE_CHALLENGE: u8 = 10;
const KIND_NODE_REPLY: u8 = 11;

const TLV_NODE: u16 = 1;
const TLV_ACCEPTED_KEYS: u16 = 2;
const TLV_NONCE: u16 = 3;
/// TLVs of addresses: 4 or 16 bytes for each.
const TLV_V4: u16 = 4;
const TLV_V6: u16 = 5;
/// TLVs of claims: an address, the soft rules (u8), the preference (u16), the order (u32), and the
/// preempt delay in [`PREEMPT_DELAY_UNIT`] (u16).
const TLV_CLAIMS_V4: u16 = 6;
const TLV_CLAIMS_V6: u16 = 7;
/// TLVs of one address: the bounds of a stretch.
const TLV_AFTER: u16 = 8;
const TLV_LAST: u16 = 9;
/// Empty TLV of a contested release.
const TLV_CONTESTED: u16 = 10;
/// TLV of the bits of a path report (u8).
const TLV_PATH_REPORT: u16 = 11;
/// TLV of the detection time in milliseconds (u32).
const TLV_DETECTION_TIME: u16 = 12;
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
        if let Some(time) = self.detection_time {
            let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            tlv(&mut out, TLV_DETECTION_TIME, &millis.to_be_bytes());
        }
        let kind = encode_body(&self.body, &mut out);
        let tlvs =
            u16::try_from(out.len() - ETHERNET_HEADER_LENGTH - FIXED_LENGTH).unwrap_or(u16::MAX);
        let interval = u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX);
        let ClaimSetSummary { counter, count, digest } = self.claim_set;
        let fixed = &mut out[ETHERNET_HEADER_LENGTH..];
        fixed[0] = VERSION;
        fixed[1] = kind;
        fixed[2..4].copy_from_slice(&flag_bits(self.flags).to_be_bytes());
        fixed[4..8].copy_from_slice(&key.id().to_be_bytes());
        fixed[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        fixed[16..24].copy_from_slice(&self.clock.to_be_bytes());
        fixed[24..28].copy_from_slice(&counter.to_be_bytes());
        fixed[28..32].copy_from_slice(&count.to_be_bytes());
        fixed[32..40].copy_from_slice(&digest.to_be_bytes());
        fixed[40..42].copy_from_slice(&interval.to_be_bytes());
        fixed[42..44].copy_from_slice(&tlvs.to_be_bytes());
        let signature = key.signature(&out[ETHERNET_HEADER_LENGTH..]);
        out.extend_from_slice(&signature);
        debug_assert!(out.len() <= FRAME_MAX, "callers split addresses by ADDRESSES_PER_FRAME_MAX");
        out
    }

    /// Encodes and signs a datagram of the second path.
    #[must_use]
    pub fn encode_datagram(&self, key: &HelloKey) -> Vec<u8> {
        self.encode(Mac::ZERO, None, key).split_off(ETHERNET_HEADER_LENGTH)
    }

    /// Decodes a whole frame, Ethernet header first; returns its source and contents.
    ///
    /// # Errors
    /// Returns the reason why the frame must be dropped; see [`HelloDecodeError`].
    pub fn decode(bytes: &[u8], keys: &HelloKeyRing) -> Result<(Mac, Self), HelloDecodeError> {
        let mut header = Reader(bytes);
        let (_destination, source) = (header.array::<6>()?, header.array::<6>()?);
        if header.u16()? != ETHER_TYPE {
            return Err(HelloDecodeError::Malformed);
        }
        Ok((Mac(source), Self::decode_datagram(header.0, keys)?))
    }

    /// Returns the ID of the key that signs a datagram of the second path.
    #[must_use]
    pub fn key_of_datagram(payload: &[u8]) -> Option<u32> {
        let mut fixed = Reader(payload);
        fixed.take(4).and_then(|_| fixed.u32()).ok()
    }

    /// Decodes a datagram of the second path.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_datagram(payload: &[u8], keys: &HelloKeyRing) -> Result<Self, HelloDecodeError> {
        if payload.len() > DATAGRAM_MAX {
            return Err(HelloDecodeError::Malformed);
        }
        let mut fixed = Reader(payload);
        let (version, kind) = (fixed.take(1)?[0], fixed.take(1)?[0]);
        if !SUPPORTED_VERSIONS.contains(&version) {
            return Err(HelloDecodeError::Version);
        }
        let (flags, key) = (fixed.u16()?, fixed.u32()?);
        let (epoch, clock) = (fixed.u64()?, fixed.u64()?);
        let (counter, count, digest) = (fixed.u32()?, fixed.u32()?, fixed.u64()?);
        let (interval, length) = (fixed.u16()?, usize::from(fixed.u16()?));
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
        Ok(Self {
            node: node.into(),
            epoch,
            clock,
            claim_set: ClaimSetSummary { counter, count, digest },
            interval: Duration::from_millis(interval.into()),
            detection_time: tlvs.detection_time,
            flags: flags_from(flags),
            body: tlvs.body(kind, version)?,
        })
    }
}

fn encode_body(body: &Body, out: &mut Vec<u8>) -> u8 {
    match body {
        Body::Hello { accepted_keys } => {
            let ids: Vec<_> = accepted_keys.iter().flat_map(|id| id.to_be_bytes()).collect();
            tlv(out, TLV_ACCEPTED_KEYS, &ids);
            KIND_HELLO
        }
        Body::Claim(claims) => {
            claim_tlvs(out, claims);
            KIND_CLAIM
        }
        Body::Release { addresses, contested } => {
            address_tlvs(out, addresses);
            if *contested {
                tlv(out, TLV_CONTESTED, &[]);
            }
            KIND_RELEASE
        }
        Body::Doubt(addresses) => {
            address_tlvs(out, addresses);
            KIND_DOUBT
        }
        Body::Challenge { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_CHALLENGE
        }
        Body::ChallengeReply { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_CHALLENGE_REPLY
        }
        Body::PathReport { nonce, report } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            let PathReport { receives, has_replied, is_received } = *report;
            let bits = u8::from(receives) | u8::from(has_replied) << 1 | u8::from(is_received) << 2;
            tlv(out, TLV_PATH_REPORT, &[bits]);
            KIND_PATH_REPORT
        }
        Body::NodeWatch(NodeWatch::Challenge(nonce)) => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_NODE_CHALLENGE
        }
        Body::NodeWatch(NodeWatch::Reply(nonce)) => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_NODE_REPLY
        }
        Body::ListRequest => KIND_LIST_REQUEST,
        Body::List(Stretch { after, last, claims }) => {
            for (kind, bound) in [(TLV_AFTER, after), (TLV_LAST, last)] {
                if let Some(address) = bound {
                    tlv(out, kind, &octets(address));
                }
            }
            claim_tlvs(out, claims);
            KIND_LIST
        }
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address_tlvs(out: &mut Vec<u8>, addresses: &[IpAddr]) {
    let entry = |address: &IpAddr| (address.is_ipv6(), octets(address));
    family_tlvs(out, (TLV_V4, TLV_V6), addresses.iter().map(entry));
}

fn claim_tlvs(out: &mut Vec<u8>, claims: &[Claim]) {
    let entry = |claim: &Claim| {
        let units = claim.preempt_delay.as_millis() / PREEMPT_DELAY_UNIT.as_millis();
        let ClaimRank { soft_rules, preference, order } = claim.rank;
        let mut bytes = octets(&claim.address);
        bytes.push(soft_rules);
        bytes.extend_from_slice(&preference.to_be_bytes());
        bytes.extend_from_slice(&order.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(units).unwrap_or(u16::MAX).to_be_bytes());
        (claim.address.is_ipv6(), bytes)
    };
    family_tlvs(out, (TLV_CLAIMS_V4, TLV_CLAIMS_V6), claims.iter().map(entry));
}

/// Writes one TLV for each family of which there are entries. `kinds` are the TLV types for IPv4
/// and IPv6. An entry is true for IPv6, and its bytes.
fn family_tlvs(
    out: &mut Vec<u8>,
    kinds: (u16, u16),
    entries: impl Iterator<Item = (bool, Vec<u8>)> + Clone,
) {
    for (kind, v6) in [(kinds.0, false), (kinds.1, true)] {
        let value: Vec<u8> =
            entries.clone().filter(|entry| entry.0 == v6).flat_map(|entry| entry.1).collect();
        if !value.is_empty() {
            tlv(out, kind, &value);
        }
    }
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
        | (f.in_preempt_delay as u16) << 4
        | (f.isolated as u16) << 5
        | (f.health_checked as u16) << 6
}

const fn flags_from(bits: u16) -> Flags {
    Flags {
        leaving: bits & 1 != 0,
        draining: bits & 2 != 0,
        unhealthy: bits & 4 != 0,
        in_preempt_delay: bits & 16 != 0,
        isolated: bits & 32 != 0,
        health_checked: bits & 64 != 0,
    }
}

const fn path_report(bits: u8) -> PathReport {
    PathReport { receives: bits & 1 != 0, has_replied: bits & 2 != 0, is_received: bits & 4 != 0 }
}

/// Decoded values of the known TLVs of a frame, in the order of the frame.
#[derive(Default)]
struct Tlvs<'a> {
    node: Option<&'a [u8]>,
    accepted_keys: Vec<u32>,
    addresses: Vec<IpAddr>,
    claims: Vec<Claim>,
    nonce: Option<u64>,
    after: Option<IpAddr>,
    last: Option<IpAddr>,
    contested: bool,
    report: Option<PathReport>,
    detection_time: Option<Duration>,
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
                TLV_NONCE => all.nonce = Some(value.u64()?),
                TLV_AFTER => all.after = Some(value.any_address()?),
                TLV_LAST => all.last = Some(value.any_address()?),
                TLV_CONTESTED => all.contested = true,
                TLV_PATH_REPORT => all.report = Some(path_report(value.take(1)?[0])),
                TLV_DETECTION_TIME => {
                    all.detection_time = Some(Duration::from_millis(value.u32()?.into()));
                }
                TLV_ACCEPTED_KEYS => value.all(&mut all.accepted_keys, Reader::u32)?,
                TLV_V4 => value.all(&mut all.addresses, Reader::address::<4>)?,
                TLV_V6 => value.all(&mut all.addresses, Reader::address::<16>)?,
                TLV_CLAIMS_V4 => value.all(&mut all.claims, Reader::claim::<4>)?,
                TLV_CLAIMS_V6 => value.all(&mut all.claims, Reader::claim::<16>)?,
                _ => {}
            }
        }
        Ok(all)
    }

    fn body(self, kind: u8, version: u8) -> Result<Body, HelloDecodeError> {
        let Self { accepted_keys, mut addresses, mut claims, after, last, contested, .. } = self;
        let nonce = self.nonce.ok_or(HelloDecodeError::Malformed);
        addresses.sort_unstable();
        claims.sort_by_key(|claim| claim.address);
        Ok(match kind {
            KIND_HELLO => Body::Hello { accepted_keys },
            KIND_CLAIM => Body::Claim(claims),
            KIND_RELEASE => Body::Release { addresses, contested },
            KIND_DOUBT => Body::Doubt(addresses),
            KIND_CHALLENGE => Body::Challenge { nonce: nonce? },
            KIND_CHALLENGE_REPLY => Body::ChallengeReply { nonce: nonce? },
            KIND_PATH_REPORT => Body::PathReport {
                nonce: nonce?,
                report: self.report.ok_or(HelloDecodeError::Malformed)?,
            },
            KIND_NODE_CHALLENGE => Body::NodeWatch(NodeWatch::Challenge(nonce?)),
            KIND_NODE_REPLY => Body::NodeWatch(NodeWatch::Reply(nonce?)),
            KIND_LIST_REQUEST => Body::ListRequest,
            KIND_LIST => Body::List(Stretch { after, last, claims }),
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

    /// Decodes the rest as values of one kind.
    fn all<T>(
        &mut self,
        out: &mut Vec<T>,
        read: impl Fn(&mut Self) -> Result<T, HelloDecodeError>,
    ) -> Result<(), HelloDecodeError> {
        while !self.0.is_empty() {
            out.push(read(self)?);
        }
        Ok(())
    }

    fn address<const N: usize>(&mut self) -> Result<IpAddr, HelloDecodeError>
    where
        IpAddr: From<[u8; N]>,
    {
        self.array::<N>().map(IpAddr::from)
    }

    /// Decodes the rest as one address of any family.
    fn any_address(&mut self) -> Result<IpAddr, HelloDecodeError> {
        if self.0.len() == 4 { self.address::<4>() } else { self.address::<16>() }
    }

    fn claim<const N: usize>(&mut self) -> Result<Claim, HelloDecodeError>
    where
        IpAddr: From<[u8; N]>,
    {
        let address = self.address::<N>()?;
        let (soft_rules, preference) = (self.take(1)?[0], self.u16()?);
        let rank = ClaimRank { soft_rules, preference, order: self.u32()? };
        let preempt_delay = PREEMPT_DELAY_UNIT * u32::from(self.u16()?);
        Ok(Claim { address, rank, preempt_delay })
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
