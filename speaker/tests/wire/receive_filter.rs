//! The receive filter: ARP and NDP of other hosts about addresses outside the ranges wake no
//! thread, and requests for owned addresses still get replies.
//!
//! Measured without optimization, with 5,000 ARP broadcasts per second for other hosts:
//!
//! | filter | wake-ups per second | processor use |
//! |---|---|---|
//! | open, as without a filter | 4,730 to 5,030 | 4 to 9 % |
//! | closed | 30 to 33 | 0.2 to 0.3 % |

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::plan::{IPV4_RANGES_MAX, IPV6_RANGES_MAX, LinkConfig};

use crate::raw_socket::{RawSocket, plain_replies};
use crate::segment::Segment;
use crate::speaker::{
    BOTH_VIPS, HOSTS, TIMEOUT, TestSpeaker, VIP, VIP6, link_config, runtime, start_pair,
    start_pair_on, wait_for_count, with_one_candidate,
};
use crate::thread_usage::{Measurement, ThreadUsage};

/// Interval between broadcasts of other hosts, 5,000 per second.
const BROADCAST_INTERVAL: Duration = Duration::from_micros(200);
/// Duration of one measurement.
const MEASURED_TIME: Duration = Duration::from_secs(4);
/// Maximum number of measurements until one meets the limits: the machine may be busy with other
/// work.
const MEASUREMENTS_MAX: usize = 3;
/// A closed filter must divide the number of wake-ups by this or more.
const WAKE_UPS_DIVISOR: f64 = 10.0;
/// Minimum number of wake-ups per second while the filter is open: the broadcasts do wake the
/// thread.
const WAKE_UPS_OPEN_MIN: f64 = 2_500.0;

/// Another host, which sends broadcasts and replies to nothing.
const OTHER_HOST: Mac = Mac([2, 0, 0, 0, 0, 9]);
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 50);
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const REQUESTER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);
/// Ranges with the addresses of these tests, and without them.
const WITH_VIPS: [&str; 2] = ["172.30.0.200-172.30.0.209", "fd30::200-fd30::2ff"];
const WITHOUT_VIPS: [&str; 2] = ["172.30.0.201-172.30.0.209", "fd30::400-fd30::4ff"];

/// Returns the config of these addresses with received ranges.
fn config(addresses: &[IpAddr], ranges: Option<[&str; 2]>) -> Arc<LinkConfig> {
    let ranges = ranges.map(|texts| texts.map(|text| text.parse().expect("a range")));
    let received_ranges = ranges.map(|ranges| ranges.into_iter().collect());
    Arc::new(LinkConfig { received_ranges, ..link_config(addresses) })
}

/// Returns an ARP request of the other host about a third one.
fn other_request() -> [u8; arp::FRAME_LENGTH] {
    arp::request(OTHER_HOST, OTHER_ADDRESS, Ipv4Addr::new(172, 30, 0, 51))
}

/// Starts a speaker without peers, so that it suspects none, and waits until it owns the addresses.
async fn start_owner(lan: &Segment) -> TestSpeaker {
    let mut owner = TestSpeaker::start(lan, "node1", &BOTH_VIPS);
    owner.wait_until("claimed the addresses", |report| report.owned.len() == 2).await;
    owner
}

/// Sets the received ranges, and waits until the filter is closed. The filter closes only after a
/// frame of a witness.
async fn close_filter(speaker: &TestSpeaker, config: Arc<LinkConfig>, witness: &RawSocket) {
    speaker.handle.set_config(config);
    // A closed filter may still have the ranges from before.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let deadline = Clock::now() + TIMEOUT;
    while is_open(speaker) {
        assert!(Clock::now() < deadline, "the filter never closes");
        witness.send(&other_request());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_open(speaker: &TestSpeaker) -> bool {
    speaker.metrics.receive_filter_open.get() == 1
}

/// Thread that sends broadcasts of the other host.
struct Broadcasts {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Broadcasts {
    fn start(host: RawSocket) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                let mut at = Clock::now();
                while !ended.load(Ordering::Relaxed) {
                    host.send(&other_request());
                    at = at + BROADCAST_INTERVAL;
                    std::thread::park_timeout(at.since(Clock::now()));
                }
            }
        });
        Self { ended, thread }
    }

    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread does not panic");
    }
}

/// Returns the highest use of an interface's thread per second during the broadcasts.
async fn measure(lan: &Segment, link: &str) -> ThreadUsage {
    let broadcasts = Broadcasts::start(RawSocket::open(lan, "client", "eth0"));
    let measurement = Measurement::start(link);
    tokio::time::sleep(MEASURED_TIME).await;
    let (_, usage) = measurement.maximum_per_second();
    broadcasts.end();
    usage
}

/// Measures the threads of two speakers with an open filter, and with a closed one. None: a closed
/// filter has opened, because one speaker suspected the other on a busy machine.
fn measure_open_and_closed(link: &str) -> Option<[ThreadUsage; 2]> {
    let lan = Segment::exclusive(&HOSTS);
    for node in HOSTS {
        lan.ip("-n", node, "link set eth0 down");
        lan.ip("-n", node, &format!("link set eth0 name {link} up"));
    }
    runtime().block_on(async {
        let (owner, other) = start_pair_on(&lan, link, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let open = measure(&lan, link).await;
        for speaker in [&owner, &other] {
            close_filter(speaker, config(&BOTH_VIPS, Some(WITH_VIPS)), &client).await;
        }
        let closed = measure(&lan, link).await;
        let remained_closed = !is_open(&owner) && !is_open(&other);
        println!("open: {open:?} per second; closed: {closed:?}, {remained_closed}");
        // The queue of a socket that was not read for so long may be full of hellos.
        let client = RawSocket::open(&lan, "client", "eth0");
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        remained_closed.then_some([open, closed])
    })
}

#[test]
fn broadcasts_of_other_hosts_do_not_wake_the_thread() {
    let accepts = |measured: Option<[ThreadUsage; 2]>| {
        measured.is_some_and(|[open, closed]| {
            open.sleeps > WAKE_UPS_OPEN_MIN && closed.sleeps < open.sleeps / WAKE_UPS_DIVISOR
        })
    };
    assert!(
        (1..=MEASUREMENTS_MAX).any(|n| accepts(measure_open_and_closed(&format!("filter{n}")))),
        "no measurement met the limits: see the results above"
    );
}

/// Sends the requests for both addresses, and then a unicast request, which gets a reply in any
/// case. Returns the addresses for which a reply arrives before that one.
fn replied_addresses(client: &RawSocket, owner: Mac, requests: [&[u8]; 2]) -> Vec<IpAddr> {
    requests.into_iter().for_each(|request| client.send(request));
    let last = Ipv4Addr::new(172, 30, 0, 110);
    // The thread reads requests of both protocols in turns, so the last one is sent as both.
    let mut unicast = arp::request(client.mac, last, VIP);
    unicast[..6].copy_from_slice(&owner.0);
    let last6 = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x110);
    client.send(&unicast);
    client.send(&ndp::unicast_solicitation(client.mac, last6, VIP6, owner));
    let mut waiting = vec![IpAddr::from(last), last6.into()];
    let mut replied = Vec::new();
    let deadline = Clock::now() + TIMEOUT;
    while !waiting.is_empty() {
        assert!(Clock::now() < deadline, "a unicast request got no reply");
        let Some(reply) = client.next().and_then(|frame| client.parse_reply(&frame)) else {
            continue;
        };
        waiting.retain(|requester| *requester != reply.requester);
        if [IpAddr::from(REQUESTER), REQUESTER6.into()].contains(&reply.requester) {
            replied.push(reply.address);
        }
    }
    replied.sort();
    replied
}

#[test]
fn a_change_of_the_ranges_is_applied() {
    let lan = Segment::new(&["node1"]);
    runtime().block_on(async {
        let owner = start_owner(&lan).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let broadcasts: [&[u8]; 2] = [
            &arp::request(client.mac, REQUESTER, VIP),
            &ndp::solicitation(client.mac, REQUESTER6, VIP6),
        ];
        let replied = || replied_addresses(&client, owner.mac, broadcasts);
        assert_eq!(replied(), BOTH_VIPS, "the ranges are not known");
        // A config of the main loop contains all its addresses; this one shows that the filter
        // drops frames.
        close_filter(&owner, config(&BOTH_VIPS, Some(WITHOUT_VIPS)), &client).await;
        assert!(replied().is_empty(), "the ranges do not contain the addresses");
        close_filter(&owner, config(&BOTH_VIPS, Some(WITH_VIPS)), &client).await;
        assert_eq!(replied(), BOTH_VIPS, "the ranges contain the addresses");
        close_filter(&owner, config(&BOTH_VIPS, Some(WITHOUT_VIPS)), &client).await;
        // A pool becomes invalid.
        owner.handle.set_config(config(&BOTH_VIPS, None));
        wait_for_count(|| u64::from(is_open(&owner)), 1).await;
        for _ in 0..30 {
            assert_eq!(replied(), BOTH_VIPS, "the ranges are not known again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(is_open(&owner), "the filter remains open");
    });
}

#[test]
fn the_filter_remains_open_until_a_witness_is_received() {
    let lan = Segment::new(&["node1"]);
    runtime().block_on(async {
        let owner = start_owner(&lan).await;
        owner.handle.set_config(config(&BOTH_VIPS, Some(WITH_VIPS)));
        for _ in 0..30 {
            assert!(is_open(&owner), "no host has sent ARP or NDP");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        RawSocket::open(&lan, "client", "eth0").send(&other_request());
        wait_for_count(|| u64::from(!is_open(&owner)), 1).await;
    });
}

#[test]
fn foreign_hosts_are_detected_by_a_closed_filter() {
    let lan = Segment::new(&["node1"]);
    runtime().block_on(async {
        let owner = start_owner(&lan).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let config = LinkConfig::clone(&config(&BOTH_VIPS, Some(WITH_VIPS)));
        close_filter(&owner, Arc::new(with_one_candidate(config)), &client).await;
        client.send(&arp::gratuitous_reply(OTHER_HOST, VIP));
        client.send(&arp::request(OTHER_HOST, VIP, OTHER_ADDRESS));
        client.send(&ndp::unsolicited_advertisement(OTHER_HOST, VIP6));
        client.send(&ndp::solicitation(OTHER_HOST, VIP6, REQUESTER6));
        wait_for_count(|| owner.metrics.foreign_frames.get(), 4).await;
        assert!(!is_open(&owner));
    });
}

/// No witness of the other speaker sends replies. Only broadcasts of a host prove that the speaker
/// receives. It opens its filter when it suspects the owner, so it takes over as fast as with an
/// open filter, and does not become isolated.
#[test]
fn a_closed_filter_opens_for_evidence_when_the_owner_fails() {
    let lan = Segment::exclusive(&HOSTS);
    lan.ip("-n", "client", "link set eth0 arp off");
    runtime().block_on(async {
        let (owner, mut other) = start_pair(&lan, &[VIP.into()]).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let ranges = config(&[VIP.into()], Some(WITH_VIPS));
        close_filter(&other, ranges, &client).await;
        let broadcasts = Broadcasts::start(client);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!is_open(&other));
        let failed_at = Clock::now();
        drop(owner.handle);
        other.wait_until("took over the address", |report| !report.owned.is_empty()).await;
        let took = Clock::now().since(failed_at);
        broadcasts.end();
        println!("with a closed filter, the other speaker took over {took:?} after the failure");
        assert!(is_open(&other) && took < Duration::from_millis(600), "{took:?}");
        assert_eq!((other.metrics.node_failures.get(), other.metrics.isolations.get()), (1, 0));
    });
}

/// Two speakers that own nothing send one hello per second, so a failure is suspected only after
/// three seconds. Without any frame, the other speaker would become isolated before.
#[test]
fn a_closed_filter_opens_for_evidence_when_no_frame_arrives() {
    let lan = Segment::exclusive(&HOSTS);
    lan.ip("-n", "client", "link set eth0 arp off");
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| TestSpeaker::start(&lan, name, &[]));
        for speaker in &mut pair {
            speaker.wait_until("received hellos", |report| report.speakers.len() == 1).await;
        }
        let [failing, remaining] = pair;
        let client = RawSocket::open(&lan, "client", "eth0");
        close_filter(&remaining, config(&[], Some(WITH_VIPS)), &client).await;
        let broadcasts = Broadcasts::start(client);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!is_open(&remaining));
        drop(failing.handle);
        // The filter closes again a second after the first frame.
        wait_for_count(|| u64::from(is_open(&remaining)), 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(remaining.metrics.isolations.get(), 0);
        broadcasts.end();
    });
}

/// Returns the config with as many ranges as the main loop sends, and the addresses in the last
/// ones.
fn config_with_most_ranges() -> Arc<LinkConfig> {
    let v4 = (1..IPV4_RANGES_MAX).map(|n| format!("203.0.{n}.1-203.0.{n}.9"));
    let v6 = (1..IPV6_RANGES_MAX).map(|n| format!("fd29:{n}::1-fd29:{n}::3"));
    let texts = v4.chain(v6).chain(WITH_VIPS.map(str::to_owned));
    let ranges = texts.map(|text| text.parse().expect("a range"));
    Arc::new(LinkConfig { received_ranges: Some(ranges.collect()), ..link_config(&BOTH_VIPS) })
}

/// Starts a speaker whose kernel allows a socket this many bytes for its filters, with as many
/// ranges as possible, and sends frames for two seconds. Returns whether the filter is open at the
/// end. Kernels before Linux 6.9 have one limit for all namespaces, and these do not change it.
fn is_open_with_socket_memory(bytes: u32) -> bool {
    let lan = Segment::new(&["node1"]);
    lan.inside("node1", || {
        let limit = Path::new("/proc/sys/net/core/optmem_max");
        limit.exists().then(|| fs::write(limit, bytes.to_string()).expect("a limit"))
    });
    runtime().block_on(async {
        let owner = start_owner(&lan).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        // Two filters of the largest size are attached, one after the other.
        let mut open = true;
        for _ in 0..2 {
            owner.handle.set_config(config(&BOTH_VIPS, None));
            wait_for_count(|| u64::from(is_open(&owner)), 1).await;
            owner.handle.set_config(config_with_most_ranges());
            for _ in 0..200 {
                client.send(&other_request());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            open = is_open(&owner);
            let requests: [&[u8]; 2] = [
                &arp::request(client.mac, REQUESTER, VIP),
                &ndp::solicitation(client.mac, REQUESTER6, VIP6),
            ];
            assert_eq!(replied_addresses(&client, owner.mac, requests), BOTH_VIPS);
        }
        open
    })
}

#[test]
fn the_largest_filter_fits_into_the_smallest_socket_memory() {
    assert!(!is_open_with_socket_memory(20_480));
}

#[test]
fn all_requests_get_replies_although_the_kernel_rejects_the_filter() {
    assert!(is_open_with_socket_memory(4_096));
}
