//! The reply path does not allocate: a thread that replies to a thousand requests of each protocol
//! never calls the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use ferrolb_proto::claim;
use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::link::{LinkHandle, LinkSetup};
use ferrolb_speaker::metrics::{LinkMetrics, Metrics};
use prometheus_client::registry::Registry;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{
    BOTH, TIMEOUT, VIP, VIP6, healthy_watchdog, link_config, runtime, wait_for_count,
};

/// A name that no other test's thread has.
const LINK: &str = "counted";
/// Requests of each kind in one attempt.
const REQUESTS: u64 = 1_000;
/// A hello allocates, so an attempt has to fit between two of them.
const HELLO_INTERVAL: Duration = Duration::from_secs(10);
/// Announcements of one address of each family after its claim: seven times, by ARP in two forms.
const GRATUITOUS: u64 = 7 * 3;

/// The thread whose allocator calls are counted, and their number.
static WATCHED: AtomicI32 = AtomicI32::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts one thread's calls.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

impl CountingAllocator {
    fn count() {
        let watched = WATCHED.load(Ordering::Relaxed);
        if watched != 0 && watched == rustix::thread::gettid().as_raw_pid() {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
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

/// Returns the id of the interface's thread.
fn thread() -> i32 {
    let tasks = fs::read_dir("/proc/self/task").expect("this process");
    let mut ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    let comm =
        |id: &i32| fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
    ids.find(|id| comm(id).trim() == format!("link {LINK}")).expect("the link's thread")
}

/// Sends a thousand requests of each kind and waits for all replies. Returns the thread's number of
/// allocator calls, or none if the thread sent a hello meanwhile.
async fn allocator_calls(
    client: &RawSocket,
    owner: &LinkMetrics,
    questions: &[&[u8]],
) -> Option<u64> {
    let (answered, hellos, before) =
        (owner.replies_sent.get(), owner.hello_frames_sent.get(), CALLS.load(Ordering::Relaxed));
    for round in 1..=REQUESTS {
        questions.iter().for_each(|question| client.send(question));
        wait_for_count(|| owner.replies_sent.get(), answered + round * questions.len() as u64)
            .await;
    }
    let after = CALLS.load(Ordering::Relaxed);
    (owner.hello_frames_sent.get() == hellos).then_some(after - before)
}

#[test]
fn answering_takes_no_memory() {
    let lan = Segment::exclusive(&["node1"]);
    let metrics = Metrics::new(&mut Registry::default()).link("eth0");
    let setup = LinkSetup {
        index: lan.index_of("node1", "eth0"),
        name: LINK.into(),
        mac: lan.mac("node1"),
        claims: claim::ClaimConfig {
            node: "node1".into(),
            epoch: 1,
            hello_interval: HELLO_INTERVAL,
            hello_misses: 3,
            failback_delay: None,
        },
        gratuitous_interval: None,
        metrics: metrics.clone(),
        watchdog: healthy_watchdog(),
        siblings: Arc::default(),
    };
    let order = Arc::new(link_config(&BOTH));
    let _thread = lan.inside("node1", || LinkHandle::spawn(setup, order)).expect("a thread");
    runtime().block_on(async {
        wait_for_count(|| metrics.announcements_sent.get(), GRATUITOUS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
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
        let patience = Clock::now() + TIMEOUT;
        let calls = loop {
            if let Some(calls) = allocator_calls(&client, &metrics, &questions).await {
                break calls;
            }
            assert!(Clock::now() < patience, "there is no time between two hellos");
        };
        assert_eq!(calls, 0);
        // The counter does detect allocations: a hello allocates.
        let hellos = metrics.hello_frames_sent.get();
        wait_for_count(|| metrics.hello_frames_sent.get().min(hellos + 1), hellos + 1).await;
        assert!(CALLS.load(Ordering::Relaxed) > 0, "nothing is counted");
    });
}
