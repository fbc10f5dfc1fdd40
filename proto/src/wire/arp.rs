//! ARP over Ethernet for IPv4 (RFC 826; announcements and probes RFC 5227). No function allocates
//! memory, because the functions run for every reply.

use std::net::Ipv4Addr;

use pnet_packet::Packet;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket};
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};

use super::{ETHERNET_HEADER_LENGTH, Mac, write_ethernet_header};

/// EtherType of ARP.
pub const ETHER_TYPE: u16 = 0x0806;
/// Length of an ARP frame with its Ethernet header, in bytes, before padding.
pub const FRAME_LENGTH: usize = ETHERNET_HEADER_LENGTH + 28;

/// An ARP operation (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Requests the MAC of the target address.
    Request,
    /// Reports that the sender's address is at the sender's MAC.
    Reply,
}

/// Fields of an ARP frame that the speaker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Sender hardware address, to which a reply is sent.
    pub sender_mac: Mac,
    /// Sender protocol address; unspecified in a probe (RFC 5227 section 1.1).
    pub sender: Ipv4Addr,
    /// Target protocol address: the one whose MAC is requested, or that of the reply's receiver.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Decodes a whole frame, Ethernet header first. Returns `None` for every frame that is not an
    /// ARP request or reply for IPv4 over Ethernet.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let header = EthernetPacket::new(frame)?;
        if header.get_ethertype() != EtherTypes::Arp {
            return None;
        }
        let arp = ArpPacket::new(header.payload().get(..28)?)?;
        let sizes = (arp.get_hw_addr_len(), arp.get_proto_addr_len());
        if arp.get_hardware_type() != ArpHardwareTypes::Ethernet
            || arp.get_protocol_type() != EtherTypes::Ipv4
            || sizes != (6, 4)
        {
            return None;
        }
        let operation = match arp.get_operation() {
            ArpOperations::Request => Operation::Request,
            ArpOperations::Reply => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: Mac(arp.get_sender_hw_addr().octets()),
            sender: arp.get_sender_proto_addr(),
            target: arp.get_target_proto_addr(),
        })
    }
}

/// Returns the reply that `address` is at `mac`, to the host that requested it: MAC `to`, address
/// `requester`.
#[must_use]
pub fn reply(mac: Mac, address: Ipv4Addr, to: Mac, requester: Ipv4Addr) -> [u8; FRAME_LENGTH] {
    frame(to, mac, 2, mac, address, to, requester)
}

/// Returns a broadcast request for the MAC of `address`, from a host with the MAC `mac` and the
/// address `sender`.
#[must_use]
pub fn request(mac: Mac, sender: Ipv4Addr, address: Ipv4Addr) -> [u8; FRAME_LENGTH] {
    frame(Mac::BROADCAST, mac, 1, mac, sender, Mac::ZERO, address)
}

/// Returns a gratuitous ARP in its request form (the ARP announcement of RFC 5227 section 2.3),
/// with the target MAC set to the sender's. Some devices accept only that form.
#[must_use]
pub fn gratuitous_request(mac: Mac, address: Ipv4Addr) -> [u8; FRAME_LENGTH] {
    frame(Mac::BROADCAST, mac, 1, mac, address, mac, address)
}

/// Returns a gratuitous ARP in its reply form, with the target MAC set to the sender's.
#[must_use]
pub fn gratuitous_reply(mac: Mac, address: Ipv4Addr) -> [u8; FRAME_LENGTH] {
    frame(Mac::BROADCAST, mac, 2, mac, address, mac, address)
}

fn frame(
    destination: Mac,
    source: Mac,
    operation: u8,
    sender_mac: Mac,
    sender: Ipv4Addr,
    target_mac: Mac,
    target: Ipv4Addr,
) -> [u8; FRAME_LENGTH] {
    let mut frame = [0; FRAME_LENGTH];
    write_ethernet_header(&mut frame, destination, source, ETHER_TYPE);
    // Hardware type Ethernet, protocol IPv4, lengths 6 and 4, operation.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame[22..28].copy_from_slice(&sender_mac.0);
    frame[28..32].copy_from_slice(&sender.octets());
    frame[32..38].copy_from_slice(&target_mac.0);
    frame[38..42].copy_from_slice(&target.octets());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 100);

    #[test]
    fn a_request_and_its_reply_have_the_bytes_of_rfc_826() {
        let decoded = Arp::decode(&request(A, CLIENT, VIP)).expect("a valid ARP request");
        assert_eq!(
            decoded,
            Arp { operation: Operation::Request, sender_mac: A, sender: CLIENT, target: VIP }
        );
        #[rustfmt::skip]
        let bytes = [
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 172, 30, 0, 200, 2, 0, 0, 0, 0, 1, 172, 30, 0, 100,
        ];
        assert_eq!(reply(B, VIP, A, CLIENT), bytes);
    }

    #[test]
    fn gratuitous_arps_have_the_same_sender_and_target() {
        for (frame, operation) in [
            (gratuitous_request(A, VIP), Operation::Request),
            (gratuitous_reply(A, VIP), Operation::Reply),
        ] {
            let arp = Arp::decode(&frame).expect("a valid gratuitous ARP");
            assert_eq!(arp, Arp { operation, sender_mac: A, sender: VIP, target: VIP });
            assert_eq!(
                (&frame[..6], &frame[32..38]),
                (&Mac::BROADCAST.0[..], &A.0[..]),
                "the destination is broadcast, and the target MAC is the sender's"
            );
        }
    }

    #[test]
    fn frames_other_than_arp_for_ipv4_are_not_decoded() {
        let good = request(A, CLIENT, VIP);
        for (at, value) in [(12, 0x86), (15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Arp::decode(&bad), None, "no frame with an invalid byte {at} is decoded");
        }
        assert!(
            (0..FRAME_LENGTH).all(|length| Arp::decode(&good[..length]).is_none()),
            "no truncated frame is decoded"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_cause_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Arp::decode(&bytes);
            let mut arp = request(A, CLIENT, VIP).to_vec();
            let n = arp.len().min(bytes.len());
            arp[14..n.max(14)].copy_from_slice(&bytes[14.min(n)..n]);
            let _ = Arp::decode(&arp);
        }
    }
}
