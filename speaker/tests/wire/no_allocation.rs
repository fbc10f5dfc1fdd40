//! The reply path does not allocate: a thread that replies to a thousand requests of each protocol
//! never calls the allocator.
//!
//! `strace -c` of such a thread, over 1,000 requests by ARP and 1,000 by NDP, one after the other,
//! counts these system calls on Linux 6.18. There is no call for memory, locks or logs:
//!
//! | call | number |
//! |---|---|
//! | `sendto`: the replies, and 35 hellos | 2,035 |
//! | `recvfrom`: 2,010 with a frame, 893 without a further one | 2,903 |
//! | `ppoll` | 921 |
//! | `getsockopt`: frames that the kernel dropped, once per second for each socket | 6 |

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use ferrolb_proto::wire::{arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker::link::{LinkHandle, LinkSetup};
use ferrolb_speaker::metrics::{LinkMetrics, Metrics};
use ferrolb_speaker_core::claim;
use prometheus_client::registry::Registry;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{
    BOTH_VIPS, TIMEOUT, VIP, VIP6, healthy_watchdog, link_config, runtime, wait_for_count,
};

/// Interface name of the measured thread; no other test uses this name.
const LINK: &str = "counted";
/// Number of requests of each kind in one attempt.
const REQUESTS: u64 = 1_000;
/// A hello allocates, so an attempt has to fit between two hellos.
const HELLO_INTERVAL: Duration = Duration::from_secs(10);
/// Frames that announce one address of each family after the claim: seven times a gratuitous ARP
/// request, a gratuitous ARP reply and an unsolicited neighbor advertisement.
const ANNOUNCEMENTS: u64 = 7 * 3;

/// Id of the thread whose allocator calls are counted.
static COUNTED_THREAD: AtomicI32 = AtomicI32::new(0);
/// Number of the counted thread's allocator calls.
static ALLOCATOR_CALLS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator with a counter of one thread's calls.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

impl CountingAllocator {
    fn count() {
        let thread = COUNTED_THREAD.load(Ordering::Relaxed);
        if thread != 0 && thread == rustix::thread::gettid().as_raw_pid() {
            ALLOCATOR_CALLS.fetch_add(1, Ordering::Relaxed);
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

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count();
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns the id of the interface's thread.
fn link_thread_id() -> i32 {
    let tasks = fs::read_dir("/proc/self/task").expect("the threads of this process");
    let mut ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    let comm =
        |id: &i32| fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
    ids.find(|id| comm(id).trim() == format!("link {LINK}")).expect("the interface's thread")
}

/// Sends a thousand requests of each kind and waits for all replies. Returns the number of
/// allocator calls of the interface's thread, or none if the thread sent a hello meanwhile.
async fn allocator_calls(
    client: &RawSocket,
    owner: &LinkMetrics,
    requests: &[&[u8]],
) -> Option<u64> {
    let (replies_before, hellos_before, calls_before) = (
        owner.replies_sent.get(),
        owner.hello_frames_sent.get(),
        ALLOCATOR_CALLS.load(Ordering::Relaxed),
    );
    for round in 1..=REQUESTS {
        requests.iter().for_each(|request| client.send(request));
        wait_for_count(|| owner.replies_sent.get(), replies_before + round * requests.len() as u64)
            .await;
    }
    let after = ALLOCATOR_CALLS.load(Ordering::Relaxed);
    (owner.hello_frames_sent.get() == hellos_before).then_some(after - calls_before)
}

#[test]
fn replies_do_not_allocate() {
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
            detection_time_max: Duration::from_secs(2),
            failback_delay: None,
        },
        gratuitous_interval: None,
        metrics: metrics.clone(),
        watchdog: healthy_watchdog(),
        siblings: Arc::default(),
        second_path: None,
    };
    let config = Arc::new(link_config(&BOTH_VIPS));
    let _thread = lan.inside("node1", || LinkHandle::spawn(setup, config)).expect("a thread");
    runtime().block_on(async {
        wait_for_count(|| metrics.announcements_sent.get(), ANNOUNCEMENTS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let mut unicast_request = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
        unicast_request[..6].copy_from_slice(&lan.mac("node1").0);
        let requester = "fd30::100".parse().expect("an address");
        let requests: [&[u8]; 4] = [
            &arp::request(client.mac, [172, 30, 0, 100].into(), VIP),
            &unicast_request,
            &ndp::solicitation(client.mac, requester, VIP6),
            &ndp::unicast_solicitation(client.mac, requester, VIP6, lan.mac("node1")),
        ];
        COUNTED_THREAD.store(link_thread_id(), Ordering::Relaxed);
        let deadline = Clock::now() + TIMEOUT;
        let calls = loop {
            if let Some(calls) = allocator_calls(&client, &metrics, &requests).await {
                break calls;
            }
            assert!(Clock::now() < deadline, "no attempt fits between two hellos");
        };
        assert_eq!(calls, 0);
        // The counter does detect allocations: a hello allocates.
        let hellos = metrics.hello_frames_sent.get();
        wait_for_count(|| metrics.hello_frames_sent.get().min(hellos + 1), hellos + 1).await;
        assert!(
            ALLOCATOR_CALLS.load(Ordering::Relaxed) > 0,
            "the allocator counts the calls of the thread"
        );
    });
}
