//! Shared functions of the fuzz targets: turn the fuzzer's bytes into frames with a valid
//! signature, so that they pass the signature check.

use ferrolb_proto::wire::hello::{Body, HelloKey, Stretch};

/// Lengths in a hello frame, in bytes: of the Ethernet header, and of the fixed fields before the
/// TLVs. See `proto/src/wire/hello.rs` for the layout.
const ETHERNET_HEADER: usize = 14;
const FIXED_FIELDS: usize = 44;

/// Makes a signed hello frame from the input, with the correct EtherType, key id and length of the
/// TLVs. Returns `None` if the input is too short or too long.
pub fn sign_input(input: &[u8], key: &HelloKey) -> Option<Vec<u8>> {
    let mut frame = input.to_vec();
    let tlvs = u16::try_from(frame.len().checked_sub(ETHERNET_HEADER + FIXED_FIELDS)?).ok()?;
    frame[12..14].copy_from_slice(&ferrolb_proto::wire::hello::ETHER_TYPE.to_be_bytes());
    frame[18..22].copy_from_slice(&key.id().to_be_bytes());
    frame[56..58].copy_from_slice(&tlvs.to_be_bytes());
    let signature = key.signature(&frame[ETHERNET_HEADER..]);
    frame.extend_from_slice(&signature);
    Some(frame)
}

/// Returns the number of addresses in a frame.
pub fn count_addresses(body: &Body) -> usize {
    match body {
        Body::Claim(claims) | Body::List(Stretch { claims, .. }) => claims.len(),
        Body::Release { addresses, .. } | Body::Doubt(addresses) => addresses.len(),
        Body::Hello { .. }
        | Body::Challenge { .. }
        | Body::ChallengeReply { .. }
        | Body::PathReport { .. }
        | Body::NodeWatch(_)
        | Body::ListRequest => 0,
    }
}
