//! Bytes of hello frames. Nothing that a wire brings can panic here or take more memory than one frame.

use std::net::IpAddr;
use std::time::Duration;

use super::keys::SIGNATURE;
use super::{Body, ETHER_TYPE, Failing, Flags, Frame, GROUP, Key, KeyRing, NODE_MAX, Release, VERSION};
use crate::wire::{ETHERNET_HEADER, Mac, ethernet};

/// Length of the fixed part, in bytes.
const FIXED: usize = 32;
/// The longest frame with its Ethernet header, in bytes: an MTU of 1,500.
pub const FRAME_MAX: usize = ETHERNET_HEADER + 1500;
/// How many addresses of any family surely fit in one frame.
pub const ADDRESSES_PER_FRAME_MAX: usize = 64;

const KIND_HELLO: u8 = 1;
const KIND_CLAIM: u8 = 2;
const KIND_RELEASE: u8 = 3;
const KIND_CHALLENGE: u8 = 4;
const KIND_ANSWER: u8 = 5;
const KIND_ASK: u8 = 6;
const KIND_LIST: u8 = 7;

const TLV_NODE: u16 = 1;
const TLV_GENERATION: u16 = 2;
const TLV_BEFORE: u16 = 3;
const TLV_ACCEPTS: u16 = 4;
const TLV_V4: u16 = 5;
const TLV_V6: u16 = 6;
const TLV_NONCE: u16 = 7;
const TLV_PART: u16 = 8;
const TLV_REFUSED: u16 = 9;
const TLV_CONTESTED: u16 = 10;
const TLV_KEEPS: u16 = 11;
const TLV_FAILING_V4: u16 = 12;
const TLV_FAILING_V6: u16 = 13;
/// One byte: [`MORE_BEFORE`] and [`MORE_AFTER`]. Without it what fails is said as a whole.
const TLV_FAILING_MORE: u16 = 14;
const MORE_BEFORE: u8 = 1;
const MORE_AFTER: u8 = 2;
/// The unit of [`TLV_KEEPS`].
const KEEP_UNIT: Duration = Duration::from_millis(10);

/// Why a frame was dropped. Each is a counter of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a hello frame, cut short, longer than [`FRAME_MAX`], or with contents that contradict its kind.
    #[error("malformed")]
    Malformed,
    /// A version that we do not speak.
    #[error("version not spoken")]
    Version,
    /// Signed with a key that is not ours: another cluster, or a key not yet read. No error.
    #[error("foreign key")]
    ForeignKey,
    /// The signature does not fit.
    #[error("wrong signature")]
    Signature,
}

impl Frame {
    /// The whole frame from `source` to `destination` (the group where there is none), signed.
    #[must_use]
    pub fn encode(&self, source: Mac, destination: Option<Mac>, key: &Key) -> Vec<u8> {
        let mut out = vec![0; ETHERNET_HEADER + FIXED];
        ethernet(&mut out, destination.unwrap_or(GROUP), source, ETHER_TYPE);
        tlv(&mut out, TLV_NODE, self.node.as_bytes());
        let kind = encode_body(&self.body, &mut out);
        let tlvs = u16::try_from(out.len() - ETHERNET_HEADER - FIXED).unwrap_or(u16::MAX);
        let interval = u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX);
        let fixed = &mut out[ETHERNET_HEADER..];
        fixed[0] = VERSION;
        fixed[1] = kind;
        fixed[2..4].copy_from_slice(&flag_bits(self.flags).to_be_bytes());
        fixed[4..8].copy_from_slice(&key.id().to_be_bytes());
        fixed[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        fixed[16..20].copy_from_slice(&self.sequence.to_be_bytes());
        fixed[20..22].copy_from_slice(&interval.to_be_bytes());
        fixed[22..24].copy_from_slice(&tlvs.to_be_bytes());
        fixed[24..32].copy_from_slice(&self.clock.to_be_bytes());
        let signature = key.signature(&out[ETHERNET_HEADER..]);
        out.extend_from_slice(&signature);
        debug_assert!(out.len() <= FRAME_MAX, "callers split addresses by ADDRESSES_PER_FRAME_MAX");
        out
    }

    /// Reads a whole frame, Ethernet header first, and gives its source and contents.
    ///
    /// # Errors
    /// Says why the frame must be dropped; see [`DecodeError`].
    pub fn decode(bytes: &[u8], keys: &KeyRing) -> Result<(Mac, Self), DecodeError> {
        let mut header = Reader(bytes);
        let (_destination, source) = (header.array::<6>()?, header.array::<6>()?);
        if header.u16()? != ETHER_TYPE || bytes.len() > FRAME_MAX {
            return Err(DecodeError::Malformed);
        }
        let payload = header.0;
        let mut fixed = Reader(payload);
        let (version, kind) = (fixed.take(1)?[0], fixed.take(1)?[0]);
        if version == 0 || version.abs_diff(VERSION) > 1 {
            return Err(DecodeError::Version);
        }
        let (flags, key) = (fixed.u16()?, fixed.u32()?);
        let (epoch, sequence) = (fixed.u64()?, fixed.u32()?);
        let (interval, length) = (fixed.u16()?, usize::from(fixed.u16()?));
        let clock = fixed.u64()?;
        let tlvs = fixed.take(length)?;
        let signature = fixed.take(SIGNATURE)?;
        let key = keys.find(key).ok_or(DecodeError::ForeignKey)?;
        if !key.verifies(&payload[..FIXED + length], signature) {
            return Err(DecodeError::Signature);
        }
        let tlvs = Tlvs::read(tlvs)?;
        let node = std::str::from_utf8(tlvs.node.ok_or(DecodeError::Malformed)?).map_err(|_| DecodeError::Malformed)?;
        if node.is_empty() || node.len() > NODE_MAX || interval == 0 {
            return Err(DecodeError::Malformed);
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
        Body::Hello { generation, accepts, failing } => {
            tlv(out, TLV_GENERATION, &generation.to_be_bytes());
            tlv(out, TLV_ACCEPTS, &accepts.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>());
            failing_tlvs(out, failing);
            KIND_HELLO
        }
        Body::Claim { before, generation, addresses, keeps } => {
            change(out, *before, *generation, addresses);
            keeps_tlv(out, addresses, keeps);
            KIND_CLAIM
        }
        Body::Release { before, generation, addresses, why } => {
            change(out, *before, *generation, addresses);
            if *why != Release::HandedOver {
                tlv(out, TLV_REFUSED, &[]);
            }
            if *why == Release::Contested {
                tlv(out, TLV_CONTESTED, &[]);
            }
            KIND_RELEASE
        }
        Body::Challenge { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_CHALLENGE
        }
        Body::Answer { nonce } => {
            tlv(out, TLV_NONCE, &nonce.to_be_bytes());
            KIND_ANSWER
        }
        Body::Ask => KIND_ASK,
        Body::List { generation, part, parts, addresses, keeps } => {
            tlv(out, TLV_GENERATION, &generation.to_be_bytes());
            tlv(out, TLV_PART, &[part.to_be_bytes(), parts.to_be_bytes()].concat());
            address_tlvs(out, (TLV_V4, TLV_V6), addresses);
            keeps_tlv(out, addresses, keeps);
            KIND_LIST
        }
    }
}

fn change(out: &mut Vec<u8>, before: u32, generation: u32, addresses: &[IpAddr]) {
    tlv(out, TLV_GENERATION, &generation.to_be_bytes());
    tlv(out, TLV_BEFORE, &before.to_be_bytes());
    address_tlvs(out, (TLV_V4, TLV_V6), addresses);
}

/// In a TLV for each family that is there.
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

fn failing_tlvs(out: &mut Vec<u8>, failing: &Failing) {
    let Failing { addresses, more_before, more_after } = failing;
    address_tlvs(out, (TLV_FAILING_V4, TLV_FAILING_V6), addresses);
    let more = (u8::from(*more_before) * MORE_BEFORE) | (u8::from(*more_after) * MORE_AFTER);
    if more != 0 {
        tlv(out, TLV_FAILING_MORE, &[more]);
    }
}

/// In the order in which the addresses are written: IPv4 first.
fn keeps_tlv(out: &mut Vec<u8>, addresses: &[IpAddr], keeps: &[Duration]) {
    if keeps.is_empty() {
        return;
    }
    let units = |keep: &Duration| u16::try_from(keep.as_millis() / KEEP_UNIT.as_millis()).unwrap_or(u16::MAX);
    let of_family = |v6: bool| addresses.iter().zip(keeps).filter(move |(address, _)| address.is_ipv6() == v6);
    let all = of_family(false).chain(of_family(true));
    tlv(out, TLV_KEEPS, &all.flat_map(|(_, keep)| units(keep).to_be_bytes()).collect::<Vec<_>>());
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
        | (f.unstable as u16) << 3
        | (f.fresh as u16) << 4
        | (f.deaf as u16) << 5
        | (f.checked as u16) << 6
}

const fn flags_from(bits: u16) -> Flags {
    Flags {
        leaving: bits & 1 != 0,
        draining: bits & 2 != 0,
        unhealthy: bits & 4 != 0,
        unstable: bits & 8 != 0,
        fresh: bits & 16 != 0,
        deaf: bits & 32 != 0,
        checked: bits & 64 != 0,
    }
}

/// The values of the TLVs we know, as they stand in the frame.
#[derive(Default)]
struct Tlvs<'a> {
    node: Option<&'a [u8]>,
    generation: Option<u32>,
    before: Option<u32>,
    accepts: Vec<u32>,
    addresses: Vec<IpAddr>,
    nonce: Option<u64>,
    part: Option<(u16, u16)>,
    why: Option<Release>,
    keeps: Vec<Duration>,
    failing: Failing,
}

impl<'a> Tlvs<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        let mut rest = Reader(bytes);
        while !rest.0.is_empty() {
            let (kind, length) = (rest.u16()?, rest.u16()?);
            let mut value = Reader(rest.take(length.into())?);
            match kind {
                TLV_NODE => all.node = Some(value.0),
                TLV_GENERATION => all.generation = Some(value.u32()?),
                TLV_BEFORE => all.before = Some(value.u32()?),
                TLV_NONCE => all.nonce = Some(value.u64()?),
                TLV_PART => all.part = Some((value.u16()?, value.u16()?)),
                TLV_REFUSED if all.why.is_none() => all.why = Some(Release::Refused),
                TLV_CONTESTED => all.why = Some(Release::Contested),
                TLV_KEEPS => {
                    while !value.0.is_empty() {
                        all.keeps.push(KEEP_UNIT * u32::from(value.u16()?));
                    }
                }
                TLV_ACCEPTS => {
                    while !value.0.is_empty() {
                        all.accepts.push(value.u32()?);
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

    fn body(self, kind: u8, version: u8) -> Result<Body, DecodeError> {
        let generation = self.generation.ok_or(DecodeError::Malformed);
        let before = self.before.ok_or(DecodeError::Malformed);
        let nonce = self.nonce.ok_or(DecodeError::Malformed);
        // As they are written: IPv4 first, which is the order of the waits, too.
        let (mut addresses, mut keeps, mut failing) = (self.addresses, self.keeps, self.failing);
        addresses.sort_by_key(IpAddr::is_ipv6);
        failing.addresses.sort_unstable();
        keeps.truncate(addresses.len());
        Ok(match kind {
            KIND_HELLO => Body::Hello { generation: generation?, accepts: self.accepts, failing },
            KIND_CLAIM => Body::Claim { before: before?, generation: generation?, addresses, keeps },
            KIND_RELEASE => {
                let why = self.why.unwrap_or(Release::HandedOver);
                Body::Release { before: before?, generation: generation?, addresses, why }
            }
            KIND_CHALLENGE => Body::Challenge { nonce: nonce? },
            KIND_ANSWER => Body::Answer { nonce: nonce? },
            KIND_ASK => Body::Ask,
            KIND_LIST => {
                let (part, parts) = self.part.filter(|(part, parts)| part < parts).ok_or(DecodeError::Malformed)?;
                Body::List { generation: generation?, part, parts, addresses, keeps }
            }
            // A later version may have words that we do not know.
            _ if version > VERSION => return Err(DecodeError::Version),
            _ => return Err(DecodeError::Malformed),
        })
    }
}

/// Bytes not yet read; running out of them is a malformed frame.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Malformed)
    }

    /// All that is left, as addresses of so many bytes each.
    fn addresses<const N: usize>(&mut self, out: &mut Vec<IpAddr>) -> Result<(), DecodeError>
    where
        IpAddr: From<[u8; N]>,
    {
        while !self.0.is_empty() {
            out.push(IpAddr::from(self.array::<N>()?));
        }
        Ok(())
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }
}
