//! The loop of a link's thread: wait for a frame, an order or a deadline; feed the claim machine; do what it says.
//!
//! What is due by the clock goes first, because an answer is legal only while our own last hello is young; then questions,
//! then hellos. Nothing on the answer path allocates, locks or logs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferrolb_proto::claim::{Claims, Counts, Input, Output};
use ferrolb_proto::wire::hello::{self, DecodeError, Frame, KeyRing};
use ferrolb_proto::wire::{Mac, arp};
use ferrolb_proto::{Instant, Machine};
use ferrolb_runtime::clock::Clock;
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;

use super::announce::{Announcer, FRAMES_PER_ANNOUNCEMENT};
use super::answer::{Meaning, read};
use super::socket::PacketSocket;
use super::{LinkError, Mailbox, Progress, Setup};
use crate::event::LinkReport;
use crate::metrics::Drop;
use crate::plan::Order;

/// Frames of one kind that are read before the clock and the other socket get their turn.
const BURST_MAX: usize = 64;
/// How often the kernel is asked how many frames it dropped.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a probe its answer is listened for.
const PROBE_LIFETIME: Duration = Duration::from_secs(2);

/// What the thread owns.
struct Thread<'a> {
    setup: Setup,
    progress: &'a watch::Sender<Progress>,
    arp: PacketSocket,
    hello: PacketSocket,
    order: Arc<Order>,
    keys: KeyRing,
    claims: Claims,
    /// The machine's answer, which changes only when the machine is called.
    deadline: Option<Instant>,
    /// What questions are answered for.
    held: BTreeSet<Ipv4Addr>,
    announcer: Announcer,
    /// Hosts whose ARP answer is of interest, and until when.
    probed: BTreeMap<Mac, Instant>,
    counted: Counts,
    statistics_at: Instant,
    /// The machine was called since the last report.
    changed: bool,
    left: bool,
}

/// Runs until the mailbox says that it is over.
pub(super) fn run(setup: Setup, mailbox: &Mailbox, progress: &watch::Sender<Progress>) -> Result<(), LinkError> {
    let open = |ether_type| PacketSocket::open(setup.index, ether_type).map_err(LinkError::Open);
    let (arp, hello) = (open(arp::ETHER_TYPE)?, open(hello::ETHER_TYPE)?);
    hello.join(hello::GROUP).map_err(LinkError::Open)?;
    let now = Clock::now();
    let mut thread = Thread {
        claims: Claims::new(setup.claims.clone(), now),
        setup,
        progress,
        arp,
        hello,
        order: Arc::default(),
        keys: KeyRing::default(),
        deadline: None,
        held: BTreeSet::new(),
        announcer: Announcer::default(),
        probed: BTreeMap::new(),
        counted: Counts::default(),
        statistics_at: now,
        changed: true,
        left: false,
    };
    let mut buffer = [0; hello::FRAME_MAX];
    while !mailbox.ended.load(Ordering::Relaxed) {
        thread.turn(mailbox, &mut buffer)?;
        thread.wait(mailbox)?;
    }
    Ok(())
}

impl Thread<'_> {
    /// Does all that can be done now.
    fn turn(&mut self, mailbox: &Mailbox, buffer: &mut [u8]) -> Result<(), LinkError> {
        let now = Clock::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.claims.tick(now);
            self.obey(now)?;
        }
        self.read_arp(buffer)?;
        self.read_hellos(buffer)?;
        self.take_order(mailbox)?;
        self.announce()?;
        if self.changed {
            self.count();
            self.report();
            self.changed = false;
        }
        if now >= self.statistics_at {
            self.statistics_at = now + STATISTICS_INTERVAL;
            self.count_kernel_drops()?;
        }
        Ok(())
    }

    fn wait(&self, mailbox: &Mailbox) -> Result<(), LinkError> {
        let deadline = self.deadline.into_iter().chain(self.announcer.deadline()).min();
        let timeout = deadline.map(|deadline| {
            let wait = deadline.since(Clock::now());
            Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() }
        });
        let mut fds = [
            PollFd::new(&self.arp, PollFlags::IN),
            PollFd::new(&self.hello, PollFlags::IN),
            PollFd::new(&mailbox.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LinkError::Wait(error.into())),
        }
        if !fds[2].revents().is_empty() {
            // Only to have it empty: what it rings for is in the mailbox.
            let _ = rustix::io::read(&mailbox.wake, &mut [0_u8; 8]);
        }
        Ok(())
    }

    fn read_arp(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        for _ in 0..BURST_MAX {
            let Some(frame) = self.arp.receive(buffer).map_err(LinkError::Gone)? else { break };
            match read(frame, self.setup.mac, &self.held) {
                Meaning::Asked(answer) if Clock::now() < self.claims.gate() => {
                    send(&self.arp, &answer, &self.setup.metrics.answered, self.setup.metrics.dropped(Drop::Send))?;
                }
                Meaning::Asked(_) => {
                    self.setup.metrics.dropped(Drop::Gate).inc();
                }
                Meaning::Answered(mac) => {
                    let now = Clock::now();
                    if self.probed.get(&mac).is_some_and(|until| now < *until) {
                        self.feed(Input::ArpAnswer(mac), now)?;
                    }
                }
                Meaning::Nothing => {}
            }
        }
        Ok(())
    }

    fn read_hellos(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        for _ in 0..BURST_MAX {
            let Some(bytes) = self.hello.receive(buffer).map_err(LinkError::Gone)? else { break };
            let reason = match Frame::decode(bytes, &self.keys) {
                Ok((source, frame)) => {
                    self.feed(Input::Frame { source, frame }, Clock::now())?;
                    continue;
                }
                Err(DecodeError::Malformed) => Drop::Malformed,
                Err(DecodeError::Version) => Drop::Version,
                Err(DecodeError::ForeignKey) => Drop::ForeignKey,
                Err(DecodeError::Signature) => Drop::Signature,
            };
            self.setup.metrics.dropped(reason).inc();
        }
        Ok(())
    }

    fn take_order(&mut self, mailbox: &Mailbox) -> Result<(), LinkError> {
        let order = mailbox.order.load_full();
        if Arc::ptr_eq(&order, &self.order) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.order, Arc::clone(&order));
        let now = Clock::now();
        if order.keys != before.keys {
            self.keys = order.keys.clone();
            self.feed(Input::Keys(self.keys.ids()), now)?;
        }
        if order.units != before.units {
            self.feed(Input::Units(order.units.clone()), now)?;
        }
        if order.leaving && !before.leaving {
            self.feed(Input::Leave, now)?;
        }
        Ok(())
    }

    fn feed(&mut self, input: Input, now: Instant) -> Result<(), LinkError> {
        self.claims.handle(input, now);
        self.obey(now)
    }

    fn obey(&mut self, now: Instant) -> Result<(), LinkError> {
        while let Some(output) = self.claims.poll() {
            match output {
                Output::Send { to, frame } => self.send_hello(to, &frame)?,
                Output::Start(address) | Output::Refresh(address) => {
                    if let IpAddr::V4(address) = address {
                        self.held.insert(address);
                        self.announcer.start(address, now);
                    }
                }
                Output::Stop(address) => {
                    if let IpAddr::V4(address) = address {
                        self.held.remove(&address);
                        self.announcer.stop(address);
                    }
                }
                Output::Probe { address, mac } => self.probe(address, mac, now)?,
                Output::Left => self.left = true,
            }
        }
        self.deadline = self.claims.deadline();
        self.changed = true;
        Ok(())
    }

    fn send_hello(&self, to: Option<Mac>, frame: &Frame) -> Result<(), LinkError> {
        let Some(key) = self.keys.signing() else { return Ok(()) };
        let metrics = &self.setup.metrics;
        send(&self.hello, &frame.encode(self.setup.mac, to, key), &metrics.sent, metrics.dropped(Drop::Send))
    }

    /// Asks for `address` without saying who asks (RFC 5227 section 1.1), so that no cache learns anything from it.
    fn probe(&mut self, address: IpAddr, mac: Mac, now: Instant) -> Result<(), LinkError> {
        self.probed.retain(|_, until| now < *until);
        self.probed.insert(mac, now + PROBE_LIFETIME);
        let IpAddr::V4(address) = address else { return Ok(()) };
        let metrics = &self.setup.metrics;
        let question = arp::request(self.setup.mac, Ipv4Addr::UNSPECIFIED, address);
        send(&self.arp, &question, &metrics.sent, metrics.dropped(Drop::Send))
    }

    fn announce(&mut self) -> Result<(), LinkError> {
        let metrics = &self.setup.metrics;
        for _ in 0..BURST_MAX {
            let Some(address) = self.announcer.next(Clock::now()) else { break };
            let forms = [arp::gratuitous_request, arp::gratuitous_reply];
            const _: () = assert!(FRAMES_PER_ANNOUNCEMENT == 2, "one frame of each form");
            for form in forms {
                let frame = form(self.setup.mac, address);
                send(&self.arp, &frame, &metrics.gratuitous, metrics.dropped(Drop::Send))?;
            }
        }
        Ok(())
    }

    /// Brings the metrics up to the machine's counters.
    fn count(&mut self) {
        let (now, before, metrics) = (self.claims.counts(), self.counted, &self.setup.metrics);
        metrics.suspicions.inc_by(now.suspicions - before.suspicions);
        metrics.refuted.inc_by(now.refuted - before.refuted);
        metrics.deaths.inc_by(now.deaths - before.deaths);
        metrics.fences.inc_by(now.fences - before.fences);
        metrics.conflicts.inc_by(now.conflicts - before.conflicts);
        metrics.dropped(Drop::Stale).inc_by(now.stale_frames - before.stale_frames);
        metrics.dropped(Drop::Unproven).inc_by(now.unproven - before.unproven);
        metrics.dropped(Drop::OwnName).inc_by(now.own_name - before.own_name);
        metrics.dropped(Drop::Limit).inc_by(now.over_limit - before.over_limit);
        self.counted = now;
    }

    fn count_kernel_drops(&self) -> Result<(), LinkError> {
        for (socket, reason) in [(&self.arp, Drop::KernelArp), (&self.hello, Drop::KernelHello)] {
            let dropped = socket.dropped().map_err(LinkError::Gone)?;
            self.setup.metrics.dropped(reason).inc_by(dropped);
        }
        Ok(())
    }

    /// Says what is done here, if it is not what was said before.
    fn report(&self) {
        self.progress.send_if_modified(|progress| {
            let Ok(before) = progress else { return false };
            let same = before.left == self.left
                && before.heard.iter().map(|name| &**name).eq(self.claims.heard())
                && before.held.iter().copied().eq(self.claims.held());
            if same {
                return false;
            }
            let heard: Vec<Box<str>> = self.claims.heard().map(Into::into).collect();
            let held: Arc<[IpAddr]> = self.claims.held().collect();
            self.setup.metrics.heard.set(i64::try_from(heard.len()).unwrap_or(i64::MAX));
            self.setup.metrics.owned.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
            *progress = Ok(LinkReport { heard, held, left: self.left });
            true
        });
    }
}

/// Sends a frame and counts it. A full queue drops it; a link that takes no frames any more is an error.
fn send(socket: &PacketSocket, frame: &[u8], sent: &Counter, dropped: &Counter) -> Result<(), LinkError> {
    match socket.send(frame) {
        Ok(()) => {
            sent.inc();
            Ok(())
        }
        Err(error) if is_gone(&error) => Err(LinkError::Gone(error)),
        Err(_) => {
            dropped.inc();
            Ok(())
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO))
}
