//! Round trips of every kind of frame, rejection of corrupted frames, and compatibility of
//! versions.

use proptest::prelude::*;

use super::*;

mod claim_set;

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
        clock: 123_456_789,
        claim_set: ClaimSetSummary { counter: 42, count: 3, digest: 0x0102_0304_0506_0708 },
        interval,
        detection_time: None,
        flags,
        body,
    }
}

/// Returns claims of these addresses with this preempt delay.
fn claims(addresses: &[IpAddr], preempt_delay: Duration) -> Vec<Claim> {
    let rank = ClaimRank { soft_rules: 0x82, preference: 0x0103, order: 0x0405_0607 };
    let claim = |address: &IpAddr| Claim { address: *address, rank, preempt_delay };
    addresses.iter().map(claim).collect()
}

fn v6(n: u16) -> IpAddr {
    IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n])
}

/// Returns as many IPv6 addresses as fit in one frame.
fn many() -> Vec<IpAddr> {
    (0..ADDRESSES_PER_FRAME_MAX as u16).map(v6).collect()
}

fn bodies() -> Vec<Body> {
    let v4 = IpAddr::from([172, 30, 0, 200]);
    let both = vec![v4, v6(200)];
    let hello = |accepted_keys| Body::Hello { accepted_keys };
    let release = |addresses, contested| Body::Release { addresses, contested };
    let stretch = |after, last, claims| Body::List(Stretch { after, last, claims });
    let longest_delay = Duration::from_millis(10) * u32::from(u16::MAX);
    let mut delays = claims(&both, Duration::from_millis(59_990));
    delays[1].preempt_delay = Duration::ZERO;
    vec![
        hello(vec![1, 2]),
        hello(vec![]),
        hello(vec![1, 2, 3, 4]),
        Body::Claim(delays.clone()),
        Body::Claim(claims(&[v4], Duration::ZERO)),
        Body::Claim(claims(&many(), longest_delay)),
        Body::Claim(vec![]),
        release(both.clone(), false),
        release(vec![v4], true),
        release(many(), true),
        Body::Doubt(both),
        Body::Doubt(many()),
        Body::Challenge { nonce: u64::MAX },
        Body::ChallengeReply { nonce: 1 },
        Body::NodeWatch(NodeWatch::Challenge(u64::MAX)),
        Body::NodeWatch(NodeWatch::Reply(2)),
        Body::ListRequest,
        stretch(None, None, delays.clone()),
        stretch(None, None, vec![]),
        stretch(Some(v4), None, claims(&[v6(1)], longest_delay)),
        stretch(None, Some(v4), claims(&[v4], Duration::ZERO)),
        stretch(Some(v4), Some(v6(200)), claims(&[v6(200)], Duration::ZERO)),
        stretch(Some(v6(0)), Some(v6(9_999)), claims(&many(), longest_delay)),
    ]
}

#[test]
fn every_frame_kind_survives_a_round_trip() {
    for body in bodies() {
        let mut long = frame(body);
        long.node = "n".repeat(NODE_NAME_MAX).into();
        long.detection_time = Some(Duration::from_millis(u32::MAX.into()));
        let key = HelloKey::new([6; KEY_LENGTH]);
        let mut bytes = long.encode(SOURCE, None, &key);
        assert!(bytes.len() <= FRAME_MAX, "the frame has {} bytes", bytes.len());
        assert_eq!(&bytes[..6], &GROUP.0);
        bytes.resize((bytes.len() + 20).min(FRAME_MAX), 0); // Ethernet padding
        assert_eq!(Frame::decode(&bytes, &ring()), Ok((SOURCE, long)));
    }
}

#[test]
fn addresses_are_decoded_in_any_number_and_order() {
    // A later version may send more addresses, in more TLVs, in any order.
    let v4: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let v6: Vec<IpAddr> = (0..10).map(v6).collect();
    let octets = |all: &[IpAddr]| -> Vec<u8> { all.iter().rev().flat_map(octets).collect() };
    let tlvs = [(5, octets(&v6)), (4, octets(&v4[..100])), (4, octets(&v4[100..]))];
    let body = Body::Doubt(vec![]);
    assert_eq!(
        decode_body(&with_tlvs(&frame(body.clone()), &tlvs)),
        Ok(Body::Doubt([v4, v6].concat()))
    );
    check_malformed(&body, [(4, 3), (4, 5), (5, 4), (5, 15), (5, 17)]);
    let claim = Body::Claim(vec![]);
    let decoded = decode_body(&with_tlvs(&frame(claim.clone()), &tlvs));
    assert_eq!(decoded, Ok(claim), "the TLVs have no effect in a frame of another kind");
}

#[test]
fn claims_are_decoded_in_ascending_order() {
    let (v4, delay) = (IpAddr::from([10, 0, 0, 1]), Duration::from_millis(20));
    let entry = |address: &IpAddr| [octets(address), vec![0x82, 1, 3, 4, 5, 6, 7, 0, 2]].concat();
    let descending: Vec<u8> = [v6(3), v6(2), v6(1)].iter().flat_map(entry).collect();
    let tlvs = [(7, descending), (6, entry(&v4))];
    let expect = claims(&[v4, v6(1), v6(2), v6(3)], delay);
    let stretch = |claims| Body::List(Stretch { after: None, last: Some(v6(3)), claims });
    for (body, expect) in [
        (Body::Claim(vec![]), Body::Claim(expect.clone())),
        (stretch(vec![]), stretch(expect.clone())),
    ] {
        assert_eq!(decode_body(&with_tlvs(&frame(body.clone()), &tlvs)), Ok(expect));
        check_malformed(&body, [(6, 4), (6, 12), (6, 14), (7, 16), (7, 24), (7, 26)]);
        check_malformed(&body, [(8, 0), (8, 3), (8, 15), (9, 0), (9, 5)]);
    }
}

#[test]
fn preempt_delays_are_rounded_down_to_units_of_10_ms() {
    let v4 = [IpAddr::from([10, 0, 0, 1])];
    for (sent, expect) in [(0, 0), (9, 0), (10, 10), (30_019, 30_010), (10_000_000, 655_350)] {
        let body = Body::Claim(claims(&v4, Duration::from_millis(sent)));
        let bytes = frame(body).encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH]));
        let expect = claims(&v4, Duration::from_millis(expect));
        assert_eq!(decode_body(&bytes), Ok(Body::Claim(expect)), "{sent} ms");
    }
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn decode_body(bytes: &[u8]) -> Result<Body, HelloDecodeError> {
    Frame::decode(bytes, &ring()).map(|(_, frame)| frame.body)
}

/// Checks that a frame with one more TLV of such a type and length is malformed.
fn check_malformed<const N: usize>(body: &Body, tlvs: [(u16, usize); N]) {
    for (kind, length) in tlvs {
        let invalid = with_tlvs(&frame(body.clone()), &[(kind, vec![1; length])]);
        assert_eq!(
            decode_body(&invalid),
            Err(HelloDecodeError::Malformed),
            "{length} bytes in TLV {kind} are malformed"
        );
    }
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
    for version in [0, VERSION - 1, VERSION + 2, u8::MAX] {
        let mut bytes = signed([7; 32]);
        bytes[14] = version;
        let decoded = Frame::decode(&bytes, &ring());
        assert_eq!(decoded, Err(HelloDecodeError::Version), "version {version}");
    }
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
}

/// One frame of version 2 of each kind; each line has the name and the bytes in hexadecimal.
const FRAMES_V2: &str = include_str!("frames_v2.txt");
/// A list request of version 1.
const FRAME_V1: &str = "03464c42000102000000000988b50106001232f8591cfeedbeef000000010000002a0032000\
    900000000075bcd15000100056e6f646531418f57d4522e86fdd299ba72b40fa0ff";

fn frames_v2() -> Vec<(&'static str, Body)> {
    let v4 = IpAddr::from([172, 30, 0, 200]);
    let (both, delay) = ([v4, v6(200)], Duration::from_secs(30));
    let list = |after, last| {
        let claims = claims(&both[1..], delay);
        Body::List(Stretch { after, last, claims })
    };
    vec![
        ("hello", Body::Hello { accepted_keys: vec![0x0102_0304] }),
        ("claim", Body::Claim(claims(&both, Duration::ZERO))),
        ("claim-preempt-delay", Body::Claim(claims(&both, delay))),
        ("release", Body::Release { addresses: both.to_vec(), contested: false }),
        ("release-contested", Body::Release { addresses: both.to_vec(), contested: true }),
        ("doubt", Body::Doubt(both.to_vec())),
        ("challenge", Body::Challenge { nonce: 0x0102_0304_0506_0708 }),
        ("challenge-reply", Body::ChallengeReply { nonce: 0x0102_0304_0506_0708 }),
        ("list-request", Body::ListRequest),
        ("list", Body::List(Stretch { after: None, last: None, claims: claims(&both, delay) })),
        ("list-after", list(Some(v4), None)),
        ("list-last", list(None, Some(v6(200)))),
        ("list-after-last", list(Some(v4), Some(v6(200)))),
    ]
}

fn bytes_from(digits: &str) -> Vec<u8> {
    let byte = |i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex");
    (0..digits.len() / 2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_encoding_of_version_2_is_stable() {
    let written: String = frames_v2()
        .into_iter()
        .map(|(name, body)| {
            format!(
                "{name} {}\n",
                hex(&frame(body).encode(SOURCE, None, &HelloKey::new([7; KEY_LENGTH])))
            )
        })
        .collect();
    assert_eq!(written, FRAMES_V2, "other versions must be able to decode frames of version 2");
}

#[test]
fn stored_frames_of_version_2_are_decoded() {
    assert_eq!(FRAMES_V2.lines().count(), frames_v2().len());
    for (line, (name, body)) in FRAMES_V2.lines().zip(frames_v2()) {
        let (stored_name, digits) = line.split_once(' ').expect("a name and bytes");
        assert_eq!(
            (stored_name, Frame::decode(&bytes_from(digits), &ring())),
            (name, Ok((SOURCE, frame(body))))
        );
    }
}

#[test]
fn a_stored_frame_of_version_1_is_rejected() {
    let decoded = Frame::decode(&bytes_from(FRAME_V1), &ring());
    assert_eq!(decoded, Err(HelloDecodeError::Version));
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
    let length = (bytes.len() - 14 - 44) as u16;
    bytes[56..58].copy_from_slice(&length.to_be_bytes());
    sign(bytes)
}

fn sign(mut bytes: Vec<u8>) -> Vec<u8> {
    let signature = HelloKey::new([7; KEY_LENGTH]).signature(&bytes[14..]);
    bytes.extend_from_slice(&signature);
    bytes
}

/// Returns a frame as the next version may send it, with an unknown TLV and an unknown flag, and
/// with another kind if `kind` contains one.
fn next_version_frame(kind: Option<u8>, body: &Body) -> Vec<u8> {
    let mut bytes = with_tlvs(&frame(body.clone()), &[(0xff01, vec![1, 2, 3])]);
    bytes.truncate(bytes.len() - 16);
    bytes[14] = VERSION + 1;
    bytes[15] = kind.unwrap_or(bytes[15]);
    bytes[16] |= 0x80;
    sign(bytes)
}

#[test]
fn known_parts_of_the_next_version_are_decoded() {
    for body in bodies() {
        assert_eq!(
            Frame::decode(&next_version_frame(None, &body), &ring()),
            Ok((SOURCE, frame(body)))
        );
    }
    assert_eq!(
        Frame::decode(&next_version_frame(Some(200), &Body::ListRequest), &ring()),
        Err(HelloDecodeError::Version),
        "version 2 does not support this kind of frame"
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
        bytes.truncate(14 + 44);
        bytes[15] = kind;
        bytes[56..58].copy_from_slice(&(tlvs.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&tlvs);
        let _ = Frame::decode(&sign(bytes), &ring());
    }
}
