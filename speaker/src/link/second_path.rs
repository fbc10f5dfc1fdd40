//! Second path to the other speakers: UDP between the InternalIPs of the nodes. The claim machines
//! use it while frames of a peer are missing on a segment.
//!
//! The process has one [`SecondPath`], which the main loop configures. Its thread (`receiver`)
//! opens the sockets, and passes each valid datagram to the threads of all interfaces. Each of them
//! has a short queue, so that a flood delays no ARP or NDP reply. The threads of the interfaces
//! send by the same sockets.
//!
//! The thread also replies to the speakers that watch this node, and passes the replies of the
//! nodes that this node watches to [`crate::node_watch`].
//!
//! Each socket is bound to an InternalIP of this node. The other nodes therefore know the source of
//! the datagrams, and the port is open on no other address.

mod receiver;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::{ArcSwap, ArcSwapOption};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Flags, Frame, NodeWatch};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::node_failure::watcher::CHALLENGE_INTERVAL;
use ferrolb_speaker_core::plan::SecondPathConfig;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::ConfigMailbox;
use crate::metrics::{DatagramDrop, SecondPathMetrics};

/// Maximum number of datagrams in the queue of an interface's thread.
pub(super) const LINK_QUEUE_MAX: usize = 64;
/// Stack size of the thread, in bytes.
const STACK_SIZE: usize = 128 * 1024;
/// The address families, in the order of the sockets.
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The second path. Dropping it ends its thread.
#[derive(Debug)]
pub struct SecondPath {
    port: u16,
    metrics: SecondPathMetrics,
    config: ArcSwap<SecondPathConfig>,
    /// Open sockets, by position in [`FAMILIES`]. Only the thread writes them.
    sockets: [ArcSwapOption<UdpSocket>; 2],
    /// Queues of the interfaces' threads, by index of the interface.
    links: ArcSwap<BTreeMap<u32, LinkQueue>>,
    /// Name of this node.
    node: Box<str>,
    /// Random number that identifies this process in its messages to nodes that it watches.
    epoch: u64,
    /// Replies of the watched nodes.
    replies: mpsc::Sender<Frame>,
    /// True if this speaker stops.
    leaving: AtomicBool,
    /// True if kube-proxy was checked and works on this node.
    health_checked: AtomicBool,
    /// Wakes the thread after a change of `config`, when the speaker stops, and when the second
    /// path is dropped.
    wake: Arc<OwnedFd>,
}

/// Sending end of the queue of an interface's thread.
#[derive(Clone, Debug)]
struct LinkQueue {
    sender: SyncSender<Frame>,
    mailbox: Arc<ConfigMailbox>,
}

impl SecondPath {
    /// Creates the second path of the node `node` with this UDP port, and starts its thread, which
    /// sends the replies of watched nodes to `replies`.
    ///
    /// # Errors
    /// If the system refuses a thread, an eventfd or random numbers.
    pub fn start(
        port: u16,
        node: &str,
        metrics: SecondPathMetrics,
        replies: mpsc::Sender<Frame>,
    ) -> io::Result<Arc<Self>> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let second_path = Arc::new(Self {
            port,
            metrics,
            config: ArcSwap::default(),
            sockets: Default::default(),
            links: ArcSwap::default(),
            node: node.into(),
            epoch: getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?,
            replies,
            leaving: AtomicBool::new(false),
            health_checked: AtomicBool::new(false),
            wake: Arc::clone(&wake),
        });
        let shared = Arc::downgrade(&second_path);
        std::thread::Builder::new()
            .name("second path".into())
            .stack_size(STACK_SIZE)
            .spawn(move || receiver::run(&shared, &wake))?;
        Ok(second_path)
    }

    /// Replaces the configuration.
    pub fn set_config(&self, config: Arc<SecondPathConfig>) {
        self.config.store(config);
        self.wake();
    }

    /// Announces to the speakers that watch this node that its speaker stops.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        self.wake();
    }

    /// Sets whether the replies to the speakers that watch this node state that kube-proxy was
    /// checked and works here.
    pub fn set_health_checked(&self, health_checked: bool) {
        self.health_checked.store(health_checked, Ordering::Relaxed);
    }

    /// Sends a message to a node that this node watches. Each attempt uses the next key, because
    /// the other node may not have read the newest one.
    pub fn send_to_watched(&self, node: &str, message: NodeWatch, attempt: u32) {
        let keys = &self.config.load().keys;
        let ids = keys.ids();
        let position = usize::try_from(attempt).unwrap_or(0) % ids.len().max(1);
        if let Some(key) = ids.get(position).and_then(|id| keys.find(*id)) {
            self.send(node, &self.message(message).encode_datagram(key));
        }
    }

    fn message(&self, message: NodeWatch) -> Frame {
        Frame {
            node: self.node.clone(),
            epoch: self.epoch,
            clock: Clock::now().as_nanos(),
            claim_set: ClaimSetSummary::default(),
            interval: CHALLENGE_INTERVAL,
            detection_time: None,
            flags: Flags {
                leaving: self.leaving.load(Ordering::Acquire),
                health_checked: self.health_checked.load(Ordering::Relaxed),
                ..Flags::default()
            },
            body: Body::NodeWatch(message),
        }
    }

    /// Returns whether `address` is an InternalIP at which this node receives datagrams.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.config.load().own.contains(&address)
    }

    /// Returns the address of a node to which this node sends datagrams.
    pub(super) fn address_of(&self, node: &str) -> Option<IpAddr> {
        self.config.load().address_of(node)
    }

    /// Sends a datagram to a node.
    pub(super) fn send(&self, node: &str, datagram: &[u8]) {
        let send = |address: IpAddr| {
            let socket = self.sockets[position(Family::of(address))].load();
            socket.as_ref()?.send_to(datagram, (address, self.port)).ok()
        };
        let sent = match self.address_of(node).and_then(send) {
            Some(_) => &self.metrics.sent,
            None => self.metrics.dropped(DatagramDrop::SendRejected),
        };
        sent.inc();
    }

    /// Adds the thread of an interface, and returns its queue. The queue of an earlier thread of
    /// the interface ends.
    pub(super) fn add_link(&self, index: u32, mailbox: Arc<ConfigMailbox>) -> Receiver<Frame> {
        let (sender, receiver) = sync_channel(LINK_QUEUE_MAX);
        let queue = LinkQueue { sender, mailbox };
        self.links.rcu(|links| {
            let mut links = BTreeMap::clone(links);
            links.insert(index, queue.clone());
            links
        });
        receiver
    }

    /// Removes the thread of an interface.
    pub(super) fn remove_link(&self, index: u32) {
        self.links.rcu(|links| {
            let mut links = BTreeMap::clone(links);
            links.remove(&index);
            links
        });
    }

    /// Passes a valid datagram to the threads of all interfaces: the sender's name alone does not
    /// show on which segments it is.
    fn pass(&self, frame: &Frame) {
        for LinkQueue { sender, mailbox } in self.links.load().values() {
            match sender.try_send(frame.clone()) {
                Ok(()) => mailbox.wake(),
                Err(_) => {
                    self.metrics.dropped(DatagramDrop::LinkQueue).inc();
                }
            }
        }
    }

    fn wake(&self) {
        // A write fails only if the eventfd's counter is full, and then the eventfd wakes the
        // thread anyway.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for SecondPath {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Returns the position of a family in [`FAMILIES`].
const fn position(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
