//! One thread for each interface that the speaker uses. The thread owns the interface's sockets,
//! its claim machine ([`claim::ClaimMachine`]) and the set of addresses for which it replies. A
//! busy main loop or an absent API server therefore delays neither a reply nor a hello.
//!
//! The main loop replaces the thread's config and wakes the thread by an eventfd; the thread reads
//! only the latest config. The thread publishes its state on a watch channel, which also keeps only
//! the latest value. [`link_set::LinkSet`], driven by the main loop, starts and ends the threads.
//!
//! - `thread`: the thread's loop: wait, read frames, pass inputs to the claim machine, and execute
//!   its outputs.
//! - `socket`, `filter`: packet sockets and their BPF programs.
//! - `receive_filter`: decides which ARP and NDP frames the programs pass.
//! - `rx_queue`, `flood`: receive queues, and their limits during a flood.
//! - `classify`, `announce`: replies to ARP and NDP requests, and announcements of owned addresses.
//! - `groups`: multicast groups, without which solicitations do not arrive.
//! - `neighbors`: records the hosts on the segment, and the probes whose replies are awaited.
//! - `report`: reports the thread's state, and updates its metrics.
//! - [`second_path`]: UDP to speakers whose frames are missing, for all interfaces of the node.
//! - [`siblings`]: epochs by which an interface recognizes frames of this node's other interfaces.

mod announce;
mod classify;
mod filter;
mod flood;
mod groups;
mod link_set;
mod neighbors;
mod receive_filter;
mod report;
mod rx_queue;
mod second_path;
mod siblings;
mod socket;
mod thread;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker_core::claim;
use ferrolb_speaker_core::event::LinkReport;
use ferrolb_speaker_core::plan::LinkConfig;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;

use crate::metrics::LinkMetrics;

pub use announce::GRATUITOUS_PER_SECOND_MAX;
pub use link_set::{ClaimSettings, LinkSet};
pub use second_path::SecondPath;
pub use siblings::Siblings;

/// Stack size of an interface's thread, in bytes. The thread does not recurse, and its stack holds
/// the contents of only a few frames at a time.
const STACK_SIZE: usize = 256 * 1024;

/// Constant parameters of an interface's thread.
#[derive(Debug)]
pub struct LinkSetup {
    /// The interface's index.
    pub index: u32,
    /// The interface's name.
    pub name: Box<str>,
    /// The interface's hardware address.
    pub mac: Mac,
    /// Parameters of the interface's claim machine.
    pub claims: claim::ClaimConfig,
    /// Interval of the periodic announcements of each owned address. None: there are no periodic
    /// announcements.
    pub gratuitous_interval: Option<Duration>,
    /// The interface's metrics.
    pub metrics: LinkMetrics,
    /// Heartbeat of the main loop. By it, the thread detects that the main loop stalls and no
    /// longer updates the thread's config.
    pub watchdog: Arc<Watchdog>,
    /// The epochs of all interfaces of this node.
    pub siblings: Arc<Siblings>,
    /// The second path. None: `--challenge-port` is 0.
    pub second_path: Option<Arc<SecondPath>>,
}

/// Latest report of an interface's thread, or the error with which the thread ended.
pub type ThreadState = Result<LinkReport, Box<str>>;

/// Reasons why an interface's thread ends.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    /// The kernel refused a packet socket or the socket's filter.
    #[error(
        "no packet socket: {0}. The speaker needs the capability NET_RAW and the host's network"
    )]
    Socket(#[source] io::Error),
    /// The interface cannot send or receive frames: it is down or gone.
    #[error("the interface carries no frames: {0}")]
    InterfaceDown(#[source] io::Error),
    /// The system call poll(2) failed.
    #[error("cannot wait for frames: {0}")]
    Poll(#[source] io::Error),
}

/// Latest config of an interface's thread, and the request to end. Shared by the main loop and the
/// thread.
#[derive(Debug)]
struct ConfigMailbox {
    config: ArcSwap<LinkConfig>,
    end_requested: AtomicBool,
    /// True if the thread must release its addresses before it ends.
    release_on_exit: AtomicBool,
    wake: OwnedFd,
}

impl ConfigMailbox {
    fn wake(&self) {
        // A write fails only if the eventfd's counter is full, and then the eventfd wakes the
        // thread anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Handle of an interface's thread. Dropping the handle ends the thread without a release of its
/// addresses; [`LinkConfig::leaving`] and [`LinkHandle::release_and_end`] release them first.
#[derive(Debug)]
pub struct LinkHandle {
    mailbox: Arc<ConfigMailbox>,
}

impl LinkHandle {
    /// Starts a thread with this config.
    ///
    /// # Errors
    /// If the system refuses a thread or an eventfd. The thread reports its later failures as
    /// [`ThreadState`].
    pub fn spawn(
        setup: LinkSetup,
        config: Arc<LinkConfig>,
    ) -> io::Result<(Self, watch::Receiver<ThreadState>)> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let mailbox = Arc::new(ConfigMailbox {
            config: ArcSwap::new(config),
            end_requested: AtomicBool::new(false),
            release_on_exit: AtomicBool::new(false),
            wake,
        });
        let (thread_state, receiver) = watch::channel(Ok(LinkReport::default()));
        let handle = Self { mailbox: Arc::clone(&mailbox) };
        let second_path = setup.second_path.as_ref();
        let datagrams = second_path.map(|path| path.add_link(setup.index, Arc::clone(&mailbox)));
        // The prefix is short, because the kernel truncates a thread's name to 15 bytes.
        let name = format!("link {}", setup.name);
        std::thread::Builder::new().name(name).stack_size(STACK_SIZE).spawn(move || {
            if let Err(error) = thread::run(setup, &mailbox, datagrams, &thread_state) {
                thread_state
                    .send_modify(|thread_state| *thread_state = Err(error.to_string().into()));
            }
        })?;
        Ok((handle, receiver))
    }

    /// Replaces the thread's config.
    pub fn set_config(&self, config: Arc<LinkConfig>) {
        self.mailbox.config.store(config);
        self.mailbox.wake();
    }

    /// Ends the thread after it has released its addresses, so that other nodes need not detect a
    /// failure.
    pub fn release_and_end(self) {
        self.mailbox.release_on_exit.store(true, Ordering::Relaxed);
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.mailbox.end_requested.store(true, Ordering::Release);
        self.mailbox.wake();
    }
}
