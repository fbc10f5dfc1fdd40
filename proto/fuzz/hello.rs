//! Fuzzes the hello decoder with any bytes, unsigned and with a valid signature: no panic, bounded
//! output, and a decoded frame encodes to a frame that decodes to the same value.

#![no_main]

use std::sync::LazyLock;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{FRAME_MAX, Frame, HelloKey, HelloKeyRing};
use libfuzzer_sys::fuzz_target;

/// Key that signs all inputs; a malicious peer has the key, too.
static KEY: LazyLock<HelloKey> = LazyLock::new(|| HelloKey::new([7; 32]));
static RING: LazyLock<HelloKeyRing> = LazyLock::new(|| HelloKeyRing::new(vec![KEY.clone()]));

/// Maximum number of bytes that the encoder may add to a decoded frame: an empty list of keys.
const ADDED_MAX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let _ = Frame::decode(bytes, &RING);
    let Some(signed) = ferrolb_fuzz::sign_input(bytes, &KEY) else { return };
    let Ok((source, frame)) = Frame::decode(&signed, &RING) else { return };
    let addresses = ferrolb_fuzz::count_addresses(&frame.body);
    assert!(addresses * 4 <= FRAME_MAX, "one frame contains {addresses} addresses");
    if signed.len() > FRAME_MAX - ADDED_MAX {
        return;
    }
    let encoded = frame.encode(source, Some(Mac([2; 6])), &KEY);
    assert_eq!(Frame::decode(&encoded, &RING).as_ref().map(|(_, frame)| frame), Ok(&frame));
});
