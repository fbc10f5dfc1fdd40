//! The loop of an interface's thread: it waits for a frame, a new config or a deadline, passes
//! inputs to the claim machine, and executes its outputs.
//!
//! Each iteration handles due deadlines first, because a due hello may renew the answer lease.
//! Received hellos follow, then requests. Nothing on the reply path allocates, locks or logs.

mod announced;
mod reception;
mod requests;
mod second_path;

use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::hello::{self, Frame, HelloKeyRing};
use ferrolb_proto::wire::ndp::{self, Ndp, NdpKind};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::claim::{ClaimMachine, Input, Output};
use ferrolb_speaker_core::plan::{LinkConfig, Units};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::announce::{Announcer, FRAMES_PER_ANNOUNCEMENT};
use super::classify::{Classification, classify_arp, classify_ndp};
use super::filter;
use super::flood::{CpuBudget, HELLOS_PER_SECOND_MAX, REQUESTS_PER_SECOND_MAX, SourceLimiter};
use super::neighbors::NeighborTracker;
use super::receive_filter::ReceiveFilter;
use super::report::LinkReporter;
use super::rx_queue::{BURST_MAX, RxQueue};
use super::socket::{PacketSocket, send, wait_readable};
use super::{ConfigMailbox, LinkError, LinkSetup, ThreadState};
use crate::metrics::DropReason;

/// Maximum time for which hellos are read before requests are handled. Each hello may carry the
/// claims of 64 addresses.
const HELLO_BURST_TIME_MAX: Duration = Duration::from_millis(1);
/// Maximum number of units in one input. The thread handles frames before it passes the next one.
const UNITS_PER_INPUT_MAX: usize = 512;
/// Interval at which the kernel's drop counters are read.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

struct LinkThread<'a> {
    setup: LinkSetup,
    reporter: LinkReporter<'a>,
    arp: RxQueue,
    ndp: RxQueue,
    hello: RxQueue,
    /// Valid datagrams of the second path. None: there is no second path.
    datagrams: Option<Receiver<Frame>>,
    request_budget: CpuBudget,
    /// CPU budget for hellos, separate so that a flood of requests cannot prevent reading them.
    hello_budget: CpuBudget,
    config: Arc<LinkConfig>,
    /// Changes of the units in `config` that the claim machine has not received yet.
    unit_changes: VecDeque<Input>,
    keys: HelloKeyRing,
    claims: ClaimMachine,
    deadline: Option<Instant>,
    owned: BTreeSet<Ipv4Addr>,
    owned_v6: BTreeSet<Ipv6Addr>,
    /// Addresses that the claim machine owns, and that the thread does not announce yet.
    withheld: BTreeSet<IpAddr>,
    announcer: Announcer,
    neighbors: NeighborTracker,
    receive_filter: ReceiveFilter,
    /// True if the claim machine was informed that the main loop is stalled.
    main_loop_stalled: bool,
    statistics_at: Instant,
    /// True if the kernel has dropped hellos since the claim machine was last informed of it.
    lost_hellos: bool,
    /// True if the claim machine has handled an input since the previous report.
    report_due: bool,
    handed_over: bool,
}

/// Runs the thread until the main loop ends it by `mailbox.end_requested`.
pub(super) fn run(
    setup: LinkSetup,
    mailbox: &ConfigMailbox,
    datagrams: Option<Receiver<Frame>>,
    thread_state: &watch::Sender<ThreadState>,
) -> Result<(), LinkError> {
    let index = setup.index;
    let open_queue = |ether_type, frames_per_second_max, program| {
        RxQueue::open(index, ether_type, SourceLimiter::new(frames_per_second_max), program)
    };
    let (arp_program, ndp_program) =
        (filter::arp(index, None), filter::neighbor_discovery(index, None));
    let arp = open_queue(arp::ETHER_TYPE, REQUESTS_PER_SECOND_MAX, arp_program)?;
    let ndp = open_queue(ndp::ETHER_TYPE, REQUESTS_PER_SECOND_MAX, ndp_program)?;
    let hello = open_queue(hello::ETHER_TYPE, HELLOS_PER_SECOND_MAX, filter::hello(index))?;
    hello.socket.join(hello::GROUP).map_err(LinkError::Socket)?;
    setup.metrics.receive_filter_open.set(1);
    let now = Clock::now();
    let mut thread = LinkThread {
        claims: ClaimMachine::new(setup.claims.clone(), now),
        reporter: LinkReporter::new(thread_state, setup.metrics.clone()),
        announcer: Announcer::new(setup.gratuitous_interval),
        setup,
        arp,
        ndp,
        hello,
        datagrams,
        request_budget: CpuBudget::default(),
        hello_budget: CpuBudget::default(),
        config: Arc::default(),
        unit_changes: VecDeque::new(),
        keys: HelloKeyRing::default(),
        deadline: None,
        owned: BTreeSet::new(),
        owned_v6: BTreeSet::new(),
        withheld: BTreeSet::new(),
        neighbors: NeighborTracker::default(),
        receive_filter: ReceiveFilter::new(),
        main_loop_stalled: false,
        statistics_at: now,
        lost_hellos: false,
        report_due: true,
        handed_over: false,
    };
    let mut buffer = [0; hello::FRAME_MAX];
    while !mailbox.end_requested.load(Ordering::Acquire) {
        thread.run_once(mailbox, &mut buffer)?;
        thread.wait(mailbox)?;
    }
    if mailbox.release_on_exit.load(Ordering::Relaxed) {
        thread.handle_input(Input::InterfaceRemoved, Clock::now())?;
        thread.reporter.report(&thread.claims, thread.handed_over);
    }
    Ok(())
}

impl LinkThread<'_> {
    fn run_once(&mut self, mailbox: &ConfigMailbox, buffer: &mut [u8]) -> Result<(), LinkError> {
        let now = Clock::now();
        if self.setup.watchdog.is_alive(now) == self.main_loop_stalled {
            self.main_loop_stalled = !self.main_loop_stalled;
            self.handle_input(Input::MainLoopStalled(self.main_loop_stalled), now)?;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.tick(now)?;
        }
        // Hellos come first: they carry the claim that explains an announcement by a new owner.
        self.read_hellos(buffer)?;
        self.read_datagrams()?;
        self.read_arp(buffer)?;
        self.read_ndp(buffer)?;
        self.apply_config(mailbox)?;
        self.send_announcements()?;
        if self.report_due && !self.claims.has_more_work() {
            self.reporter.count(&self.claims);
            self.reporter.report(&self.claims, self.handed_over);
            self.report_due = false;
        }
        if now >= self.statistics_at {
            self.statistics_at = now + STATISTICS_INTERVAL;
            self.count_kernel_drops()?;
        }
        Ok(())
    }

    /// Informs the claim machine of received and of dropped frames, then advances its time.
    fn tick(&mut self, now: Instant) -> Result<(), LinkError> {
        if std::mem::take(&mut self.neighbors.received) {
            self.claims.handle(Input::FrameReceived, now);
        }
        if self.claims.members().peers().has_suspicion() {
            self.count_kernel_drops()?;
        }
        if std::mem::take(&mut self.lost_hellos) {
            self.claims.handle(Input::FramesDropped, now);
        }
        self.claims.tick(now);
        self.execute(now)?;
        self.update_receive_filter(now)
    }

    fn wait(&mut self, mailbox: &ConfigMailbox) -> Result<(), LinkError> {
        let watchdog = (!self.main_loop_stalled).then(|| self.setup.watchdog.stalled_at());
        let now = Clock::now();
        let budget_deadlines =
            [&self.request_budget, &self.hello_budget].map(|budget| budget.deadline(now));
        let limiter_deadlines =
            [&self.arp, &self.ndp, &self.hello].map(|queue| queue.limiter.limited_until);
        let more_changes = (!self.unit_changes.is_empty()).then_some(Instant::ZERO);
        let deadlines = [self.deadline, self.announcer.deadline(), watchdog, more_changes]
            .into_iter()
            .chain(budget_deadlines)
            .chain(limiter_deadlines);
        let deadline = deadlines.flatten().min();
        let [requests, hellos] = budget_deadlines.map(|closed| closed.is_none());
        let fds = [
            (self.arp.socket.as_fd(), requests),
            (self.ndp.socket.as_fd(), requests),
            (self.hello.socket.as_fd(), hellos),
            (mailbox.wake.as_fd(), true),
        ];
        let wait = deadline.map(|deadline| deadline.since(now));
        let woken;
        [self.arp.ready, self.ndp.ready, self.hello.ready, woken] = wait_readable(fds, wait)?;
        if woken {
            // Resets the eventfd. The change itself is in the mailbox.
            let _ = rustix::io::read(&mailbox.wake, &mut [0_u8; 8]);
        }
        Ok(())
    }

    fn read_arp(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        if !self.arp.begin_burst(iter::empty())? {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let Some(frame) = self.arp.receive(buffer)? else { break };
            let Some(arp) = Arp::decode(frame) else { continue };
            self.end_isolation()?;
            let is_probed = |address| self.neighbors.is_arp_probed(address, Clock::now);
            let classification = classify_arp(frame, &arp, self.setup.mac, &self.owned, is_probed);
            self.handle_frame(classification, |thread| &thread.arp.socket, buffer)?;
            self.record_sender(arp.sender_mac, arp.sender.into());
            if arp.operation == Operation::Request {
                self.on_request(arp.sender_mac, arp.target.into())?;
            }
        }
        self.arp.end_burst(&mut self.request_budget, iter::empty(), &self.setup)
    }

    fn read_ndp(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        if !self.ndp.begin_burst(iter::empty())? {
            return Ok(());
        }
        for _ in 0..BURST_MAX {
            let Some(frame) = self.ndp.receive(buffer)? else { break };
            let Some(ndp) = Ndp::decode(frame) else { continue };
            self.end_isolation()?;
            let is_probed = |address| self.neighbors.is_arp_probed(address, Clock::now);
            let classification = classify_ndp(&ndp, self.setup.mac, &self.owned_v6, is_probed);
            self.handle_frame(classification, |thread| &thread.ndp.socket, buffer)?;
            self.record_sender(ndp.source, ndp.sender.into());
            if ndp.kind == NdpKind::Solicitation {
                self.on_request(ndp.source, ndp.target.into())?;
            }
        }
        self.ndp.end_burst(&mut self.request_budget, iter::empty(), &self.setup)
    }

    /// Informs the claim machine of a received frame if the node is isolated, before the frame is
    /// handled, so that the frame gets a reply.
    fn end_isolation(&mut self) -> Result<(), LinkError> {
        if self.claims.members().own().is_isolated() {
            self.handle_input(Input::FrameReceived, Clock::now())
        } else {
            Ok(())
        }
    }

    /// Records the sender of a frame, after its reply: the search among all members takes longer
    /// than the reply.
    fn record_sender(&mut self, mac: Mac, sender: IpAddr) {
        let is_witness = self.claims.is_witness(mac, sender) && !self.config.macs.contains(&mac);
        self.neighbors.record(mac, sender, is_witness);
    }

    /// Handles a classified frame. A reply is sent by the socket on which the frame arrived.
    fn handle_frame<const N: usize>(
        &mut self,
        classification: Classification<N>,
        socket: fn(&Self) -> &PacketSocket,
        buffer: &mut [u8],
    ) -> Result<(), LinkError> {
        match classification {
            Classification::Request(reply)
                if Clock::now() < self.claims.members().own().answer_lease_end() =>
            {
                self.send(socket(self), &reply, &self.setup.metrics.replies_sent)?;
            }
            Classification::DadSolicitation(address)
                if Clock::now() < self.claims.members().own().answer_lease_end() =>
            {
                let announced = self.announcer.announce_extra(address.into());
                self.setup.metrics.replies_sent.inc_by(announced.into());
            }
            Classification::Request(_) | Classification::DadSolicitation(_) => {
                self.setup.metrics.dropped(DropReason::LeaseExpired).inc();
            }
            Classification::ForeignHost { address, mac, announced }
                if !self.config.macs.contains(&mac) =>
            {
                let now = Clock::now();
                // A peer may also reply for an address that this node has taken from it.
                let proves_life =
                    !announced && self.neighbors.is_liveness_probed(mac, address, now);
                if proves_life {
                    self.handle_input(Input::ArpReply(mac), now)?;
                }
                if !proves_life || self.neighbors.is_arp_probed(address, || now) {
                    // Reads hellos first: one of them may claim the address for another node.
                    self.hello.ready = self.hello_budget.deadline(now).is_none();
                    self.read_hellos(buffer)?;
                    let input = Input::ForeignFrame { address, mac, announced };
                    self.handle_input(input, Clock::now())?;
                }
            }
            Classification::Reply { address, mac, is_solicited } => {
                self.on_reply(address, mac, is_solicited)?;
            }
            Classification::ForeignHost { .. } | Classification::Irrelevant => {}
        }
        Ok(())
    }

    fn read_hellos(&mut self, buffer: &mut [u8]) -> Result<(), LinkError> {
        let exempt = self.claims.members().peers().macs().chain(self.config.macs.iter().copied());
        if !self.hello.begin_burst(exempt)? {
            return Ok(());
        }
        let end = self.hello.burst_start + HELLO_BURST_TIME_MAX;
        while self.hello.burst < BURST_MAX && Clock::now() < end {
            let Some(bytes) = self.hello.receive(buffer)? else { break };
            match Frame::decode(bytes, &self.keys) {
                Ok((source, frame)) => {
                    let input = self.hello_input(source, frame);
                    self.handle_input(input, Clock::now())?;
                }
                Err(error) => {
                    self.setup.metrics.dropped(error.into()).inc();
                }
            }
        }
        let exempt = self.claims.members().peers().macs().chain(self.config.macs.iter().copied());
        self.hello.end_burst(&mut self.hello_budget, exempt, &self.setup)
    }

    /// Returns the input for a hello, which may come from another interface of this node.
    fn hello_input(&self, source: Mac, frame: Frame) -> Input {
        let own = *frame.node == *self.setup.claims.node;
        let precedes = || self.setup.siblings.precedes(frame.epoch, self.setup.claims.epoch);
        match own.then(precedes).flatten() {
            Some(precedes) => Input::SiblingInterface { is_active: precedes },
            None => Input::Frame { source, frame },
        }
    }

    /// Passes the latest config to the claim machine. If many units have changed, each iteration
    /// passes a part of them.
    fn apply_config(&mut self, mailbox: &ConfigMailbox) -> Result<(), LinkError> {
        if let Some(changes) = self.unit_changes.pop_front() {
            return self.handle_input(changes, Clock::now());
        }
        let config = mailbox.config.load_full();
        if Arc::ptr_eq(&config, &self.config) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.config, Arc::clone(&config));
        let now = Clock::now();
        if config.withheld != before.withheld {
            self.start_withheld(now);
        }
        if config.received_ranges != before.received_ranges {
            self.open_receive_filter(now)?;
        }
        if config.keys != before.keys {
            self.keys = config.keys.clone();
            self.handle_input(Input::Keys(self.keys.ids()), now)?;
        }
        if config.units != before.units {
            self.unit_changes = unit_changes(&before.units, &config.units);
        }
        if config.node_flags != before.node_flags {
            self.handle_input(Input::NodeState(config.node_flags), now)?;
        }
        if config.leaving && !before.leaving {
            self.handle_input(Input::Leave, now)?;
        }
        match self.unit_changes.pop_front() {
            Some(changes) => self.handle_input(changes, now),
            None => Ok(()),
        }
    }

    fn handle_input(&mut self, input: Input, now: Instant) -> Result<(), LinkError> {
        self.claims.handle(input, now);
        self.execute(now)
    }

    fn execute(&mut self, now: Instant) -> Result<(), LinkError> {
        while let Some(output) = self.claims.poll() {
            match output {
                Output::Send { to, key, frame } => self.send_hello(to, key, &frame)?,
                Output::Start(address) | Output::AnnounceSeries(address) => {
                    self.start(address, now)
                }
                Output::Defend(address) if self.withheld.contains(&address) => {}
                Output::Defend(address) => {
                    self.announcer.announce_extra(address);
                }
                Output::Stop(address) => self.stop(address),
                Output::SendDatagram { to, key, frame } => self.send_datagram(&to, key, &frame),
                Output::LivenessProbe { node, mac, address: None } => {
                    self.send_node_probe(&node, mac, now)?
                }
                Output::LivenessProbe { address: Some(address), mac, .. } => {
                    self.send_liveness_probe(address, mac, now)?
                }
                Output::ArpProbe(address) => self.send_arp_probe(address, now)?,
                Output::ProbeNeighbors => self.probe_neighbors(now)?,
                Output::Moved(moved) => self.reporter.add_move(moved, &self.setup.claims.node),
                Output::Finished => self.handed_over = true,
            }
        }
        self.deadline = self.claims.deadline();
        self.report_due = true;
        Ok(())
    }

    fn send_hello(&self, to: Option<Mac>, key: u32, frame: &Frame) -> Result<(), LinkError> {
        let Some(key) = self.keys.find(key) else { return Ok(()) };
        let bytes = frame.encode(self.setup.mac, to, key);
        self.send(&self.hello.socket, &bytes, &self.setup.metrics.hello_frames_sent)
    }

    fn send(&self, socket: &PacketSocket, frame: &[u8], sent: &Counter) -> Result<(), LinkError> {
        send(socket, frame, sent, self.setup.metrics.dropped(DropReason::SendRejected))
    }

    fn send_announcements(&mut self) -> Result<(), LinkError> {
        let mac = self.setup.mac;
        for _ in 0..BURST_MAX {
            // Like a reply, an announcement may be sent only until the answer lease ends.
            let Some(address) =
                self.announcer.next(Clock::now(), self.claims.members().own().answer_lease_end())
            else {
                break;
            };
            let announce = |socket, frame: &[u8]| {
                self.send(socket, frame, &self.setup.metrics.announcements_sent)
            };
            match address {
                IpAddr::V4(address) => {
                    let forms = [arp::gratuitous_request, arp::gratuitous_reply];
                    const _: () = assert!(FRAMES_PER_ANNOUNCEMENT == 2, "one frame of each form");
                    forms
                        .into_iter()
                        .try_for_each(|form| announce(&self.arp.socket, &form(mac, address)))?;
                }
                IpAddr::V6(address) => {
                    announce(&self.ndp.socket, &ndp::unsolicited_advertisement(mac, address))?
                }
            }
        }
        Ok(())
    }

    /// Counts the frames that the kernel has dropped because the thread read them too late.
    fn count_kernel_drops(&mut self) -> Result<(), LinkError> {
        let count = |socket: &PacketSocket, reason| {
            let dropped = socket.take_drop_count().map_err(LinkError::InterfaceDown)?;
            self.setup.metrics.dropped(reason).inc_by(dropped);
            Ok(dropped)
        };
        count(&self.arp.socket, DropReason::KernelArp)?;
        count(&self.ndp.socket, DropReason::KernelNdp)?;
        self.lost_hellos |= count(&self.hello.socket, DropReason::KernelHello)? > 0;
        Ok(())
    }
}

/// Returns the inputs that change the units `before` into `now`. The first units are one input,
/// because a machine without units handles it fast.
fn unit_changes(before: &Units, now: &Units) -> VecDeque<Input> {
    let limit = if before.is_empty() { usize::MAX } else { UNITS_PER_INPUT_MAX };
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for unit in now.differences(before) {
        match unit.now {
            Some(unit) => changed.push(Arc::clone(unit)),
            None => removed.push(*unit.key),
        }
    }
    let removals = removed.chunks(limit).map(|removed| (&[][..], removed));
    let changes = changed.chunks(limit).map(|changed| (changed, &[][..]));
    let input = |(changed, removed): (&[Arc<Unit>], &[IpAddr])| Input::Units {
        changed: changed.to_vec(),
        removed: removed.to_vec(),
    };
    removals.chain(changes).map(input).collect()
}
