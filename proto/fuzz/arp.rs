//! Fuzzes the ARP decoder with any bytes: no panic, and the same result as a reference decoder with
//! fixed offsets.

#![no_main]

use ferrolb_proto::wire::arp::{self, Arp, Operation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let expected = reference_decode(bytes);
    let decoded = Arp::decode(bytes);
    assert_eq!(
        decoded.map(|arp| (
            arp.operation == Operation::Reply,
            arp.sender_mac.0,
            arp.sender.octets(),
            arp.target.octets()
        )),
        expected
    );
    if let Some(arp) = decoded {
        // A reply to the decoded frame can be decoded, and has the same two addresses.
        let reply = arp::reply(arp.sender_mac, arp.target, arp.sender_mac, arp.sender);
        let reply = Arp::decode(&reply).expect("an encoded reply");
        assert_eq!((reply.sender, reply.target), (arp.target, arp.sender));
    }
});

/// Fields of a frame: whether the frame is a reply, the sender MAC, the sender address, and the
/// target address.
type ArpFields = (bool, [u8; 6], [u8; 4], [u8; 4]);

/// Decodes a frame by field offsets, according to RFC 826 for Ethernet and IPv4.
fn reference_decode(bytes: &[u8]) -> Option<ArpFields> {
    let fixed = bytes.get(12..20)?;
    let operation = u16::from_be_bytes([*bytes.get(20)?, *bytes.get(21)?]);
    let known = fixed == [0x08, 0x06, 0, 1, 8, 0, 6, 4] && (operation == 1 || operation == 2);
    let (sender_mac, sender) = (bytes.get(22..28)?, bytes.get(28..32)?);
    let target = bytes.get(38..42)?;
    known.then(|| {
        (
            operation == 2,
            sender_mac.try_into().unwrap(),
            sender.try_into().unwrap(),
            target.try_into().unwrap(),
        )
    })
}
