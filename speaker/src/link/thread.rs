//! The loop of a link's thread: wait for a frame, an order or a deadline; feed the claim machine; do what it says.
//!
//! What is due by the clock goes first, because an answer is legal only while our own last hello is young; then hellos, then
//! questions. Nothing on the answer path allocates, locks or logs.

use std::collections::BTreeSet;
use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferrolb_proto::claim::{Claims, Input, Output};
use ferrolb_proto::wire::arp::Arp;
use ferrolb_proto::wire::hello::{self, DecodeError, Frame, KeyRing};
use ferrolb_proto::wire::ndp::{self, Ndp};
use ferrolb_proto::wire::{Mac, arp};
use ferrolb_proto::{Instant, Machine};
use ferrolb_runtime::clock::Clock;
use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::watch;

use super::announce::{Announcer, FRAMES_PER_ANNOUNCEMENT};
use super::answer::{Meaning, read_arp, read_ndp};
use super::filter;
use super::flood::{HELLOS_PER_SECOND_MAX, QUESTIONS_PER_SECOND_MAX, Quota};
use super::heard::Ears;
use super::inlet::Inlet;
use super::report::Reporter;
use super::socket::PacketSocket;
use super::{LinkError, Mailbox, Progress, Setup};
use crate::metrics::Drop;
use crate::plan::Order;

/// Frames of one kind that are read before the clock and the other socket get their turn.
const BURST_MAX: usize = 64;
/// How often the kernel is asked how many frames it dropped.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// What the thread owns.
struct Thread<'a> {
    setup: Setup,
    reporter: Reporter<'a>,
    arp: Inlet,
    ndp: Inlet,
    hello: Inlet,
    /// How much may be read by the first two.
    quota: Quota,
    /// How much may be read by the third: questions must not keep hellos out.
    hello_quota: Quota,
    order: Arc<Order>,
    keys: KeyRing,
    claims: Claims,
    /// The machine's answer, which changes only when the machine is called.
    deadline: Option<Instant>,
    /// What questions are answered for.
    held: BTreeSet<Ipv4Addr>,
    held_v6: BTreeSet<Ipv6Addr>,
    announcer: Announcer,
    ears: Ears,
    /// The main loop stands still, as the machine was told.
    stuck: bool,
    statistics_at: Instant,
    /// The kernel dropped hellos since the machine was last told.
    lost_hellos: bool,
    /// The machine was called since the last report.
    changed: bool,
    left: bool,
}

/// Runs until the mailbox says that it is over.
pub(super) fn run(setup: Setup, mailbox: &Mailbox, progress: &watch::Sender<Progress>) -> Result<(), LinkError> {
    let inlet = |ether_type, most, filter: fn(u32) -> _| {
        Inlet::open(setup.index, ether_type, most, filter).map_err(LinkError::Open)
    };
    let arp = inlet(arp::ETHER_TYPE, QUESTIONS_PER_SECOND_MAX, filter::all)?;
    let ndp = inlet(ndp::ETHER_TYPE, QUESTIONS_PER_SECOND_MAX, filter::neighbours)?;
    let hello = inlet(hello::ETHER_TYPE, HELLOS_PER_SECOND_MAX, filter::all)?;
    hello.socket.join(hello::GROUP).map_err(LinkError::Open)?;
    let now = Clock::now();
    let mut thread = Thread {
        claims: Claims::new(setup.claims.clone(), now),
        reporter: Reporter::new(progress, setup.metrics.clone()),
        announcer: Announcer::new(setup.gratuitous_interval),
        setup,
        arp,
        ndp,
        hello,
        quota: Quota::new(),
        hello_quota: Quota::new(),
        order: Arc::default(),
        keys: KeyRing::default(),
        deadline: None,
        held: BTreeSet::new(),
        held_v6: BTreeSet::new(),
        ears: Ears::default(),
        stuck: false,
        statistics_at: now,
        lost_hellos: false,
        changed: true,
        left: false,
    };
    let mut buffer = [0; hello::FRAME_MAX];
    while !mailbox.ended.load(Ordering::Acquire) {
        thread.turn(mailbox, &mut buffer)?;
        thread.wait(mailbox)?;
    }
    if mailbox.hands_over.load(Ordering::Relaxed) {
        thread.feed(Input::End, Clock::now())?;
        thread.reporter.report(&thread.claims, thread.left);
    }
    Ok(())
}

impl Thread<'_> {
    /// Does all that can be done now.
    fn turn(&mut self, mailbox: &Mailbox, buffer: &mut [u8]) -> Result<(), LinkError> {
        let now = Clock::now();
        if self.setup.vitals.is_alive(now) == self.stuck {
            self.stuck = !self.stuck;
            self.feed(Input::Stuck(self.stuck), now)?;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.tick(now)?;
        }
        // First what members say: who claims an address announces it next, and would be taken for a kernel that answers.
        self.read_hellos(buffer)?;
        self.read_questions(buffer)?;
        self.take_order(mailbox)?;
        self.announce()?;
        if self.changed {
            self.reporter.count(&self.claims);
            self.reporter.report(&self.claims, self.left);
            self.changed = false;
        }
        if now >= self.statistics_at {
            self.statistics_at = now + STATISTICS_INTERVAL;
            self.count_kernel_drops()?;
        }
        Ok(())
    }

    /// Lets time pass. What was heard since is told first: silence is judged by it.
    fn tick(&mut self, now: Instant) -> Result<(), LinkError> {
        if std::mem::take(&mut self.ears.heard) {
            self.claims.handle(Input::Heard, now);
        }
        if self.claims.suspects() {
            self.count_kernel_drops()?;
        }
        if std::mem::take(&mut self.lost_hellos) {
            self.claims.handle(Input::Lost, now);
        }
        self.claims.tick(now);
        self.obey(now)
    }

    fn wait(&mut self, mailbox: &Mailbox) -> Result<(), LinkError> {
        let watchdog = (!self.stuck).then(|| self.setup.vitals.dead_at());
        let quotas = [self.quota.deadline(), self.hello_quota.deadline()];
        let guards = [self.arp.deadline(), self.ndp.deadline(), self.hello.deadline()];
        let deadlines = [self.deadline, self.announcer.deadline(), watchdog].into_iter().chain(quotas).chain(guards);
        let deadline = deadlines.flatten().min();
        let timeout = deadline.map(|deadline| {
            let wait = deadline.since(Clock::now());
            Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() }
        });
        let [questions, hellos] =
            quotas.map(|closed| if closed.is_none() { PollFlags::IN } else { PollFlags::empty() });
        let mut fds = [
            PollFd::new(&self.arp.socket, questions),
            PollFd::new(&self.ndp.socket, questions),
            PollFd::new(&self.hello.socket, hellos),
            PollFd::new(&mailbox.wake, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LinkError::Wait(error.into())),
        }
        let rung;
        [self.arp.ready, self.ndp.ready, self.hello.ready, rung] = fds.map(|fd| !fd.revents().is_empty());
        if rung {
            // Only to have it empty: what it rings for is in the mailbox.
            let _ = rustix::io::read(&mailbox.wake, &mut [0_u8; 8]);
        }
        Ok(())
    }

    fn read_questions(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        self.read_arp(buffer)?;
        self.read_ndp(buffer)?;
        // A burst of none is a turn that has not yet waited for frames, as after a rest; a full one leaves some behind.
        let all_was_read = (1..BURST_MAX).contains(&self.arp.burst.max(self.ndp.burst));
        if all_was_read && (self.arp.rests() || self.ndp.rests()) {
            self.quota.rest(Clock::now());
        }
        Ok(())
    }

    fn read_arp(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let start = Clock::now();
        if !self.arp.begin(start, &mut self.quota, iter::empty()).map_err(LinkError::Open)? {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let Some(frame) = self.arp.receive(buffer).map_err(LinkError::Gone)? else { break };
            let Some(arp) = Arp::decode(frame) else { continue };
            self.hear(arp.sender_mac, arp.sender.into())?;
            let checked = |address| self.ears.is_checked(address, Clock::now);
            let meaning = read_arp(frame, &arp, self.setup.mac, &self.held, checked);
            self.heed(meaning, |thread| &thread.arp.socket, buffer)?;
        }
        self.arp.end(start, &mut self.quota, iter::empty(), &self.setup).map_err(LinkError::Open)
    }

    fn read_ndp(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let start = Clock::now();
        if !self.ndp.begin(start, &mut self.quota, iter::empty()).map_err(LinkError::Open)? {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let Some(frame) = self.ndp.receive(buffer).map_err(LinkError::Gone)? else { break };
            let Some(ndp) = Ndp::decode(frame) else { continue };
            self.hear(ndp.source, ndp.sender.into())?;
            let checked = |address| self.ears.is_checked(address, Clock::now);
            let meaning = read_ndp(&ndp, self.setup.mac, &self.held_v6, checked);
            self.heed(meaning, |thread| &thread.ndp.socket, buffer)?;
        }
        self.ndp.end(start, &mut self.quota, iter::empty(), &self.setup).map_err(LinkError::Open)
    }

    /// Someone is there. The frame that ends deafness is answered if it asks.
    fn hear(&mut self, mac: Mac, sender: IpAddr) -> Result<(), LinkError> {
        let is_witness = self.claims.is_witness(mac, sender) && !self.order.macs.contains(&mac);
        self.ears.note(mac, sender, is_witness);
        if self.claims.is_deaf() { self.feed(Input::Heard, Clock::now()) } else { Ok(()) }
    }

    /// Does what a frame asks for; the answer goes out of the socket that it came in by.
    fn heed<const N: usize>(
        &mut self,
        meaning: Meaning<N>,
        socket: fn(&Self) -> &PacketSocket,
        buffer: &mut [u8],
    ) -> Result<(), LinkError> {
        match meaning {
            Meaning::Asked(answer) if Clock::now() < self.claims.gate() => {
                let metrics = &self.setup.metrics;
                send(socket(self), &answer, &metrics.answered, metrics.dropped(Drop::Send))?;
            }
            Meaning::Wanted(address) if Clock::now() < self.claims.gate() => {
                if self.announcer.once(address.into()) {
                    self.setup.metrics.answered.inc();
                }
            }
            Meaning::Asked(_) | Meaning::Wanted(_) => {
                self.setup.metrics.dropped(Drop::Gate).inc();
            }
            Meaning::Foreign { address, mac, announced } if !self.order.macs.contains(&mac) => {
                // The claim behind it may have come since the last look.
                self.hello.ready = true;
                self.read_hellos(buffer)?;
                self.feed(Input::Foreign { address, mac, announced }, Clock::now())?;
            }
            Meaning::Answered { address, mac } | Meaning::Foreign { address, mac, .. } => {
                let now = Clock::now();
                if self.ears.is_probed(mac, address, now) {
                    self.feed(Input::ArpAnswer(mac), now)?;
                }
            }
            Meaning::Nothing => {}
        }
        Ok(())
    }

    fn read_hellos(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let start = Clock::now();
        let known = self.claims.macs().chain(self.order.macs.iter().copied());
        if !self.hello.begin(start, &mut self.hello_quota, known).map_err(LinkError::Open)? {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let Some(bytes) = self.hello.receive(buffer).map_err(LinkError::Gone)? else { break };
            let reason = match Frame::decode(bytes, &self.keys) {
                Ok((source, frame)) => {
                    let input = self.meaning(source, frame);
                    self.feed(input, Clock::now())?;
                    continue;
                }
                Err(DecodeError::Malformed) => Drop::Malformed,
                Err(DecodeError::Version) => Drop::Version,
                Err(DecodeError::ForeignKey) => Drop::ForeignKey,
                Err(DecodeError::Signature) => Drop::Signature,
            };
            self.setup.metrics.dropped(reason).inc();
        }
        let known = self.claims.macs().chain(self.order.macs.iter().copied());
        self.hello.end(start, &mut self.hello_quota, known, &self.setup).map_err(LinkError::Open)?;
        if (1..BURST_MAX).contains(&self.hello.burst) && self.hello.rests() {
            self.hello_quota.rest(Clock::now());
        }
        Ok(())
    }

    /// A frame of this node's own name may come from another link of it that is on this wire.
    fn meaning(&self, source: Mac, frame: Frame) -> Input {
        let own = *frame.node == *self.setup.claims.node;
        let precedes = || self.setup.siblings.precedes(frame.epoch, self.setup.claims.epoch);
        match own.then(precedes).flatten() {
            Some(precedes) => Input::Sibling { precedes },
            None => Input::Frame { source, frame },
        }
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
        if order.says != before.says {
            self.feed(Input::Says(order.says), now)?;
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
                Output::Send { to, key, frame } => self.send_hello(to, key, &frame)?,
                Output::Start(address) | Output::Refresh(address) => {
                    match address {
                        IpAddr::V4(address) => self.held.insert(address),
                        IpAddr::V6(address) => self.held_v6.insert(address),
                    };
                    self.announcer.start(address, now);
                }
                Output::Defend(address) => {
                    self.announcer.once(address);
                }
                Output::Stop(address) => {
                    match address {
                        IpAddr::V4(address) => self.held.remove(&address),
                        IpAddr::V6(address) => self.held_v6.remove(&address),
                    };
                    self.announcer.stop(address);
                }
                Output::Probe { address, mac } => self.probe(address, mac, now)?,
                Output::Check(address) => self.check(address, now)?,
                Output::AskAround => self.ask_around()?,
                Output::TookOver(silence) => self.setup.metrics.failover.observe(silence.as_secs_f64()),
                Output::Left => self.left = true,
            }
        }
        self.deadline = self.claims.deadline();
        self.changed = true;
        Ok(())
    }

    fn send_hello(&self, to: Option<Mac>, key: u32, frame: &Frame) -> Result<(), LinkError> {
        let Some(key) = self.keys.find(key) else { return Ok(()) };
        let metrics = &self.setup.metrics;
        send(&self.hello.socket, &frame.encode(self.setup.mac, to, key), &metrics.sent, metrics.dropped(Drop::Send))
    }

    /// Asks one host for `address`: by ARP without saying who asks (RFC 5227 section 1.1), so that no cache learns anything from it. By
    /// Neighbor Discovery nobody may ask one host only.
    fn probe(&mut self, address: IpAddr, mac: Mac, now: Instant) -> Result<(), LinkError> {
        self.ears.probe(mac, address, now);
        match address {
            IpAddr::V4(address) => {
                self.ask(&self.arp.socket, &arp::request(self.setup.mac, Ipv4Addr::UNSPECIFIED, address))
            }
            IpAddr::V6(address) => match self.order.source_v6 {
                Some(own) => self.ask(&self.ndp.socket, &ndp::unicast_solicitation(self.setup.mac, own, address, mac)),
                None => self.ask(&self.ndp.socket, &ndp::dad_solicitation(self.setup.mac, address)),
            },
        }
    }

    /// Asks whether anyone has a fresh address: as one that wants to have it, and as this node, since some hosts answer only one of
    /// the two.
    fn check(&mut self, address: IpAddr, now: Instant) -> Result<(), LinkError> {
        self.ears.check(address, now);
        match address {
            IpAddr::V4(address) => {
                let own = self.order.source.filter(|own| *own != address);
                for asker in own.into_iter().chain([Ipv4Addr::UNSPECIFIED]) {
                    self.ask(&self.arp.socket, &arp::request(self.setup.mac, asker, address))?;
                }
                Ok(())
            }
            IpAddr::V6(address) => {
                if let Some(own) = self.order.source_v6 {
                    self.ask(&self.ndp.socket, &ndp::solicitation(self.setup.mac, own, address))?;
                }
                self.ask(&self.ndp.socket, &ndp::dad_solicitation(self.setup.mac, address))
            }
        }
    }

    /// Asks the hosts that were heard last for their own addresses: whoever answers shows that we hear.
    fn ask_around(&mut self) -> Result<(), LinkError> {
        let source = self.order.source.unwrap_or(Ipv4Addr::UNSPECIFIED);
        for (mac, address) in self.ears.hosts() {
            match address {
                IpAddr::V4(address) => {
                    let mut question = arp::request(self.setup.mac, source, address);
                    question[..6].copy_from_slice(&mac.0);
                    self.ask(&self.arp.socket, &question)?;
                }
                IpAddr::V6(address) => {
                    let Some(own) = self.order.source_v6 else { continue };
                    self.ask(&self.ndp.socket, &ndp::unicast_solicitation(self.setup.mac, own, address, mac))?;
                }
            }
        }
        Ok(())
    }

    fn ask(&self, socket: &PacketSocket, question: &[u8]) -> Result<(), LinkError> {
        let metrics = &self.setup.metrics;
        send(socket, question, &metrics.asked, metrics.dropped(Drop::Send))
    }

    fn announce(&mut self) -> Result<(), LinkError> {
        let (metrics, mac) = (&self.setup.metrics, self.setup.mac);
        for _ in 0..BURST_MAX {
            // As an answer, an announcement is legal only while our own last hello is young.
            let Some(address) = self.announcer.next(Clock::now(), self.claims.gate()) else { break };
            let tell = |socket, frame: &[u8]| send(socket, frame, &metrics.gratuitous, metrics.dropped(Drop::Send));
            match address {
                IpAddr::V4(address) => {
                    let forms = [arp::gratuitous_request, arp::gratuitous_reply];
                    const _: () = assert!(FRAMES_PER_ANNOUNCEMENT == 2, "one frame of each form");
                    forms.into_iter().try_for_each(|form| tell(&self.arp.socket, &form(mac, address)))?;
                }
                IpAddr::V6(address) => tell(&self.ndp.socket, &ndp::unsolicited(mac, address))?,
            }
        }
        Ok(())
    }

    /// Counts the frames that the kernel dropped because we read too late.
    fn count_kernel_drops(&mut self) -> Result<(), LinkError> {
        let count = |socket: &PacketSocket, reason| {
            let dropped = socket.dropped().map_err(LinkError::Gone)?;
            self.setup.metrics.dropped(reason).inc_by(dropped);
            Ok(dropped)
        };
        count(&self.arp.socket, Drop::KernelArp)?;
        count(&self.ndp.socket, Drop::KernelNdp)?;
        self.lost_hellos |= count(&self.hello.socket, Drop::KernelHello)? > 0;
        Ok(())
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
