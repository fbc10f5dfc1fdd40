//! Sockets of the second path: invalid datagrams, floods, and a port that another program uses.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::arp;
use ferrolb_proto::wire::hello::{
    Body, ClaimSetSummary, DATAGRAM_MAX, Flags, Frame, HelloKey, HelloKeyRing, KEY_LENGTH,
    NodeWatch,
};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::link::SecondPath;
use ferrolb_speaker::metrics::{DatagramDrop, SecondPathMetrics};
use prometheus_client::registry::Registry;

use crate::raw_socket::{RawSocket, plain_replies};
use crate::second_path::{IPV4, PORT, Pair, add_internal_ip, start_second_path};
use crate::segment::Segment;
use crate::speaker::{HOSTS, TIMEOUT, VIP, key, runtime, wait_for_count};

/// Rate limit of one node, in datagrams per second.
const DATAGRAMS_PER_SECOND_MAX: u64 = 2_000;
/// Interval between requests, so that the source limiter does not block the client.
const REQUEST_INTERVAL: Duration = Duration::from_millis(2);
/// Duration of a flood.
const FLOOD_TIME: Duration = Duration::from_secs(2);
/// Sender of the requests.
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
/// Maximum time until the reply to a request during a flood, on a busy machine.
const REPLY_TIME_MAX: Duration = Duration::from_millis(500);

/// Returns a valid datagram of node2.
fn datagram(key: &HelloKey) -> Vec<u8> {
    datagram_of(HOSTS[1], key)
}

/// Returns a valid datagram of a node.
fn datagram_of(node: &str, key: &HelloKey) -> Vec<u8> {
    frame_of(node, Body::Challenge { nonce: 1 }).encode_datagram(key)
}

fn frame_of(node: &str, body: Body) -> Frame {
    Frame {
        node: node.into(),
        epoch: 1,
        clock: 1,
        claim_set: ClaimSetSummary::default(),
        interval: Duration::from_secs(1),
        detection_time: None,
        flags: Flags::default(),
        body,
    }
}

/// Starts the second path of node1 alone, and returns its metrics with a socket of node2.
fn start_receiver(lan: &Segment) -> (SecondPathMetrics, UdpSocket, Arc<SecondPath>) {
    [0, 1].into_iter().for_each(|own| add_internal_ip(lan, own, IPV4));
    let metrics = SecondPathMetrics::new(&mut Registry::default());
    let second_path = start_second_path(lan, 0, IPV4, metrics.clone());
    let sender = lan.inside(HOSTS[1], || UdpSocket::bind((IPV4[1], 0)).expect("an address"));
    sender.connect((IPV4[0], PORT)).expect("a route");
    (metrics, sender, second_path)
}

/// Sends a valid datagram until one arrives. The kernel of the sender reports a closed port as an
/// error of a later call.
async fn wait_until_open(sender: &UdpSocket, metrics: &SecondPathMetrics) {
    let deadline = Clock::now() + TIMEOUT;
    while metrics.received.get() == 0 {
        assert!(Clock::now() < deadline, "the port never opens");
        let _ = sender.send(&datagram(&key()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn invalid_datagrams_are_dropped_and_counted() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (metrics, sender, _second_path) = start_receiver(&lan);
        wait_until_open(&sender, &metrics).await;
        let valid = datagram(&key());
        let changed = |position: usize| {
            let mut changed = valid.clone();
            changed[position] ^= 0x40;
            changed
        };
        let other_key = HelloKey::new([8; KEY_LENGTH]);
        let mut too_long = valid.clone();
        too_long.resize(DATAGRAM_MAX + 1, 0);
        let cases = [
            (too_long, DatagramDrop::Malformed, 1),
            (Vec::new(), DatagramDrop::Malformed, 2),
            (changed(0), DatagramDrop::Version, 1),
            (datagram(&other_key), DatagramDrop::ForeignKey, 1),
            (changed(valid.len() - 1), DatagramDrop::Signature, 1),
        ];
        for (bytes, reason, count) in cases {
            sender.send(&bytes).expect("an open port");
            wait_for_count(|| metrics.dropped(reason).get(), count).await;
        }
        lan.inside("client", || {
            let foreign_host = UdpSocket::bind(("172.30.0.100", 0)).expect("an address");
            foreign_host.send_to(&valid, (IPV4[0], PORT)).expect("a route");
        });
        wait_for_count(|| metrics.dropped(DatagramDrop::UnknownSource).get(), 1).await;
        sender.send(&datagram_of(HOSTS[0], &key())).expect("an open port");
        wait_for_count(|| metrics.dropped(DatagramDrop::UnknownSource).get(), 2).await;
    });
}

#[test]
fn forged_datagrams_do_not_use_up_the_rate_of_their_source() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (metrics, sender, _second_path) = start_receiver(&lan);
        wait_until_open(&sender, &metrics).await;
        let mut forged = datagram(&key());
        *forged.last_mut().expect("a signature") ^= 0x40;
        let (before, deadline) = (metrics.received.get(), Clock::now() + TIMEOUT);
        while metrics.dropped(DatagramDrop::Signature).get() < 2 * DATAGRAMS_PER_SECOND_MAX {
            assert!(Clock::now() < deadline, "the receiver reads too few datagrams");
            for _ in 0..100 {
                // The kernel may reject a datagram while its queue is full.
                let _ = sender.send(&forged);
            }
            let _ = sender.send(&datagram(&key()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(metrics.received.get() > before, "valid datagrams are received");
        assert_eq!(metrics.dropped(DatagramDrop::RateLimit).get(), 0);
    });
}

#[test]
fn the_reply_to_a_challenge_from_another_port_reaches_the_speaker() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (metrics, copier, _second_path) = start_receiver(&lan);
        let speaker = lan.inside(HOSTS[1], || UdpSocket::bind((IPV4[1], PORT)).expect("a port"));
        speaker.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        wait_until_open(&copier, &metrics).await;
        let challenge = frame_of(HOSTS[1], Body::NodeWatch(NodeWatch::Challenge(7)));
        copier.send(&challenge.encode_datagram(&key())).expect("an open port");
        let mut reply = [0; DATAGRAM_MAX];
        let length = speaker.recv(&mut reply).expect("a reply");
        let keys = HelloKeyRing::new(vec![key()]);
        let reply = Frame::decode_datagram(&reply[..length], &keys).expect("a valid datagram");
        assert_eq!(reply.body, Body::NodeWatch(NodeWatch::Reply(7)));
    });
}

#[test]
fn a_port_that_another_program_uses_is_opened_once_it_is_free() {
    let lan = Segment::new(&HOSTS);
    add_internal_ip(&lan, 0, IPV4);
    let other_program =
        lan.inside(HOSTS[0], || UdpSocket::bind(("0.0.0.0", PORT)).expect("a free port"));
    lan.ip("-n", HOSTS[0], &format!("address del {}/24 dev eth0", IPV4[0]));
    runtime().block_on(async {
        let (metrics, sender, _second_path) = start_receiver(&lan);
        sender.send(&datagram(&key())).expect("a route");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(metrics.received.get(), 0);
        drop(other_program);
        wait_until_open(&sender, &metrics).await;
    });
}

#[test]
fn a_flood_of_datagrams_delays_no_reply() {
    runtime().block_on(async {
        let pair = Pair::start(IPV4).await;
        let own = usize::from(pair.owner.name != HOSTS[0]);
        let (peer, metrics) = (1 - own, &pair.metrics[own]);
        let sender = pair.lan.inside(HOSTS[peer], || UdpSocket::bind((IPV4[peer], 0)));
        let sender = sender.expect("an address");
        let client = RawSocket::open(&pair.lan, "client", "eth0");
        let is_reply = |frame: &[u8]| {
            client.parse_reply(frame).is_some_and(|reply| reply.mac == pair.owner.mac)
        };
        let flood = std::thread::spawn(move || {
            let (valid, end) = (datagram_of(HOSTS[peer], &key()), Clock::now() + FLOOD_TIME);
            while Clock::now() < end {
                // The kernel may reject a datagram while its queue is full.
                let _ = sender.send_to(&valid, (IPV4[own], PORT));
            }
        });
        let mut longest = Duration::ZERO;
        while !flood.is_finished() {
            let start = Clock::now();
            client.send(&arp::request(client.mac, REQUESTER, VIP));
            client.read_until("the reply to a request", is_reply);
            longest = longest.max(Clock::now().since(start));
            tokio::time::sleep(REQUEST_INTERVAL).await;
        }
        flood.join().expect("the flood thread does not panic");
        println!("the longest reply took {longest:?}");
        assert!(longest < REPLY_TIME_MAX, "{longest:?}");
        assert_eq!(client.probe_and_collect_replies(), plain_replies(pair.owner.mac));
        assert!(metrics.dropped(DatagramDrop::RateLimit).get() > 0);
        assert!(metrics.received.get() >= DATAGRAMS_PER_SECOND_MAX / 2);
        assert_eq!(pair.owner.metrics.suspicions.get(), 0);
    });
}
