//! The simulated world: true time, event queue, nodes, network segment, clients, API. All its
//! states depend only on the run's scenario, seed and size.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{HelloKey, HelloKeyRing, KEY_LENGTH};
use ferrolb_speaker_core::claim::{ClaimConfig, Input, LISTEN_PHASE};

use super::bounds::ScenarioBounds;
use super::checker::{Cause, Checker};
use super::clients::Client;
use super::clock::NodeClock;
use super::event::{Event, EventQueue};
use super::faulty_machine::Defect;
use super::foreign_hosts::AnsweredProbes;
use super::node::{Halt, SimNode};
use super::segment::{SecondPath, Segment};
use super::view::{ApiView, UnitCatalog};
use super::{PREEMPT_DELAY, Run};
use crate::rng::Rng;

/// Default hello interval of the speakers. [`HELLO_MISSES`] is the default number of missed hellos.
pub(super) const HELLO_INTERVAL: Duration = Duration::from_millis(50);
pub(super) const HELLO_MISSES: u32 = 3;
/// In one of this many seeds, every frame passes through the codec: it is signed, encoded and
/// verified.
const CODEC_EVERY: u64 = 16;
/// Maximum initial value of a node's clock.
const INITIAL_CLOCK_MAX: Duration = Duration::from_secs(100_000);

pub(super) struct SimWorld {
    pub(super) now: Instant,
    pub(super) queue: EventQueue,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<SimNode>,
    pub(super) clients: Vec<Client>,
    pub(super) segment: Segment,
    /// Number of parts of the segment; 1 if the segment is not split.
    pub(super) parts: u8,
    pub(super) catalog: UnitCatalog,
    /// True state of the API, independent of the nodes' views.
    pub(super) api: ApiView,
    /// True if a node that is not a candidate could still forward traffic.
    pub(super) serves: bool,
    /// Initial view of all nodes, and the units of this view, which are computed only once.
    first_units: (Rc<ApiView>, Vec<Arc<Unit>>),
    pub(super) bounds: ScenarioBounds,
    pub(super) checker: Checker,
    /// MAC of the foreign host that uses the first address of a unit, by unit.
    pub(super) foreign_hosts: BTreeMap<usize, Mac>,
    pub(super) answered_probes: AnsweredProbes,
    /// MAC of the node that most recently announced each unit; the proxy replies with this MAC.
    pub(super) proxy_entries: Vec<Option<Mac>>,
    /// Nodes whose clocks have stopped or leapt. For some time, other nodes cannot use these clocks
    /// to detect their own pauses.
    pub(super) irregular_clocks: BTreeSet<usize>,
    defect: Option<Defect>,
    pub(super) codec: bool,
    trace: bool,
}

fn by_address(unit: Arc<Unit>) -> (IpAddr, Arc<Unit>) {
    (unit.address, unit)
}

/// Returns the hello key with the number `number`.
pub(super) fn key(number: u8) -> HelloKey {
    HelloKey::new([number; KEY_LENGTH])
}

impl SimWorld {
    pub(super) fn new(run: &Run, bounds: ScenarioBounds) -> Self {
        let mut rng = Rng::new(run.seed);
        let salt = rng.next_u64() as u32;
        let catalog = UnitCatalog::new(run.nodes, run.units, salt);
        let view = Rc::new(ApiView::open(run.nodes, run.units));
        let keys = HelloKeyRing::new(vec![key(1)]);
        let segment = Segment::new(rng.pick(&SecondPath::ALL));
        let nodes = (0..run.nodes).map(|index| {
            let initial_value =
                Instant::ZERO + rng.between(Duration::from_secs(10), INITIAL_CLOCK_MAX);
            let clock = NodeClock::new(Instant::ZERO, initial_value, 0);
            SimNode::new(index, clock, Rc::clone(&view), keys.clone(), run.units)
        });
        Self {
            now: Instant::ZERO,
            queue: EventQueue::default(),
            nodes: nodes.collect(),
            rng,
            clients: Client::all(run.units),
            segment,
            parts: 1,
            api: (*view).clone(),
            serves: true,
            first_units: (Rc::clone(&view), catalog.units(&view, true, &vec![false; run.units])),
            catalog,
            bounds,
            checker: Checker::new(run.units),
            foreign_hosts: BTreeMap::new(),
            answered_probes: AnsweredProbes::default(),
            proxy_entries: vec![None; run.units],
            irregular_clocks: BTreeSet::new(),
            defect: run.defect,
            codec: run.seed.is_multiple_of(CODEC_EVERY),
            trace: run.trace,
        }
    }

    /// Makes each node record the time of its latest frame from each other node, and the number of
    /// challenges since that frame. Only some scenarios need these records.
    pub(super) fn record_received_frames(&mut self) {
        let count = self.nodes.len();
        for node in &mut self.nodes {
            node.last_frame = vec![Instant::ZERO; count];
            node.challenges = vec![0; count];
        }
    }

    pub(super) fn units(&self) -> usize {
        self.clients[0].cache.len()
    }

    /// Prints a line of the trace, if tracing is on.
    pub(super) fn log(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{:10.1} {}", self.now.as_nanos() as f64 / 1e6, line());
        }
    }

    pub(super) fn after(&mut self, wait: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.queue.push(self.now + wait, Event::Action(Box::new(action)));
    }

    /// Handles all events within the next `time`, and advances the true time by `time`.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            match event {
                Event::Frame { arrival, packet } => self.arrive(arrival, packet),
                Event::ArpReply { node, process_number, mac } => {
                    self.receive_arp_reply(node, process_number, mac)
                }
                Event::ClientReply { node, process_number } => {
                    self.receive_foreign_frame(node, process_number, Input::NeighborReplied)
                }
                Event::ForeignArp { node, process_number, unit, mac, announced } => {
                    self.receive_foreign_arp(node, process_number, unit, mac, announced)
                }
                Event::Wake(node) => self.wake(node),
                Event::AnswerLease(node) => self.check_answer_lease(node, true),
                Event::Announce { node, unit, round, announcement } => {
                    self.announce(node, unit, round, announcement)
                }
                Event::Announced { client, unit, node } => {
                    self.clients[client].cache[unit] = Some(node)
                }
                Event::ClientBroadcast => self.broadcast_from_client(),
                Event::Action(action) => action(self),
            }
        }
        self.now = until;
    }

    /// Starts the process of a node, without any state of an earlier process.
    pub(super) fn start(&mut self, index: usize) {
        let (now, epoch) = (self.now, self.rng.next_u64());
        let defect = self.nodes[index].defect.or(self.defect);
        self.answered_probes.forget_node(index);
        let node = &mut self.nodes[index];
        node.clear(now);
        // The interface of a started node receives frames; a scenario in which the interface
        // receives none changes this afterwards.
        node.isolated = false;
        (node.detection_time, node.allowance) = (Duration::ZERO, Duration::ZERO);
        node.process_number += 1;
        node.started = now;
        let config = ClaimConfig {
            node: (*node.name).into(),
            epoch,
            hello_interval: HELLO_INTERVAL,
            hello_misses: HELLO_MISSES,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(PREEMPT_DELAY),
        };
        let own = node.clock.at(now);
        node.machine =
            Some(super::faulty_machine::FaultyMachine::new(config, own, node.keys.ids(), defect));
        self.log(|| format!("===== start n{index}"));
        self.execute_outputs(index);
        self.pass_view(index);
        self.update_all_states(Cause::World);
        // After the listen phase the node may claim, so a unit without an owner now counts as
        // unowned.
        self.after(LISTEN_PHASE, |world| world.update_all_states(Cause::World));
    }

    /// Passes the units of a node's view to the node's claim machine.
    pub(super) fn pass_view(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.view_pending = node.halted.is_some();
        if node.halted.is_some() {
            return;
        }
        let (first, units) = &self.first_units;
        let units = if Rc::ptr_eq(first, &node.view) && self.serves && !node.failing.contains(&true)
        {
            units.clone()
        } else {
            self.catalog.units(&node.view, self.serves, &node.failing)
        };
        let node = &mut self.nodes[index];
        let mut before: BTreeMap<IpAddr, Arc<Unit>> =
            std::mem::replace(&mut node.units, units).into_iter().map(by_address).collect();
        let is_new = |unit: &&Arc<Unit>| before.remove(&unit.address).as_ref() != Some(*unit);
        let changed = node.units.iter().filter(is_new).cloned().collect();
        let removed = before.into_keys().collect();
        self.pass_input(index, Input::Units { changed, removed });
    }

    /// Passes an input to a node's claim machine, if the node runs and is not halted.
    pub(super) fn pass_input(&mut self, index: usize, input: Input) {
        let node = &mut self.nodes[index];
        let own = node.clock.at(self.now);
        if node.halted.is_none()
            && let Some(machine) = &mut node.machine
        {
            machine.handle(input, own);
            self.execute_outputs(index);
        }
    }

    /// Runs the due timers of a node's machine.
    pub(super) fn tick(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let own = node.clock.at(self.now);
        let Some(machine) = &mut node.machine else { return };
        machine.tick(own);
        if machine.deadline().is_some_and(|at| at <= own) {
            self.report_violation(
                super::checker::Rule::Contract,
                format!("n{index} requests a past deadline again"),
            );
        }
        self.execute_outputs(index);
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        let own = node.clock.at(self.now);
        let due = node
            .machine
            .as_ref()
            .and_then(super::faulty_machine::FaultyMachine::deadline)
            .is_some_and(|at| at <= own);
        match node.halted {
            Some(_) => {}
            None if due => self.tick(index),
            None => self.schedule_wake(index),
        }
    }

    /// Schedules a wake-up at the deadline of the node's machine.
    pub(super) fn schedule_wake(&mut self, index: usize) {
        /// Minimum delay until a wake-up. A machine that requests a past deadline, which the
        /// checker reports, must not stop the time of the world.
        const WAKE_DELAY_MIN: Duration = Duration::from_micros(1);
        let node = &mut self.nodes[index];
        let Some(deadline) =
            node.machine.as_ref().and_then(super::faulty_machine::FaultyMachine::deadline)
        else {
            return;
        };
        let at = node.clock.when(deadline).max(self.now + WAKE_DELAY_MIN);
        // If an earlier wake-up is pending, it calls this function again. Most deadlines move to a
        // later time with every hello.
        if node.wake.is_none_or(|wake| at < wake) {
            node.wake = Some(at);
            self.queue.push(at, Event::Wake(index));
        }
    }

    /// Updates whether the node's answer lease is valid, and the ownership state of its units.
    pub(super) fn check_answer_lease(&mut self, index: usize, was_watched: bool) {
        let node = &mut self.nodes[index];
        node.lease_watched &= !was_watched;
        let Some(machine) = &node.machine else { return };
        let lease_valid = node.clock.at(self.now) < machine.answer_lease();
        let changed = lease_valid != node.lease_valid;
        node.lease_valid = lease_valid;
        if lease_valid
            && !node.lease_watched
            && !node.announced.is_empty()
            && node.halted != Some(Halt::Paused)
        {
            node.lease_watched = true;
            let at = node.clock.when(machine.answer_lease());
            self.queue.push(at, Event::AnswerLease(index));
        }
        if changed {
            let owned: Vec<usize> =
                (0..self.units()).filter(|unit| self.nodes[index].owns[*unit]).collect();
            for unit in owned {
                self.update_state(unit, Cause::Machine);
            }
        }
    }
}
