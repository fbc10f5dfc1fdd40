//! One thread for each link that is spoken on. It owns the link's sockets, the claim machine and the table of answers, so that
//! neither a busy main loop nor an absent API server can hold back an answer or a hello.
//!
//! Orders come in as the latest value, with an eventfd that wakes the thread; what it does goes out as the latest value on a
//! watch channel. [`set::LinkSet`], driven by the main loop, starts and ends the threads.
//!
//! - `thread`: the loop: wait, read, feed the machine, do what it says.
//! - `socket`, `filter`: packet sockets.
//! - `inlet`, `flood`: how much is read of them.
//! - `answer`, `announce`: ARP and Neighbor Discovery, asked and unasked.
//! - `groups`: so that the latter is heard.
//! - `heard`: who else is there.
//! - `report`: what the thread says of itself.
//! - [`siblings`]: this node's other links.

mod announce;
mod answer;
mod filter;
mod flood;
mod groups;
mod heard;
mod inlet;
mod report;
mod set;
mod siblings;
mod socket;
mod thread;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ferrolb_proto::claim;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::vitals::Vitals;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;

use crate::event::LinkReport;
use crate::metrics::LinkMetrics;
use crate::plan::Order;

pub use announce::GRATUITOUS_PER_SECOND_MAX;
pub use set::{LinkSet, Protocol};
pub use siblings::Siblings;

/// Stack of a link's thread, in bytes: it does not recurse, and keeps its frames in buffers of its own.
const STACK: usize = 256 * 1024;

/// What a link's thread is made with.
#[derive(Debug)]
pub struct Setup {
    /// The link's index.
    pub index: u32,
    /// The link's name.
    pub name: Box<str>,
    /// The link's hardware address.
    pub mac: Mac,
    /// What its claim machine is made with.
    pub claims: claim::Config,
    /// How long after the last announcement of an address it is announced again; none: not before it is taken anew.
    pub gratuitous_interval: Option<Duration>,
    /// Its metrics.
    pub metrics: LinkMetrics,
    /// The life of the main loop: without it this link's orders grow stale.
    pub vitals: Arc<Vitals>,
    /// The epochs of all links of this node.
    pub siblings: Arc<Siblings>,
}

/// What a thread says of itself: what it does, or why it ended.
pub type Progress = Result<LinkReport, Box<str>>;

/// Why a link's thread ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    /// A socket could not be had.
    #[error("no packet socket: {0}; the speaker needs the capability NET_RAW and the host's network")]
    Open(#[source] io::Error),
    /// The link does not take or give frames any more.
    #[error("the link carries no frames: {0}")]
    Gone(#[source] io::Error),
    /// The kernel refused a wait.
    #[error("cannot wait for frames: {0}")]
    Wait(#[source] io::Error),
}

/// Where the main loop leaves the latest order for a thread.
#[derive(Debug)]
struct Mailbox {
    order: ArcSwap<Order>,
    ended: AtomicBool,
    /// It releases its addresses when it ends.
    hands_over: AtomicBool,
    wake: OwnedFd,
}

impl Mailbox {
    fn ring(&self) {
        // It can fail only when the counter is full, and then the thread is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// A running thread; dropping it ends the thread, which releases nothing: see [`Order::leaving`]
/// and [`LinkHandle::hand_over`].
#[derive(Debug)]
pub struct LinkHandle {
    mailbox: Arc<Mailbox>,
}

impl LinkHandle {
    /// Starts a thread that obeys `order`.
    ///
    /// # Errors
    /// When there is no thread or eventfd to be had. All other trouble is [`Progress`].
    pub fn spawn(setup: Setup, order: Arc<Order>) -> io::Result<(Self, watch::Receiver<Progress>)> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let (order, ended, hands_over) = (ArcSwap::new(order), AtomicBool::new(false), AtomicBool::new(false));
        let mailbox = Arc::new(Mailbox { order, ended, hands_over, wake });
        let (progress, receiver) = watch::channel(Ok(LinkReport::default()));
        let handle = Self { mailbox: Arc::clone(&mailbox) };
        // The kernel shows 15 bytes of a thread's name.
        let name = format!("link {}", setup.name);
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            if let Err(error) = thread::run(setup, &mailbox, &progress) {
                progress.send_modify(|progress| *progress = Err(error.to_string().into()));
            }
        })?;
        Ok((handle, receiver))
    }

    /// Gives the thread its latest order.
    pub fn order(&self, order: Arc<Order>) {
        self.mailbox.order.store(order);
        self.mailbox.ring();
    }

    /// Ends the thread. Before that it releases what it holds, so that others need not find out.
    pub fn hand_over(self) {
        self.mailbox.hands_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.mailbox.ended.store(true, Ordering::Release);
        self.mailbox.ring();
    }
}
