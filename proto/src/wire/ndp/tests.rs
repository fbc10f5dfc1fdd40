//! Neighbor Discovery checked against RFC 4861.

use proptest::prelude::*;

use super::*;

const MAC_A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const MAC_B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const VIP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0x12, 0x3456);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0x100);
/// Offset of the ICMPv6 type in a frame.
const TYPE: usize = ETHERNET_HEADER_LENGTH + IPV6_HEADER;
const OPTIONS: usize = TYPE + MESSAGE_HEADER;

/// Corrects the payload length and the checksum of a frame.
fn corrected(mut frame: Vec<u8>) -> Vec<u8> {
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
fn an_advertisement_has_the_bytes_of_rfc_4861() {
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
    let mut advertisement = solicited_advertisement(MAC_B, VIP, MAC_A, CLIENT);
    let sum: u32 =
        bytes[22..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>()
            + 32
            + 58;
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    assert_eq!(advertisement[TYPE + 2..TYPE + 4], sum.to_be_bytes());
    advertisement[TYPE + 2..TYPE + 4].fill(0);
    assert_eq!(advertisement, bytes);
}

#[test]
fn every_message_has_the_right_kind_and_destination() {
    let group = [0x33, 0x33, 0xff, 0x12, 0x34, 0x56];
    let all = [0x33, 0x33, 0, 0, 0, 1];
    let decoded = |kind, sender, mac| Ndp { source: MAC_A, kind, sender, target: VIP, mac };
    let advertisement = |solicited| NdpKind::Advertisement { solicited, overrides: true };
    let solicitation_kind = NdpKind::Solicitation;
    let cases: [(&[u8], [u8; 6], Ndp); 5] = [
        (
            &solicited_advertisement(MAC_A, VIP, MAC_B, CLIENT),
            MAC_B.0,
            decoded(advertisement(true), VIP, Some(MAC_A)),
        ),
        (
            &unsolicited_advertisement(MAC_A, VIP),
            all,
            decoded(advertisement(false), VIP, Some(MAC_A)),
        ),
        (&solicitation(MAC_A, CLIENT, VIP), group, decoded(solicitation_kind, CLIENT, Some(MAC_A))),
        (
            &unicast_solicitation(MAC_A, CLIENT, VIP, MAC_B),
            MAC_B.0,
            decoded(solicitation_kind, CLIENT, Some(MAC_A)),
        ),
        (
            &dad_solicitation(MAC_A, VIP),
            group,
            decoded(solicitation_kind, Ipv6Addr::UNSPECIFIED, None),
        ),
    ];
    for (frame, to, expect) in cases {
        assert_eq!(
            (&frame[..6], Ndp::decode(frame)),
            (&to[..], Some(expect)),
            "destination and contents of the frame {frame:02x?}"
        );
    }
}

#[test]
fn solicited_node_groups_and_their_macs_follow_the_rfcs() {
    assert_eq!(solicited_node_group(VIP), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
    assert_eq!(multicast_mac(solicited_node_group(VIP)), Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
}

#[test]
fn invalid_messages_are_discarded() {
    let valid = solicitation(MAC_A, CLIENT, VIP);
    let with = |frame: &[u8], at: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[at] = value;
        corrected(frame)
    };
    assert!(Ndp::decode(&with(&valid, TYPE, SOLICITATION)).is_some());
    let dad = dad_solicitation(MAC_A, VIP);
    assert!(
        Ndp::decode(&corrected([&dad[..], &[14, 1, 9, 9, 9, 9, 9, 9]].concat())).is_some(),
        "a nonce option is no hardware address"
    );
    let cases = [
        ("another EtherType", with(&valid, 13, 0)),
        ("IP version 4", with(&valid, 14, 0x40)),
        ("an extension header", with(&valid, 20, 0)),
        ("a hop limit below 255", with(&valid, 21, 254)),
        ("code 1", with(&valid, TYPE + 1, 1)),
        ("a router advertisement", with(&valid, TYPE, 134)),
        ("a multicast target", with(&valid, TYPE + 8, 0xff)),
        ("an option with length 0", with(&valid, OPTIONS + 1, 0)),
        ("a truncated option", with(&valid, OPTIONS + 1, 2)),
        ("an option longer than the message", with(&valid, OPTIONS + 1, 255)),
        (
            "a multicast sender",
            corrected([&valid[..22], &solicited_node_group(VIP).octets(), &valid[38..]].concat()),
        ),
        (
            "an unspecified sender with a hardware address",
            corrected([&valid[..22], &[0; 16], &valid[38..]].concat()),
        ),
        (
            "an unspecified sender with an address of another link layer",
            corrected([&dad[..], &[1, 2], &[0; 14]].concat()),
        ),
        (
            "an unspecified sender with a unicast destination",
            corrected([&dad[..38], &VIP.octets(), &dad[54..]].concat()),
        ),
        (
            "a multicast advertisement with flag S",
            with(&unsolicited_advertisement(MAC_A, VIP), TYPE + 4, 0x60),
        ),
        ("an incomplete option", corrected([&valid[..], &[14]].concat())),
    ];
    for (case, frame) in cases {
        assert_eq!(Ndp::decode(&frame), None, "a frame with {case} is discarded");
    }
    let mut wrong = valid;
    wrong[TYPE + 3] ^= 1;
    assert_eq!(Ndp::decode(&wrong), None, "a frame with a wrong checksum is discarded");
    assert!(
        (0..FRAME_LENGTH).all(|length| Ndp::decode(&valid[..length]).is_none()),
        "every truncated frame is discarded"
    );
    assert_eq!(
        Ndp::decode(&corrected(valid[..OPTIONS - 1].to_vec())),
        None,
        "a truncated message is discarded"
    );
}

#[test]
fn other_options_and_padding_are_skipped() {
    let valid = solicitation(MAC_A, CLIENT, VIP);
    let decode_with = |options: &[u8]| {
        Ndp::decode(&corrected([&valid[..OPTIONS], options].concat())).map(|ndp| ndp.mac)
    };
    let (nonce, own_mac, other_mac) =
        ([14, 1, 9, 9, 9, 9, 9, 9], [1, 1, 2, 0, 0, 0, 0, 1], [1, 1, 2, 0, 0, 0, 0, 9]);
    assert_eq!(decode_with(&[]), Some(None));
    assert_eq!(decode_with(&nonce), Some(None));
    assert_eq!(decode_with(&[nonce, own_mac, other_mac].concat()), Some(Some(MAC_A)));
    assert_eq!(
        decode_with(&[&[1, 2], &[0; 14][..], &own_mac].concat()),
        Some(Some(MAC_A)),
        "an option for another link layer is skipped"
    );
    let padded = [&valid[..], &[0; 20]].concat();
    assert_eq!(Ndp::decode(&padded), Ndp::decode(&valid));
}

proptest! {
    #[test]
    fn arbitrary_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..FRAME_LENGTH) {
        let _ = Ndp::decode(&bytes);
        let mut frame = solicitation(MAC_A, CLIENT, VIP).to_vec();
        frame.truncate(at.max(TYPE + 4));
        frame.extend(&bytes);
        let _ = Ndp::decode(&corrected(frame));
    }
}
