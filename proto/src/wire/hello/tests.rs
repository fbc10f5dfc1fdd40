//! Every kind of frame there and back; every lie told from the truth.

use proptest::prelude::*;

use super::*;

const SOURCE: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn ring() -> KeyRing {
    KeyRing::new(vec![Key::new([7; KEY_LENGTH]), Key::new([6; KEY_LENGTH])])
}

fn frame(body: Body) -> Frame {
    let flags = Flags { fresh: true, draining: true, ..Flags::default() };
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

fn bodies() -> Vec<Body> {
    let addresses = vec![IpAddr::from([172, 30, 0, 200]), "fd30::c8".parse().expect("address")];
    let many: Vec<IpAddr> =
        (0..ADDRESSES_PER_FRAME_MAX as u16).map(|n| IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n])).collect();
    vec![
        Body::Hello { generation: 7, accepts: vec![1, 2] },
        Body::Hello { generation: 0, accepts: vec![] },
        Body::Claim { before: 6, generation: 7, addresses: addresses.clone() },
        Body::Release { before: 7, generation: 8, addresses: addresses.clone(), refused: true },
        Body::Release { before: 7, generation: 8, addresses, refused: false },
        Body::Challenge { nonce: u64::MAX },
        Body::Answer { nonce: 1 },
        Body::Ask,
        Body::List { generation: 9, part: 1, parts: 2, addresses: many },
    ]
}

#[test]
fn every_kind_is_read_back_as_it_was_written() {
    for body in bodies() {
        let mut long = frame(body);
        long.node = "n".repeat(NODE_MAX).into();
        let key = Key::new([6; KEY_LENGTH]);
        let mut bytes = long.encode(SOURCE, None, &key);
        assert!(bytes.len() <= FRAME_MAX, "{} bytes", bytes.len());
        assert_eq!(&bytes[..6], &GROUP.0);
        bytes.extend_from_slice(&[0; 20]); // Ethernet padding
        assert_eq!(Frame::decode(&bytes, &ring()), Ok((SOURCE, long)));
    }
}

#[test]
fn no_single_bit_of_a_signed_frame_can_be_changed() {
    let bytes = frame(bodies()[2].clone()).encode(SOURCE, None, ring().signing().expect("key"));
    for at in crate::wire::ETHERNET_HEADER..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Frame::decode(&bad, &ring()).is_err(), "byte {at}");
    }
    assert!((0..bytes.len()).all(|length| Frame::decode(&bytes[..length], &ring()).is_err()), "a cut frame");
}

#[test]
fn each_lie_has_its_name() {
    let good = frame(Body::Ask);
    let signed = |key: [u8; KEY_LENGTH]| good.encode(SOURCE, None, &Key::new(key));
    assert_eq!(Frame::decode(&signed([1; 32]), &ring()), Err(DecodeError::ForeignKey));
    let mut version = signed([7; 32]);
    version[14] = VERSION + 2;
    assert_eq!(Frame::decode(&version, &ring()), Err(DecodeError::Version));
    let mut signature = signed([7; 32]);
    *signature.last_mut().expect("bytes") ^= 1;
    assert_eq!(Frame::decode(&signature, &ring()), Err(DecodeError::Signature));
    assert_eq!(Frame::decode(&[0; 60], &ring()), Err(DecodeError::Malformed));
    let mut nameless = good.clone();
    nameless.node = "".into();
    assert_eq!(Frame::decode(&nameless.encode(SOURCE, None, &Key::new([7; 32])), &ring()), Err(DecodeError::Malformed));
    let beyond = frame(Body::List { generation: 1, part: 2, parts: 2, addresses: vec![] });
    assert_eq!(Frame::decode(&beyond.encode(SOURCE, None, &Key::new([7; 32])), &ring()), Err(DecodeError::Malformed));
}

#[test]
fn the_bytes_of_version_1_stay_as_they_are() {
    let bytes =
        frame(Body::Hello { generation: 7, accepts: vec![0x0102_0304] }).encode(SOURCE, None, &Key::new([7; 32]));
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("hello_v1.hex").trim(), "a frame of version 1 must be read by every later version");
}

#[test]
fn the_secret_gives_its_two_newest_keys() {
    let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
    let ring = KeyRing::from_secret([("1", &a[..]), ("10", &b[..]), ("2", &c[..]), ("note", b"x"), ("11", b"short")]);
    assert_eq!(ring.ids(), [Key::new(b).id(), Key::new(c).id()]);
    assert_eq!(KeyRing::from_secret([]).signing(), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(&bytes, &ring());
    }

    #[test]
    fn no_signed_tlvs_panic(tlvs in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..10) {
        // A member with the key may still send nonsense.
        let key = Key::new([7; KEY_LENGTH]);
        let mut bytes = frame(Body::Ask).encode(SOURCE, None, &key);
        bytes.truncate(14 + 32);
        bytes[15] = kind;
        bytes[36..38].copy_from_slice(&(tlvs.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&tlvs);
        let signature = key.sign(&bytes[14..]);
        bytes.extend_from_slice(&signature);
        let _ = Frame::decode(&bytes, &ring());
    }
}
