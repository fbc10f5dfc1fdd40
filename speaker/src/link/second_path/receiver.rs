//! Thread of the second path: opens its sockets, reads datagrams, and verifies them. The thread
//! owns the limits on reading, and ends when the [`SecondPath`] is dropped.
//!
//! It also replies to challenges of speakers that watch this node. A reply shows that the node
//! runs; the threads of the interfaces show by their own frames that they do.
//!
//! A datagram must come from an InternalIP of the Node that it names, have a valid signature, and
//! be within the rate limit of its source. Reading takes at most half of one processor
//! ([`CpuBudget`]).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::{Body, DATAGRAM_MAX, Frame, NodeWatch};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use tracing::{debug, info, warn};

use super::{FAMILIES, SecondPath, position};
use crate::link::LinkError;
use crate::link::flood::{CpuBudget, HELLOS_PER_SECOND_MAX};
use crate::link::rx_queue::BURST_MAX;
use crate::link::socket::wait_readable;
use crate::metrics::DatagramDrop;

/// Maximum number of datagrams that one node may send per second.
const DATAGRAMS_PER_SECOND_MAX: u32 = HELLOS_PER_SECOND_MAX;
/// Number of copies of the report that this speaker stops. One of them may be lost.
const STOP_COPIES: usize = 2;
/// Period in which the datagrams of a source are counted.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// State of the thread.
#[derive(Default)]
struct Receiver {
    /// State of the sockets, by position in [`FAMILIES`].
    ports: [Port; 2],
    budget: CpuBudget,
    rates: SourceRates,
    /// Latest challenges of the speakers that watch this node, at most one more than there are
    /// known sources.
    challengers: BTreeMap<IpAddr, NodeChallenge>,
    /// True if the challengers have received the report that this speaker stops.
    has_left: bool,
}

/// Challenge of a speaker that watches this node.
#[derive(Clone, Copy)]
struct NodeChallenge {
    nonce: u64,
    /// ID of the key that signs the challenge and its reply.
    key: u32,
    /// Epoch and clock of the frame.
    sent: (u64, u64),
}

impl NodeChallenge {
    /// Returns whether this challenge replaces an earlier one of its source. A copy of an older
    /// frame of the same epoch does not. Epochs are random, and have no order.
    const fn replaces(&self, earlier: &Self) -> bool {
        let ((epoch, clock), (earlier_epoch, earlier_clock)) = (self.sent, earlier.sent);
        epoch != earlier_epoch || clock > earlier_clock
    }
}

/// State of the socket of one family.
#[derive(Default)]
struct Port {
    /// Address to which the socket is bound, or was last attempted to be bound.
    address: Option<IpAddr>,
    /// Time of the next attempt to open the socket. None: it is open or not wanted.
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// True if the latest attempt has failed.
    has_failed: bool,
    /// Number of datagrams that the kernel has dropped since the socket was opened, as far as they
    /// are counted.
    kernel_drops: u32,
}

/// Number of datagrams of each source in the current period. Only sources that are known are
/// counted, so their number is limited by the number of Nodes.
#[derive(Debug, Default)]
struct SourceRates {
    counts: BTreeMap<IpAddr, u32>,
    period_end: Instant,
}

impl SourceRates {
    /// Counts a datagram. Returns whether the source is within its limit.
    fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.period_end <= now {
            self.period_end = now + RATE_PERIOD;
            self.counts.clear();
        }
        let count = self.counts.entry(source).or_default();
        *count = count.saturating_add(1);
        *count <= DATAGRAMS_PER_SECOND_MAX
    }
}

/// Runs the thread until the second path is dropped.
pub(super) fn run(second_path: &Weak<SecondPath>, wake: &OwnedFd) {
    let mut receiver = Receiver::default();
    while let Some(shared) = second_path.upgrade() {
        receiver.open_sockets(&shared);
        let sockets = shared.sockets.each_ref().map(arc_swap::ArcSwapAny::load_full);
        drop(shared);
        let ready = match receiver.wait(&sockets, wake) {
            Ok(ready) => ready,
            Err(error) => {
                warn!(%error, "speakers no longer receive UDP datagrams of each other: restart \
                       this speaker");
                return;
            }
        };
        let Some(shared) = second_path.upgrade() else { return };
        receiver.announce_stop(&shared);
        for (position, socket) in sockets.iter().enumerate() {
            if let Some(socket) = socket.as_deref().filter(|_| ready[position]) {
                receiver.read(socket, position, &shared);
            }
        }
    }
}

impl Receiver {
    /// Opens the sockets that are missing or whose address has changed, as far as it is time.
    fn open_sockets(&mut self, shared: &SecondPath) {
        let config = shared.config.load_full();
        for ((port, slot), family) in self.ports.iter_mut().zip(&shared.sockets).zip(FAMILIES) {
            let now = Clock::now();
            let wanted = config.own_address(family);
            if wanted != port.address {
                slot.store(None);
                *port = Port { address: wanted, retry_at: wanted.map(|_| now), ..Port::default() };
            }
            let (Some(address), Some(_)) = (wanted, port.retry_at.filter(|at| *at <= now)) else {
                continue;
            };
            port.open(slot, (address, shared.port), now);
        }
    }

    /// Waits for a datagram, a change of the configuration or a deadline. Returns which sockets are
    /// readable.
    fn wait(
        &self,
        sockets: &[Option<Arc<UdpSocket>>; 2],
        wake: &OwnedFd,
    ) -> Result<[bool; 2], LinkError> {
        let now = Clock::now();
        let paused_until = self.budget.deadline(now);
        let retries = self.ports.iter().filter_map(|port| port.retry_at);
        let deadline = retries.chain(paused_until).min();
        let socket = |position: usize| match &sockets[position] {
            Some(socket) => (socket.as_fd(), paused_until.is_none()),
            None => (wake.as_fd(), false),
        };
        let descriptors = [socket(0), socket(1), (wake.as_fd(), true)];
        let timeout = deadline.map(|deadline| deadline.since(now));
        let [first, second, woken] = wait_readable(descriptors, timeout)?;
        if woken {
            // Resets the eventfd. The change itself is in the configuration.
            let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        }
        Ok([first, second])
    }

    /// Reads a burst of datagrams.
    fn read(&mut self, socket: &UdpSocket, position: usize, shared: &SecondPath) {
        let start = Clock::now();
        // One byte more than a valid datagram has, so that a longer one is detected.
        let mut buffer = [0; DATAGRAM_MAX + 1];
        for _ in 0..BURST_MAX {
            // An error is about an earlier datagram, or no datagram is queued.
            let Ok((length, source)) = socket.recv_from(&mut buffer) else { break };
            let datagram = &buffer[..length];
            match self.verify(datagram, source.ip(), shared) {
                Ok(frame) => {
                    shared.metrics.received.inc();
                    let key = Frame::key_of_datagram(datagram);
                    self.handle(frame, source.ip(), key.unwrap_or_default(), shared);
                }
                Err(reason) => {
                    shared.metrics.dropped(reason).inc();
                }
            }
        }
        self.budget.charge(start, Clock::now());
        let port = &mut self.ports[position];
        let drops = kernel_drops(socket).unwrap_or(port.kernel_drops);
        let new = drops.wrapping_sub(std::mem::replace(&mut port.kernel_drops, drops));
        shared.metrics.dropped(DatagramDrop::Kernel).inc_by(new.into());
    }

    /// Passes a frame to its destination, and replies to a challenge at once.
    fn handle(&mut self, frame: Frame, source: IpAddr, key: u32, shared: &SecondPath) {
        match frame.body {
            Body::NodeWatch(NodeWatch::Challenge(nonce)) => {
                let challenge = NodeChallenge { nonce, key, sent: (frame.epoch, frame.clock) };
                let sources = &shared.config.load().sources;
                if self.challengers.len() > sources.len() {
                    self.challengers.retain(|source, _| sources.contains(source));
                }
                if self.challengers.get(&source).is_none_or(|known| challenge.replaces(known)) {
                    self.challengers.insert(source, challenge);
                }
                reply(source, challenge, shared);
            }
            Body::NodeWatch(NodeWatch::Reply(_)) => {
                if shared.replies.try_send(frame).is_err() {
                    shared.metrics.dropped(DatagramDrop::LinkQueue).inc();
                }
            }
            Body::Hello { .. }
            | Body::Claim(_)
            | Body::Release { .. }
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::PathReport { .. } => shared.pass(&frame),
        }
    }

    /// Announces once that this speaker stops, to the speakers that watch this node.
    fn announce_stop(&mut self, shared: &SecondPath) {
        if !shared.leaving.load(Ordering::Acquire) || std::mem::replace(&mut self.has_left, true) {
            return;
        }
        for _ in 0..STOP_COPIES {
            self.challengers
                .iter()
                .for_each(|(source, challenge)| reply(*source, *challenge, shared));
        }
    }

    fn verify(
        &mut self,
        datagram: &[u8],
        source: IpAddr,
        shared: &SecondPath,
    ) -> Result<Frame, DatagramDrop> {
        let config = shared.config.load();
        if !config.sources.contains(&source) {
            return Err(DatagramDrop::UnknownSource);
        }
        let frame = Frame::decode_datagram(datagram, &config.keys)?;
        let node = config.nodes.get(&*frame.node);
        if !node.is_some_and(|node| node.addresses.contains(&source)) {
            return Err(DatagramDrop::UnknownSource);
        }
        // A host without a hello key can only replay, so a forged source alone costs the node none
        // of its datagrams.
        if !self.rates.admits(source, Clock::now()) {
            return Err(DatagramDrop::RateLimit);
        }
        Ok(frame)
    }
}

impl Port {
    /// Opens the socket, or schedules the next attempt. Logs the first of consecutive failures as a
    /// warning.
    fn open(
        &mut self,
        slot: &arc_swap::ArcSwapOption<UdpSocket>,
        (address, port): (IpAddr, u16),
        now: Instant,
    ) {
        match bind(address, port) {
            Ok(socket) => {
                slot.store(Some(Arc::new(socket)));
                (self.retry_at, self.has_failed) = (None, false);
                info!(%address, port, "UDP port for challenges of other speakers is open");
            }
            Err(error) => {
                self.retry_at = Some(now + self.backoff.next_delay(now));
                if !std::mem::replace(&mut self.has_failed, true) {
                    warn!(%address, port, %error, "cannot open the UDP port for challenges of other \
                           speakers, retrying: if another program uses it, stop that program, or \
                           set --challenge-port to another port on all nodes");
                } else {
                    debug!(%address, port, %error, "cannot open the UDP port for challenges");
                }
            }
        }
    }
}

/// Replies to a challenge, with the key that signs the challenge. All speakers have the same port,
/// so the reply to a copy from another port reaches the speaker.
fn reply(source: IpAddr, challenge: NodeChallenge, shared: &SecondPath) {
    let NodeChallenge { nonce, key, .. } = challenge;
    let config = shared.config.load();
    let socket = shared.sockets[position(Family::of(source))].load();
    let (Some(key), Some(socket)) = (config.keys.find(key), socket.as_ref()) else { return };
    let datagram = shared.message(NodeWatch::Reply(nonce)).encode_datagram(key);
    let sent = match socket.send_to(&datagram, (source, shared.port)) {
        Ok(_) => &shared.metrics.sent,
        Err(_) => shared.metrics.dropped(DatagramDrop::SendRejected),
    };
    sent.inc();
}

fn bind(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Returns the number of datagrams that the kernel has dropped because the socket's queue was full.
fn kernel_drops(socket: &UdpSocket) -> Option<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut values = [0_u32; DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    #[expect(unsafe_code, reason = "no safe wrapper reads SO_MEMINFO")]
    // SAFETY: the option writes at most `length` bytes of `values`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0).then(|| values[DROPS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_an_older_challenge_of_the_epoch_replaces_none() {
        let challenge = |epoch, clock| NodeChallenge { nonce: 0, key: 0, sent: (epoch, clock) };
        for (sent, replaces) in
            [((7, 101), true), ((7, 100), false), ((7, 99), false), ((8, 1), true)]
        {
            let (epoch, clock) = sent;
            assert_eq!(challenge(epoch, clock).replaces(&challenge(7, 100)), replaces, "{sent:?}");
        }
    }

    #[test]
    fn each_source_has_a_limit_of_its_own() {
        let (mut rates, start) = (SourceRates::default(), Instant::from_millis(5_000));
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let admitted = |rates: &mut SourceRates, source, now| {
            (0..2 * DATAGRAMS_PER_SECOND_MAX).filter(|_| rates.admits(source, now)).count()
        };
        let limit = DATAGRAMS_PER_SECOND_MAX as usize;
        assert_eq!(admitted(&mut rates, one, start), limit);
        assert!(rates.admits(two, start), "another source has sent nothing");
        assert!(!rates.admits(one, start + RATE_PERIOD / 2));
        assert_eq!(admitted(&mut rates, one, start + RATE_PERIOD), limit);
        assert_eq!(rates.counts.len(), 1, "counts of the previous period are dropped");
    }
}
