//! Fuzzes the ownership alone, without the other parts of the claim machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ferrolb_speaker_core::claim::fuzz::fuzz_ownership(bytes));
