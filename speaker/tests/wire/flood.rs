//! A flood of requests, or of hellos without a valid signature, from one host and from many. Honest
//! clients get replies, the speakers keep receiving each other's hellos, and no thread exceeds its
//! CPU budget.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ferrolb_proto::wire::hello::{Body, FailingReport, Flags, Frame};
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_runtime::clock::Clock;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{BOTH, VIP, VIP6, key, runtime, start_pair_on};

/// Duration of a flood.
const LENGTH: Duration = Duration::from_secs(4);
/// Interval between requests of the honest client.
const REQUEST_INTERVAL: Duration = Duration::from_millis(5);
/// The part of a processor that a thread may use: half of one for reading, and also hellos and
/// interrupts meanwhile. A thread without a limit uses 0.91 or more.
const PROCESSOR_MAX: f64 = 0.8;
/// Sleeps per second of a thread during a flood from many hosts: three times the actual number. A
/// thread that does not pause sleeps 15,000 times.
const SLEEPS_MAX: f64 = 5_250.0;
/// Attempts until one flood meets the limits: the machine may be busy with other work.
const FLOODS_MAX: usize = 3;
/// Hardware addresses in a flood from many hosts.
const MANY: u32 = 4_096;

const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);

/// Builds a unicast request for the address, from one host to another: a switch carries more of
/// these than of multicast ones.
type BuildFrame = fn(Mac, Mac) -> Vec<u8>;

fn by_arp(from: Mac, to: Mac) -> Vec<u8> {
    let mut question = arp::request(from, ASKER, VIP);
    question[..6].copy_from_slice(&to.0);
    question.to_vec()
}

fn by_ndp(from: Mac, to: Mac) -> Vec<u8> {
    ndp::unicast_solicitation(from, ASKER6, VIP6, to).to_vec()
}

/// Builds a well-formed hello with an invalid signature.
fn by_hello(from: Mac, to: Mac) -> Vec<u8> {
    let body =
        Body::Hello { generation: 0, accepted_keys: Vec::new(), failing: FailingReport::default() };
    let frame = Frame {
        node: "flooder".into(),
        epoch: 1,
        sequence: 1,
        clock: 1,
        interval: Duration::from_millis(50),
        flags: Flags::default(),
        body,
    };
    let mut bytes = frame.encode(from, Some(to), &key());
    *bytes.last_mut().expect("a signature") ^= 1;
    bytes
}

/// Measurements during a flood.
#[derive(Debug)]
struct FloodResult {
    /// The part of the honest client's requests that got a reply.
    answered: f64,
    /// The part of a processor that the busiest interface thread used.
    processor: f64,
    /// The highest number of sleeps per second of a thread.
    slept: f64,
    /// Number of times that a speaker blocked a host.
    blocked: u64,
}

/// Floods two speakers on a segment of their own, whose interfaces have this name, from this many
/// hosts. A client sends requests meanwhile.
fn flood(link: &str, hosts: u32, [flood, question]: [BuildFrame; 2]) -> FloodResult {
    let lan = Segment::exclusive(&["node1", "node2", "flooder"]);
    for node in ["node1", "node2"] {
        lan.ip("-n", node, "link set eth0 down");
        lan.ip("-n", node, &format!("link set eth0 name {link} up"));
    }
    runtime().block_on(async {
        let (owner, other) = start_pair_on(&lan, link, &BOTH).await;
        let (client, flooder) =
            (RawSocket::open(&lan, "client", "eth0"), RawSocket::open(&lan, "flooder", "eth0"));
        let host = |n: u32| {
            let [_, _, high, low] = n.to_be_bytes();
            Mac([2, 0xf1, 0, 0, high, low])
        };
        let frames: Vec<_> = (0..hosts).map(|n| flood(host(n), owner.mac)).collect();
        let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (start, before) = (Clock::now(), threads(link));
        let flooding = std::thread::spawn({
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            move || {
                for frame in frames.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    flooder.send(frame);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let honest = question(client.mac, owner.mac);
        let answered = send_requests(client, &honest).await;
        over.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood goes out");
        let took = Clock::now().since(start).as_secs_f64();
        let now = threads(link);
        let most = |what: fn(&ThreadUsage) -> f64| {
            now.iter()
                .zip(&before)
                .map(|(now, before)| (what(now) - what(before)) / took)
                .fold(0.0, f64::max)
        };
        let (processor, slept) = (most(|taken| taken.seconds), most(|taken| taken.sleeps));
        let both = [&owner.metrics, &other.metrics];
        assert!(owner.owns_any() && !other.owns_any());
        let seen = FloodResult {
            answered,
            processor,
            slept,
            blocked: both.iter().map(|metrics| metrics.floods.get()).sum(),
        };
        let (rate, suspected) = (
            sent.load(Ordering::Relaxed) as f64 / took,
            both.map(|metrics| metrics.suspicions.get()),
        );
        println!(
            "{rate:.0} frames/s from {hosts} hosts at {link}: {seen:?}, suspected {suspected:?}"
        );
        assert_eq!(both.map(|metrics| metrics.node_failures.get()), [0, 0], "{seen:?}");
        assert!(seen.blocked == 0 || hosts == 1, "{seen:?}");
        seen
    })
}

/// Sends requests for the duration of a flood. Returns the part that got a reply.
async fn send_requests(client: RawSocket, question: &[u8]) -> f64 {
    let (client, over) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
    let listening = std::thread::spawn({
        let (client, over) = (Arc::clone(&client), Arc::clone(&over));
        move || {
            let mut answered = 0.0;
            while !over.load(Ordering::Relaxed) {
                let answer = client.next().and_then(|frame| client.parse_reply(&frame));
                if answer.is_some_and(|answer| {
                    [IpAddr::from(ASKER), ASKER6.into()].contains(&answer.requester)
                }) {
                    answered += 1.0;
                }
            }
            answered
        }
    });
    let (start, mut asked) = (Clock::now(), 0.0);
    while Clock::now() < start + LENGTH {
        client.send(question);
        asked += 1.0;
        tokio::time::sleep(REQUEST_INTERVAL).await;
    }
    over.store(true, Ordering::Relaxed);
    listening.join().expect("the client hears") / asked
}

/// Resources that a thread has used so far.
struct ThreadUsage {
    /// Processor time in seconds.
    seconds: f64,
    /// Number of sleeps.
    sleeps: f64,
}

/// Returns the resources of each thread for interfaces with this name, by the thread's id (Linux
/// Documentation/scheduler/sched-stats.rst; proc_pid_status(5)).
fn threads(link: &str) -> Vec<ThreadUsage> {
    let tasks = fs::read_dir("/proc/self/task").expect("this process");
    let mut tasks: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    tasks.sort();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    tasks.retain(|task| read(task.join("comm")).trim() == format!("link {link}"));
    let number = |text: Option<&str>| {
        text.and_then(|text| text.trim().parse::<f64>().ok()).expect("a number")
    };
    let taken = |task: &PathBuf| {
        let (times, status) = (read(task.join("schedstat")), read(task.join("status")));
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        ThreadUsage { seconds: number(times.split(' ').next()) / 1e9, sleeps: number(sleeps) }
    };
    tasks.iter().map(taken).collect()
}

/// Repeats the flood until one meets the limits, at most `FLOODS_MAX` times.
fn assert_flood(
    good: fn(&FloodResult) -> bool,
    link: &str,
    hosts: u32,
    questions: [BuildFrame; 2],
) {
    assert!(
        (1..=FLOODS_MAX).any(|n| good(&flood(&format!("{link}{n}"), hosts, questions))),
        "no flood was: see above"
    );
}

fn is_blocked(seen: &FloodResult) -> bool {
    seen.blocked > 0 && is_not_noticed(seen)
}

fn is_not_noticed(seen: &FloodResult) -> bool {
    seen.answered > 0.8 && seen.processor < PROCESSOR_MAX
}

// Among requests from many hosts, an honest one is no more likely to be read than the others; a
// client repeats its request.
fn is_sampled(seen: &FloodResult) -> bool {
    seen.answered > 0.1 && seen.processor < PROCESSOR_MAX && seen.slept < SLEEPS_MAX
}

#[test]
fn a_host_that_floods_by_arp_is_not_heard_and_an_honest_client_is() {
    assert_flood(is_blocked, "oarp", 1, [by_arp; 2]);
}

#[test]
fn a_host_that_floods_by_ndp_is_not_heard_and_an_honest_client_is() {
    assert_flood(is_blocked, "ondp", 1, [by_ndp; 2]);
}

#[test]
fn a_flood_from_many_by_arp_takes_no_more_than_it_may() {
    assert_flood(is_sampled, "marp", MANY, [by_arp; 2]);
}

#[test]
fn a_flood_from_many_by_ndp_takes_no_more_than_it_may() {
    assert_flood(is_sampled, "mndp", MANY, [by_ndp; 2]);
}

#[test]
fn a_host_that_floods_by_hellos_is_not_heard() {
    assert_flood(is_blocked, "ohello", 1, [by_hello, by_arp]);
}

#[test]
fn a_flood_of_hellos_from_many_takes_no_more_than_it_may_and_no_client_notices() {
    assert_flood(is_not_noticed, "mhello", MANY, [by_hello, by_arp]);
}
