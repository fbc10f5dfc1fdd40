//! What the targets share: bytes of the fuzzer made into frames that have a right signature, so that it gets past it.

use ferrolb_proto::wire::hello::{Body, Key};

/// Where the signature of a hello frame with this header ends its TLVs: see `proto/src/wire/hello.rs` for the layout.
const ETHERNET_HEADER: usize = 14;
const FIXED: usize = 32;

/// The input as a frame of ours: EtherType, key id and length of TLVs set right, and signed. None: too short or too long for one.
pub fn signed(input: &[u8], key: &Key) -> Option<Vec<u8>> {
    let mut frame = input.to_vec();
    let tlvs = u16::try_from(frame.len().checked_sub(ETHERNET_HEADER + FIXED)?).ok()?;
    frame[12..14].copy_from_slice(&ferrolb_proto::wire::hello::ETHER_TYPE.to_be_bytes());
    frame[18..22].copy_from_slice(&key.id().to_be_bytes());
    frame[36..38].copy_from_slice(&tlvs.to_be_bytes());
    let signature = key.signature(&frame[ETHERNET_HEADER..]);
    frame.extend_from_slice(&signature);
    Some(frame)
}

/// How many addresses a frame names.
pub fn addresses(body: &Body) -> usize {
    match body {
        Body::Claim { addresses, .. } | Body::Release { addresses, .. } | Body::List { addresses, .. } => {
            addresses.len()
        }
        Body::Hello { failing, .. } => failing.addresses.len(),
        Body::Challenge { .. } | Body::Answer { .. } | Body::Ask => 0,
    }
}
