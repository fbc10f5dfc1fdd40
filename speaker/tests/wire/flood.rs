//! A flood of questions, or of hellos without a valid signature, from one host and from many: an
//! honest client is answered, the speakers go on hearing each other, and no thread takes more of a
//! processor than it may.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ferrolb_proto::wire::hello::{Body, Failing, Flags, Frame};
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_runtime::clock::Clock;

use crate::lan::Lan;
use crate::port::Port;
use crate::speaker::{BOTH, VIP, VIP6, elected_on, key, runtime};

/// How long a flood lasts.
const LENGTH: Duration = Duration::from_secs(4);
/// How often the honest client asks.
const ASKS: Duration = Duration::from_millis(5);
/// The part of a processor that a thread may take: reading half of one, and on top of it hellos and what interrupts do meanwhile. A thread that keeps to no
/// limit takes 0.91 and more.
const PROCESSOR_MAX: f64 = 0.8;
/// How often in a second a thread may go to sleep in a flood from many: three times as often as it does. One that does not rest does so 15,000 times.
const SLEEPS_MAX: f64 = 5_250.0;
/// How many floods there are at most until one that is as it should be: the machine may have other things to do.
const FLOODS_MAX: usize = 3;
/// The hardware addresses of a flood from many.
const MANY: u32 = 4_096;

const ASKER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);
const ASKER6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x109);

/// A protocol's question for the address, from one host to another: a switch carries more of these than of those to all.
type Question = fn(Mac, Mac) -> Vec<u8>;

fn by_arp(from: Mac, to: Mac) -> Vec<u8> {
    let mut question = arp::request(from, ASKER, VIP);
    question[..6].copy_from_slice(&to.0);
    question.to_vec()
}

fn by_ndp(from: Mac, to: Mac) -> Vec<u8> {
    ndp::unicast_solicitation(from, ASKER6, VIP6, to).to_vec()
}

/// A hello of the right shape without a valid signature.
fn by_hello(from: Mac, to: Mac) -> Vec<u8> {
    let body = Body::Hello { generation: 0, accepts: Vec::new(), failing: Failing::default() };
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

/// What was seen during a flood.
#[derive(Debug)]
struct Seen {
    /// The part of the honest client's questions that was answered.
    answered: f64,
    /// The part of a processor that the busiest link thread took.
    processor: f64,
    /// How often in a second the thread went to sleep that did so most often.
    slept: f64,
    /// How often a speaker stopped listening to somebody.
    blocked: u64,
}

/// Floods two speakers on a wire of their own, whose links have this name, from as many hosts. A
/// client asks meanwhile.
fn flood(link: &str, hosts: u32, [flood, question]: [Question; 2]) -> Seen {
    let lan = Lan::alone(&["node1", "node2", "flooder"]);
    for node in ["node1", "node2"] {
        lan.ip("-n", node, "link set eth0 down");
        lan.ip("-n", node, &format!("link set eth0 name {link} up"));
    }
    runtime().block_on(async {
        let (owner, other) = elected_on(&lan, link, &BOTH).await;
        let (client, flooder) = (Port::open(&lan, "client", "eth0"), Port::open(&lan, "flooder", "eth0"));
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
        let answered = ask(client, &honest).await;
        over.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood goes out");
        let took = Clock::now().since(start).as_secs_f64();
        let now = threads(link);
        let most = |what: fn(&Taken) -> f64| {
            now.iter().zip(&before).map(|(now, before)| (what(now) - what(before)) / took).fold(0.0, f64::max)
        };
        let (processor, slept) = (most(|taken| taken.seconds), most(|taken| taken.sleeps));
        let both = [&owner.metrics, &other.metrics];
        assert!(owner.holds() && !other.holds());
        let seen = Seen { answered, processor, slept, blocked: both.iter().map(|metrics| metrics.floods.get()).sum() };
        let (rate, suspected) =
            (sent.load(Ordering::Relaxed) as f64 / took, both.map(|metrics| metrics.suspicions.get()));
        println!("{rate:.0} frames/s from {hosts} hosts at {link}: {seen:?}, suspected {suspected:?}");
        assert_eq!(both.map(|metrics| metrics.deaths.get()), [0, 0], "{seen:?}");
        assert!(seen.blocked == 0 || hosts == 1, "{seen:?}");
        seen
    })
}

/// Asks for as long as a flood lasts, whether it is answered or not; the part that was.
async fn ask(client: Port, question: &[u8]) -> f64 {
    let (client, over) = (Arc::new(client), Arc::new(AtomicBool::new(false)));
    let listening = std::thread::spawn({
        let (client, over) = (Arc::clone(&client), Arc::clone(&over));
        move || {
            let mut answered = 0.0;
            while !over.load(Ordering::Relaxed) {
                let answer = client.next().and_then(|frame| client.answer(&frame));
                if answer.is_some_and(|answer| [IpAddr::from(ASKER), ASKER6.into()].contains(&answer.asker)) {
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
        tokio::time::sleep(ASKS).await;
    }
    over.store(true, Ordering::Relaxed);
    listening.join().expect("the client hears") / asked
}

/// What a thread has taken so far.
struct Taken {
    /// Of a processor.
    seconds: f64,
    /// How often it went to sleep.
    sleeps: f64,
}

/// What each thread of links of this name has taken, by the thread's id (Linux Documentation/scheduler/sched-stats.rst; proc_pid_status(5)).
fn threads(link: &str) -> Vec<Taken> {
    let tasks = fs::read_dir("/proc/self/task").expect("this process");
    let mut tasks: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    tasks.sort();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    tasks.retain(|task| read(task.join("comm")).trim() == format!("link {link}"));
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok()).expect("a number");
    let taken = |task: &PathBuf| {
        let (times, status) = (read(task.join("schedstat")), read(task.join("status")));
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Taken { seconds: number(times.split(' ').next()) / 1e9, sleeps: number(sleeps) }
    };
    tasks.iter().map(taken).collect()
}

/// Floods until it is as it should be, which it has to be before there were too many.
fn a_flood_is(good: fn(&Seen) -> bool, link: &str, hosts: u32, questions: [Question; 2]) {
    assert!((1..=FLOODS_MAX).any(|n| good(&flood(&format!("{link}{n}"), hosts, questions))), "no flood was: see above");
}

fn is_not_heard(seen: &Seen) -> bool {
    seen.blocked > 0 && is_not_noticed(seen)
}

fn is_not_noticed(seen: &Seen) -> bool {
    seen.answered > 0.8 && seen.processor < PROCESSOR_MAX
}

// Among the questions of many an honest one is no more likely to be read than theirs; a client asks again.
fn is_heard_in_part(seen: &Seen) -> bool {
    seen.answered > 0.1 && seen.processor < PROCESSOR_MAX && seen.slept < SLEEPS_MAX
}

#[test]
fn a_host_that_floods_by_arp_is_not_heard_and_an_honest_client_is() {
    a_flood_is(is_not_heard, "oarp", 1, [by_arp; 2]);
}

#[test]
fn a_host_that_floods_by_ndp_is_not_heard_and_an_honest_client_is() {
    a_flood_is(is_not_heard, "ondp", 1, [by_ndp; 2]);
}

#[test]
fn a_flood_from_many_by_arp_takes_no_more_than_it_may() {
    a_flood_is(is_heard_in_part, "marp", MANY, [by_arp; 2]);
}

#[test]
fn a_flood_from_many_by_ndp_takes_no_more_than_it_may() {
    a_flood_is(is_heard_in_part, "mndp", MANY, [by_ndp; 2]);
}

#[test]
fn a_host_that_floods_by_hellos_is_not_heard() {
    a_flood_is(is_not_heard, "ohello", 1, [by_hello, by_arp]);
}

#[test]
fn a_flood_of_hellos_from_many_takes_no_more_than_it_may_and_no_client_notices() {
    a_flood_is(is_not_noticed, "mhello", MANY, [by_hello, by_arp]);
}
