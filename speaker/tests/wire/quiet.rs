//! The answer path takes no memory: a thread that answers a thousand questions of each protocol asks the allocator for nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use ferrolb_proto::claim;
use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::link::{LinkHandle, Setup};
use ferrolb_speaker::metrics::{LinkMetrics, Metrics};
use prometheus_client::registry::Registry;

use crate::lan::Lan;
use crate::port::Port;
use crate::speaker::{BOTH, PATIENCE, VIP, VIP6, counted, runtime, vitals, wanted};

/// A name that no other test's thread has.
const LINK: &str = "counted";
/// Questions of each kind in one try.
const QUESTIONS: u64 = 1_000;
/// A hello takes memory: there has to be a try between two of them.
const HELLO_INTERVAL: Duration = Duration::from_secs(10);
/// The frames that tell of one address of each family when it is taken: seven times, by ARP in two forms.
const GRATUITOUS: u64 = 7 * 3;

/// The thread whose calls are counted, and how many there were.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with one thread's calls counted.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn count() {
        let watched = WATCHED.load(Ordering::Relaxed);
        if watched != 0 && watched == rustix::thread::gettid().as_raw_pid() {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }
}

/// The id of the link's thread.
fn thread() -> i32 {
    let tasks = fs::read_dir("/proc/self/task").expect("this process");
    let mut ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    let comm = |id: &i32| fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
    ids.find(|id| comm(id).trim() == format!("link {LINK}")).expect("the link's thread")
}

/// Asks a thousand times in each way and waits for all answers; the calls that the thread made of the allocator, none where it said hello in
/// between.
async fn calls(client: &Port, owner: &LinkMetrics, questions: &[&[u8]]) -> Option<u64> {
    let (answered, hellos, before) = (owner.answered.get(), owner.sent.get(), CALLS.load(Ordering::Relaxed));
    for round in 1..=QUESTIONS {
        questions.iter().for_each(|question| client.send(question));
        counted(|| owner.answered.get(), answered + round * questions.len() as u64).await;
    }
    let after = CALLS.load(Ordering::Relaxed);
    (owner.sent.get() == hellos).then_some(after - before)
}

#[test]
fn answering_takes_no_memory() {
    let lan = Lan::alone(&["node1"]);
    let metrics = Metrics::new(&mut Registry::default()).link("eth0");
    let setup = Setup {
        index: lan.index_of("node1", "eth0"),
        name: LINK.into(),
        mac: lan.mac("node1"),
        claims: claim::Config {
            node: "node1".into(),
            epoch: 1,
            hello_interval: HELLO_INTERVAL,
            hello_misses: 3,
            failback_delay: None,
        },
        gratuitous_interval: None,
        metrics: metrics.clone(),
        vitals: vitals(),
        siblings: Arc::default(),
    };
    let order = Arc::new(wanted(&BOTH));
    let _thread = lan.inside("node1", || LinkHandle::spawn(setup, order)).expect("a thread");
    runtime().block_on(async {
        counted(|| metrics.gratuitous.get(), GRATUITOUS).await;
        let client = Port::open(&lan, "client", "eth0");
        let mut to_one = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
        to_one[..6].copy_from_slice(&lan.mac("node1").0);
        let asker = "fd30::100".parse().expect("an address");
        let questions: [&[u8]; 4] = [
            &arp::request(client.mac, [172, 30, 0, 100].into(), VIP),
            &to_one,
            &ndp::solicitation(client.mac, asker, VIP6),
            &ndp::unicast_solicitation(client.mac, asker, VIP6, lan.mac("node1")),
        ];
        WATCHED.store(thread(), Ordering::Relaxed);
        let patience = Clock::now() + PATIENCE;
        let calls = loop {
            if let Some(calls) = calls(&client, &metrics, &questions).await {
                break calls;
            }
            assert!(Clock::now() < patience, "there is no time between two hellos");
        };
        assert_eq!(calls, 0);
        // The same count notices what is no answer: a hello takes memory.
        let hellos = metrics.sent.get();
        counted(|| metrics.sent.get().min(hellos + 1), hellos + 1).await;
        assert!(CALLS.load(Ordering::Relaxed) > 0, "nothing is counted");
    });
}
