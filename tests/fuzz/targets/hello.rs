//! Any bytes as a hello frame, as they are and with a right signature: nothing panics, nothing grows, and what is read is written back
//! to a frame that reads the same.

#![no_main]

use std::sync::LazyLock;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{FRAME_MAX, Frame, Key, KeyRing};
use libfuzzer_sys::fuzz_target;

/// The key of all inputs: a member that has gone mad has it, too.
static KEY: LazyLock<Key> = LazyLock::new(|| Key::new([7; 32]));
static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::new(vec![KEY.clone()]));

/// What is written and need not be there to be read: an empty list of keys, or the word that goes before another one, in bytes.
const ADDED_MAX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let _ = Frame::decode(bytes, &RING);
    let Some(signed) = ferrolb_fuzz::signed(bytes, &KEY) else { return };
    let Ok((source, frame)) = Frame::decode(&signed, &RING) else { return };
    let addresses = ferrolb_fuzz::addresses(&frame.body);
    assert!(addresses * 4 <= FRAME_MAX, "{addresses} addresses in one frame");
    if signed.len() > FRAME_MAX - ADDED_MAX {
        return;
    }
    let written = frame.encode(source, Some(Mac([2; 6])), &KEY);
    assert_eq!(Frame::decode(&written, &RING).as_ref().map(|(_, frame)| frame), Ok(&frame));
});
