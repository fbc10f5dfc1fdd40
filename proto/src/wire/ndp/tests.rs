//! Neighbor Discovery checked against RFC 4861.

use proptest::prelude::*;

use super::*;

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0x12, 0x3456);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x100);
/// Offsets in a frame.
const TYPE: usize = ETHERNET_HEADER_LENGTH + IPV6_HEADER;
const OPTIONS: usize = TYPE + MESSAGE_HEADER;

/// Corrects the payload length and the checksum of a frame.
fn right(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(frame.len() - TYPE).unwrap();
    frame[ETHERNET_HEADER_LENGTH + 4..ETHERNET_HEADER_LENGTH + 6]
        .copy_from_slice(&length.to_be_bytes());
    let ip = Ipv6Packet::new(&frame[ETHERNET_HEADER_LENGTH..]).unwrap();
    let sum = checksum(
        &Icmpv6Packet::new(&frame[TYPE..]).unwrap(),
        &ip.get_source(),
        &ip.get_destination(),
    );
    frame[TYPE + 2..TYPE + 4].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn an_answer_has_the_bytes_of_rfc_4861() {
    #[rustfmt::skip]
    let bytes = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
        // Flags S and O; the checksum is compared separately.
        136, 0, 0, 0, 0x60, 0, 0, 0,
        0xfd, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
        2, 1, 2, 0, 0, 0, 0, 2,
    ];
    let mut answer = solicited_advertisement(B, VIP, A, CLIENT);
    let sum: u32 =
        bytes[22..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>()
            + 32
            + 58;
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    assert_eq!(answer[TYPE + 2..TYPE + 4], sum.to_be_bytes());
    answer[TYPE + 2..TYPE + 4].fill(0);
    assert_eq!(answer, bytes);
}

#[test]
fn every_message_says_what_it_is_for_and_goes_where_it_is_heard() {
    let group = [0x33, 0x33, 0xff, 0x12, 0x34, 0x56];
    let all = [0x33, 0x33, 0, 0, 0, 1];
    let says = |kind, sender, mac| Ndp { source: A, kind, sender, target: VIP, mac };
    let told = |solicited| NdpKind::Advertisement { solicited, overrides: true };
    let ask = NdpKind::Solicitation;
    let cases: [(&[u8], [u8; 6], Ndp); 5] = [
        (&solicited_advertisement(A, VIP, B, CLIENT), B.0, says(told(true), VIP, Some(A))),
        (&unsolicited_advertisement(A, VIP), all, says(told(false), VIP, Some(A))),
        (&solicitation(A, CLIENT, VIP), group, says(ask, CLIENT, Some(A))),
        (&unicast_solicitation(A, CLIENT, VIP, B), B.0, says(ask, CLIENT, Some(A))),
        (&dad_solicitation(A, VIP), group, says(ask, Ipv6Addr::UNSPECIFIED, None)),
    ];
    for (frame, to, expect) in cases {
        assert_eq!((&frame[..6], Ndp::decode(frame)), (&to[..], Some(expect)), "{frame:02x?}");
    }
}

#[test]
fn groups_are_made_as_the_rfcs_say() {
    assert_eq!(solicited_node_group(VIP), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
    assert_eq!(multicast_mac(solicited_node_group(VIP)), Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
}

#[test]
fn what_a_host_must_discard_is_discarded() {
    let ask = solicitation(A, CLIENT, VIP);
    let with = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        right(frame)
    };
    assert!(Ndp::decode(&with(&ask, TYPE, SOLICITATION)).is_some());
    let dad = dad_solicitation(A, VIP);
    assert!(
        Ndp::decode(&right([&dad[..], &[14, 1, 9, 9, 9, 9, 9, 9]].concat())).is_some(),
        "a nonce is no address"
    );
    let cases = [
        ("another EtherType", with(&ask, 13, 0)),
        ("IP version 4", with(&ask, 14, 0x40)),
        ("an extension header", with(&ask, 20, 0)),
        ("from behind a router", with(&ask, 21, 254)),
        ("code 1", with(&ask, TYPE + 1, 1)),
        ("a router's", with(&ask, TYPE, 134)),
        ("a target that is a group", with(&ask, TYPE + 8, 0xff)),
        ("an option of no length", with(&ask, OPTIONS + 1, 0)),
        ("an option that is cut off", with(&ask, OPTIONS + 1, 2)),
        ("an option of 255 units", with(&ask, OPTIONS + 1, 255)),
        (
            "a sender that is a group",
            right([&ask[..22], &solicited_node_group(VIP).octets(), &ask[38..]].concat()),
        ),
        ("nobody who says where it is", right([&ask[..22], &[0; 16], &ask[38..]].concat())),
        (
            "nobody who says it for another kind of link",
            right([&dad[..], &[1, 2], &[0; 14]].concat()),
        ),
        ("nobody who asks one host", right([&dad[..38], &VIP.octets(), &dad[54..]].concat())),
        (
            "an answer to all that says it is for one",
            with(&unsolicited_advertisement(A, VIP), TYPE + 4, 0x60),
        ),
        ("half an option", right([&ask[..], &[14]].concat())),
    ];
    for (what, frame) in cases {
        assert_eq!(Ndp::decode(&frame), None, "{what}");
    }
    let mut wrong = ask;
    wrong[TYPE + 3] ^= 1;
    assert_eq!(Ndp::decode(&wrong), None, "a wrong checksum");
    assert!(
        (0..FRAME_LENGTH).all(|length| Ndp::decode(&ask[..length]).is_none()),
        "a frame that is cut off"
    );
    assert_eq!(Ndp::decode(&right(ask[..OPTIONS - 1].to_vec())), None, "a message that is cut off");
}

#[test]
fn other_options_and_padding_are_passed_over() {
    let ask = solicitation(A, CLIENT, VIP);
    let read = |options: &[u8]| {
        Ndp::decode(&right([&ask[..OPTIONS], options].concat())).map(|ndp| ndp.mac)
    };
    let (nonce, own, other) =
        ([14, 1, 9, 9, 9, 9, 9, 9], [1, 1, 2, 0, 0, 0, 0, 1], [1, 1, 2, 0, 0, 0, 0, 9]);
    assert_eq!(read(&[]), Some(None));
    assert_eq!(read(&nonce), Some(None));
    assert_eq!(read(&[nonce, own, other].concat()), Some(Some(A)));
    assert_eq!(
        read(&[&[1, 2], &[0; 14][..], &own].concat()),
        Some(Some(A)),
        "one for another kind of link"
    );
    let padded = [&ask[..], &[0; 20]].concat();
    assert_eq!(Ndp::decode(&padded), Ndp::decode(&ask));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..FRAME_LENGTH) {
        let _ = Ndp::decode(&bytes);
        let mut frame = solicitation(A, CLIENT, VIP).to_vec();
        frame.truncate(at.max(TYPE + 4));
        frame.extend(&bytes);
        let _ = Ndp::decode(&right(frame));
    }
}
