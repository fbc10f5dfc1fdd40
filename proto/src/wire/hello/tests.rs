//! Round trips of every kind of frame, rejection of corrupted frames, and compatibility of
//! versions.

use proptest::prelude::*;

use super::*;

const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn ring() -> HelloKeyRing {
    HelloKeyRing::new(vec![HelloKey::new([7; KEY_LENGTH]), HelloKey::new([6; KEY_LENGTH])])
}

fn frame(body: Body) -> Frame {
    let flags = Flags { in_preempt_delay: true, draining: true, ..Flags::default() };
    let interval = Duration::from_millis(50);
    Frame {
        node: "node1".into(),
        epoch: 0xfeed_beef_0000_0001,
        sequence: 42,
        clock: 123_456_789,
        interval,
        flags,
        body,
    }
}

fn failing(addresses: Vec<IpAddr>, more_before: bool, more_after: bool) -> FailingReport {
    FailingReport { addresses, more_before, more_after }
}

fn bodies() -> Vec<Body> {
    let addresses = vec![IpAddr::from([172, 30, 0, 200]), "fd30::c8".parse().expect("address")];
    let many: Vec<IpAddr> = (0..ADDRESSES_PER_FRAME_MAX as u16)
        .map(|n| IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n]))
        .collect();
    vec![
        Body::Hello {
            generation: 7,
            accepted_keys: vec![1, 2],
            failing: failing(addresses.clone(), false, false),
        },
        Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
        Body::Hello {
            generation: 1,
            accepted_keys: vec![1, 2, 3, 4],
            failing: failing(many.clone(), true, true),
        },
        Body::Hello {
            generation: 1,
            accepted_keys: vec![],
            failing: failing(many.clone(), false, true),
        },
        Body::Hello {
            generation: 1,
            accepted_keys: vec![],
            failing: failing(many.clone(), true, false),
        },
        Body::Claim {
            previous_generation: 6,
            generation: 7,
            addresses: addresses.clone(),
            preempt_delays: vec![Duration::from_millis(59_990), Duration::ZERO],
        },
        Body::Claim {
            previous_generation: 7,
            generation: 7,
            addresses: addresses.clone(),
            preempt_delays: vec![],
        },
        Body::Release {
            previous_generation: 7,
            generation: 8,
            addresses: addresses.clone(),
            reason: ReleaseReason::NotCandidate,
        },
        Body::Release {
            previous_generation: 7,
            generation: 8,
            addresses: addresses.clone(),
            reason: ReleaseReason::HandedOver,
        },
        Body::Release {
            previous_generation: 8,
            generation: 9,
            addresses,
            reason: ReleaseReason::Contested,
        },
        Body::Challenge { nonce: u64::MAX },
        Body::ChallengeReply { nonce: 1 },
        Body::ListRequest,
        Body::List {
            generation: 9,
            part: 1,
            parts: 2,
            addresses: many,
            preempt_delays: vec![Duration::from_secs(600); ADDRESSES_PER_FRAME_MAX],
        },
    ]
}

#[test]
fn every_frame_kind_survives_a_round_trip() {
    for body in bodies() {
        let mut long = frame(body);
        long.node = "n".repeat(NODE_NAME_MAX).into();
        let key = HelloKey::new([6; KEY_LENGTH]);
        let mut bytes = long.encode(SOURCE, None, &key);
        assert!(bytes.len() <= FRAME_MAX, "the frame has {} bytes", bytes.len());
        assert_eq!(&bytes[..6], &GROUP.0);
        bytes.resize((bytes.len() + 20).min(FRAME_MAX), 0); // Ethernet padding
        assert_eq!(Frame::decode(&bytes, &ring()), Ok((SOURCE, long)));
    }
}

#[test]
fn failing_addresses_are_decoded_in_any_number_and_order() {
    // A later version may send more addresses, in more TLVs, in any order.
    let v4: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let v6: Vec<IpAddr> = (0..10).map(|n| IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n])).collect();
    let octets = |all: &[IpAddr]| -> Vec<u8> {
        let of = |address: &IpAddr| match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        all.iter().rev().flat_map(of).collect()
    };
    let tlvs = [(13, octets(&v6)), (12, octets(&v4[..100])), (12, octets(&v4[100..]))];
    let body =
        Body::Hello { generation: 7, accepted_keys: vec![1], failing: FailingReport::default() };
    let decoded = Frame::decode(&with_tlvs(&frame(body.clone()), &tlvs), &ring())
        .map(|(_, frame)| frame.body);
    assert_eq!(
        decoded,
        Ok(Body::Hello {
            generation: 7,
            accepted_keys: vec![1],
            failing: failing([v4, v6].concat(), false, false)
        })
    );
    for (kind, length) in [(12, 3), (12, 5), (13, 4), (13, 15), (13, 17)] {
        let invalid = with_tlvs(&frame(body.clone()), &[(kind, vec![1; length])]);
        assert_eq!(
            Frame::decode(&invalid, &ring()),
            Err(HelloDecodeError::Malformed),
            "{length} bytes in TLV {kind} are malformed"
        );
    }
    let claim = frame(Body::Claim {
        previous_generation: 1,
        generation: 2,
        addresses: vec![],
        preempt_delays: vec![],
    });
    let decoded = Frame::decode(&with_tlvs(&claim, &tlvs), &ring());
    assert_eq!(decoded, Ok((SOURCE, claim)), "the TLVs have no effect in a frame of another kind");
}

#[test]
fn no_single_bit_of_a_signed_frame_can_be_changed() {
    let bytes = frame(bodies()[2].clone()).encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH]));
    for at in crate::wire::ETHERNET_HEADER_LENGTH..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(
            Frame::decode(&bad, &ring()).is_err(),
            "no frame with a changed byte {at} is accepted"
        );
    }
    assert!(
        (0..bytes.len()).all(|length| Frame::decode(&bytes[..length], &ring()).is_err()),
        "no truncated frame is accepted"
    );
}

#[test]
fn each_invalid_frame_has_its_error() {
    let good = frame(Body::ListRequest);
    let signed = |key: [u8; KEY_LENGTH]| good.encode(SOURCE, None, &HelloKey::new(key));
    assert_eq!(Frame::decode(&signed([1; 32]), &ring()), Err(HelloDecodeError::ForeignKey));
    let mut version = signed([7; 32]);
    version[14] = VERSION + 2;
    assert_eq!(Frame::decode(&version, &ring()), Err(HelloDecodeError::Version));
    let mut signature = signed([7; 32]);
    *signature.last_mut().expect("bytes") ^= 1;
    assert_eq!(Frame::decode(&signature, &ring()), Err(HelloDecodeError::Signature));
    assert_eq!(Frame::decode(&[0; 60], &ring()), Err(HelloDecodeError::Malformed));
    let padded = |length: usize| {
        let mut bytes = signed([7; 32]);
        bytes.resize(length, 0);
        Frame::decode(&bytes, &ring()).map(|(_, frame)| frame)
    };
    assert_eq!(
        (padded(FRAME_MAX), padded(FRAME_MAX + 1)),
        (Ok(good.clone()), Err(HelloDecodeError::Malformed))
    );
    let mut without_node = good.clone();
    without_node.node = "".into();
    assert_eq!(
        Frame::decode(&without_node.encode(SOURCE, None, &HelloKey::new([7; 32])), &ring()),
        Err(HelloDecodeError::Malformed)
    );
    let invalid_part = frame(Body::List {
        generation: 1,
        part: 2,
        parts: 2,
        addresses: vec![],
        preempt_delays: vec![],
    });
    assert_eq!(
        Frame::decode(&invalid_part.encode(SOURCE, None, &HelloKey::new([7; 32])), &ring()),
        Err(HelloDecodeError::Malformed)
    );
}

/// One frame of version 1 of each kind; each line has the name and the bytes in hexadecimal.
const FRAMES_V1: &str = include_str!("frames_v1.txt");

fn frames_v1() -> Vec<(&'static str, Body)> {
    let v4 = IpAddr::from([172, 30, 0, 200]);
    let both = vec![v4, "fd30::c8".parse().expect("address")];
    let preempt_delays = vec![Duration::from_secs(30)];
    let hello = |failing| Body::Hello { generation: 7, accepted_keys: vec![0x0102_0304], failing };
    let claim = |generation, addresses, preempt_delays| Body::Claim {
        previous_generation: generation - 1,
        generation,
        addresses,
        preempt_delays,
    };
    let release = |generation, reason| Body::Release {
        previous_generation: generation - 1,
        generation,
        addresses: vec![v4],
        reason,
    };
    vec![
        ("hello", hello(FailingReport::default())),
        ("hello-failing", hello(failing(both.clone(), false, false))),
        ("hello-failing-more", hello(failing(vec![v4], true, true))),
        ("claim", claim(7, both.clone(), vec![])),
        ("claim-keep", claim(8, vec![v4], preempt_delays.clone())),
        ("handed-over", release(9, ReleaseReason::HandedOver)),
        ("refused", release(10, ReleaseReason::NotCandidate)),
        ("contested", release(11, ReleaseReason::Contested)),
        ("challenge", Body::Challenge { nonce: 0x0102_0304_0506_0708 }),
        ("answer", Body::ChallengeReply { nonce: 0x0102_0304_0506_0708 }),
        ("ask", Body::ListRequest),
        ("list", Body::List { generation: 11, part: 0, parts: 2, addresses: both, preempt_delays }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_encoding_of_version_1_is_stable() {
    let written: String = frames_v1()
        .into_iter()
        .map(|(name, body)| {
            format!(
                "{name} {}\n",
                hex(&frame(body).encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH])))
            )
        })
        .collect();
    assert_eq!(written, FRAMES_V1, "other versions must be able to decode frames of version 1");
}

#[test]
fn stored_frames_of_version_1_are_decoded() {
    for (line, (name, body)) in FRAMES_V1.lines().zip(frames_v1()) {
        let (stored_name, digits) = line.split_once(' ').expect("a name and bytes");
        let bytes: Vec<u8> = (0..digits.len() / 2)
            .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex"))
            .collect();
        assert_eq!(
            (stored_name, Frame::decode(&bytes, &ring())),
            (name, Ok((SOURCE, frame(body))))
        );
    }
}

/// Adds TLVs of these types and values to a frame, and signs it again.
fn with_tlvs(frame: &Frame, tlvs: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = frame.encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH]));
    bytes.truncate(bytes.len() - 16);
    for (kind, value) in tlvs {
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    let length = (bytes.len() - 14 - 32) as u16;
    bytes[36..38].copy_from_slice(&length.to_be_bytes());
    sign(bytes)
}

fn sign(mut bytes: Vec<u8>) -> Vec<u8> {
    let signature = HelloKey::new([7; KEY_LENGTH]).signature(&bytes[14..]);
    bytes.extend_from_slice(&signature);
    bytes
}

/// Returns a frame as the next version may send it, with this kind, an unknown TLV and an unknown
/// flag.
fn next_version_frame(kind: u8, body: &Body) -> Vec<u8> {
    let mut bytes = with_tlvs(&frame(body.clone()), &[(0xff01, vec![1, 2, 3])]);
    bytes.truncate(bytes.len() - 16);
    bytes[14] = VERSION + 1;
    bytes[15] = kind;
    bytes[16] |= 0x80;
    sign(bytes)
}

#[test]
fn known_parts_of_the_next_version_are_decoded() {
    let body =
        Body::Hello { generation: 7, accepted_keys: vec![1], failing: FailingReport::default() };
    assert_eq!(
        Frame::decode(&next_version_frame(1, &body), &ring()),
        Ok((SOURCE, frame(body.clone())))
    );
    assert_eq!(
        Frame::decode(&next_version_frame(200, &body), &ring()),
        Err(HelloDecodeError::Version),
        "version 1 does not support this kind of frame"
    );
}

#[test]
fn the_ring_has_the_two_newest_keys_of_the_secret() {
    let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
    let ring = HelloKeyRing::from_secret([
        ("1", &a[..]),
        ("10", &b[..]),
        ("2", &c[..]),
        ("note", b"x"),
        ("11", b"short"),
    ]);
    assert_eq!(ring.ids(), [HelloKey::new(b).id(), HelloKey::new(c).id()]);
    assert!(HelloKeyRing::from_secret([]).is_empty());
}

proptest! {
    #[test]
    fn arbitrary_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(&bytes, &ring());
    }

    #[test]
    fn signed_tlvs_cause_no_panic(tlvs in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..10) {
        // A peer with the key may still send malformed contents.
        let mut bytes = frame(Body::ListRequest).encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH]));
        bytes.truncate(14 + 32);
        bytes[15] = kind;
        bytes[36..38].copy_from_slice(&(tlvs.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&tlvs);
        let _ = Frame::decode(&sign(bytes), &ring());
    }
}
