//! The simulated world: true time, the queue of events, nodes, wire, clients, API. Everything in it follows from the run's
//! scenario, seed and size.

use super::bounds::Bounds;
use super::clients::Client;
use super::clock::Clock;
use super::event::{Event, Queue};
use super::member::Broken;
use super::node::{Halt, Node};
use super::truth::{Cause, Truth};
use super::view::{Catalogue, View};
use super::wire::Wire;
use super::{FAILBACK, Run};
use crate::chance::Chance;
use ferrolb_proto::Instant;
use ferrolb_proto::claim::{Config, Input, LISTEN};
use ferrolb_proto::election::Unit;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{KEY_LENGTH, Key, KeyRing};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The hello interval that the programs have by default, and how many may be missing.
pub(super) const INTERVAL: Duration = Duration::from_millis(50);
pub(super) const MISSES: u32 = 3;
/// One in so many seeds takes every frame through the codec: signed, as bytes, verified.
const CODEC_EVERY: u64 = 16;
/// A node's clock starts anywhere within this time.
const CLOCK_MAX: Duration = Duration::from_secs(100_000);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) queue: Queue,
    pub(super) chance: Chance,
    pub(super) nodes: Vec<Node>,
    pub(super) clients: Vec<Client>,
    pub(super) wire: Wire,
    /// Into how many parts the wire may be torn.
    pub(super) parts: u8,
    pub(super) catalogue: Catalogue,
    /// What the API says, whoever knows of it already.
    pub(super) api: View,
    /// Whether a node that is no candidate could still forward.
    pub(super) serves: bool,
    /// The units of the view that all nodes begin with, made once.
    first_units: (Rc<View>, Vec<Arc<Unit>>),
    pub(super) bounds: Bounds,
    pub(super) truth: Truth,
    /// Hosts that are no members and use the first address of a unit.
    pub(super) strangers: BTreeMap<usize, Mac>,
    /// For every unit who announced it last, which is what the proxy answers.
    pub(super) proxied: Vec<Option<Mac>>,
    /// Nodes whose clocks stood still or leapt: for a while they cannot testify to another's pause.
    pub(super) unsteady: BTreeSet<usize>,
    broken: Option<Broken>,
    pub(super) codec: bool,
    trace: bool,
}

/// One of the hello keys that a run knows.
pub(super) fn key(number: u8) -> Key {
    Key::new([number; KEY_LENGTH])
}

impl World {
    pub(super) fn new(run: &Run, bounds: Bounds) -> Self {
        let mut chance = Chance::new(run.seed);
        let salt = chance.number() as u32;
        let catalogue = Catalogue::new(run.nodes, run.units, salt);
        let view = Rc::new(View::open(run.nodes, run.units));
        let keys = KeyRing::new(vec![key(1)]);
        let nodes = (0..run.nodes).map(|index| {
            let shown = Instant::ZERO + chance.between(Duration::from_secs(10), CLOCK_MAX);
            let clock = Clock::new(Instant::ZERO, shown, 0);
            Node::new(index, clock, Rc::clone(&view), keys.clone(), run.units)
        });
        Self {
            now: Instant::ZERO,
            queue: Queue::default(),
            nodes: nodes.collect(),
            chance,
            clients: Client::all(run.units),
            wire: Wire::default(),
            parts: 1,
            api: (*view).clone(),
            serves: true,
            first_units: (Rc::clone(&view), catalogue.units(&view, true, &vec![false; run.units])),
            catalogue,
            bounds,
            truth: Truth::new(run.units),
            strangers: BTreeMap::new(),
            proxied: vec![None; run.units],
            unsteady: BTreeSet::new(),
            broken: run.broken,
            codec: run.seed.is_multiple_of(CODEC_EVERY),
            trace: run.trace,
        }
    }

    /// For scenarios in which it matters when a node last heard another.
    pub(super) fn remember_who_was_heard(&mut self) {
        let count = self.nodes.len();
        for node in &mut self.nodes {
            node.heard = vec![Instant::ZERO; count];
            node.asked = vec![0; count];
        }
    }

    pub(super) fn units(&self) -> usize {
        self.clients[0].cache.len()
    }

    /// Prints a line of the trace, if one is wanted.
    pub(super) fn log(&self, line: impl FnOnce() -> String) {
        if self.trace {
            println!("{:10.1} {}", self.now.as_nanos() as f64 / 1e6, line());
        }
    }

    pub(super) fn after(&mut self, wait: Duration, act: impl FnOnce(&mut Self) + 'static) {
        self.queue.push(self.now + wait, Event::Act(Box::new(act)));
    }

    /// Lets everything happen that happens within `time`.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, event)) = self.queue.pop(until) {
            self.now = at;
            match event {
                Event::Frame { arrival, packet } => self.arrive(arrival, packet),
                Event::ArpAnswer { node, life, mac } => self.arp_answered(node, life, mac),
                Event::Heard { node, life } => self.hear(node, life),
                Event::Foreign { node, life, unit, mac, announced } => self.told_of(node, life, unit, mac, announced),
                Event::Wake(node) => self.wake(node),
                Event::Gate(node) => self.look_at_gate(node, true),
                Event::Announce { node, unit, round, announcement } => self.announce(node, unit, round, announcement),
                Event::Told { client, unit, node } => self.clients[client].cache[unit] = Some(node),
                Event::Chatter => self.chatter(),
                Event::Act(act) => act(self),
            }
        }
        self.now = until;
    }

    /// Starts the process of a node: a new life, which knows nothing of the one before.
    pub(super) fn start(&mut self, index: usize) {
        let (now, epoch, broken) = (self.now, self.chance.number(), self.broken);
        let node = &mut self.nodes[index];
        node.clear(now);
        // To start deaf is a fault of its own.
        node.deaf = false;
        node.life += 1;
        node.started = now;
        let config = Config {
            node: node.name.clone(),
            epoch,
            hello_interval: INTERVAL,
            hello_misses: MISSES,
            failback_delay: Some(FAILBACK),
        };
        let own = node.clock.at(now);
        node.member = Some(super::member::Member::new(config, own, node.keys.ids(), broken));
        self.log(|| format!("===== start n{index}"));
        self.obey(index);
        self.show_view(index);
        self.account_all(Cause::World);
        // From then on it is able to claim.
        self.after(LISTEN, |world| world.account_all(Cause::World));
    }

    /// Gives a node's machine the units of its view.
    pub(super) fn show_view(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.view_waits = node.halted.is_some();
        if node.halted.is_some() {
            return;
        }
        let (first, units) = &self.first_units;
        let units = if Rc::ptr_eq(first, &node.view) && self.serves && !node.failing.contains(&true) {
            units.clone()
        } else {
            self.catalogue.units(&node.view, self.serves, &node.failing)
        };
        self.feed(index, Input::Units(units));
    }

    /// Something happens to a machine, if there is one and it can take it.
    pub(super) fn feed(&mut self, index: usize, input: Input) {
        let node = &mut self.nodes[index];
        let own = node.clock.at(self.now);
        if node.halted.is_none()
            && let Some(member) = &mut node.member
        {
            member.handle(input, own);
            self.obey(index);
        }
    }

    /// Lets a node's machine do what is due.
    pub(super) fn tick(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let own = node.clock.at(self.now);
        let Some(member) = &mut node.member else { return };
        member.tick(own);
        if member.deadline().is_some_and(|at| at <= own) {
            self.violate(super::truth::Rule::Contract, format!("n{index} wants time again at once"));
        }
        self.obey(index);
    }

    fn wake(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        let own = node.clock.at(self.now);
        let due = node.member.as_ref().and_then(super::member::Member::deadline).is_some_and(|at| at <= own);
        match node.halted {
            Some(_) => {}
            None if due => self.tick(index),
            None => self.set_alarm(index),
        }
    }

    /// Sees to it that the node wakes at its machine's deadline.
    pub(super) fn set_alarm(&mut self, index: usize) {
        /// A machine that asks for time that has passed, which the checker reports, must not stop the world.
        const SOON: Duration = Duration::from_micros(1);
        let node = &mut self.nodes[index];
        let Some(deadline) = node.member.as_ref().and_then(super::member::Member::deadline) else { return };
        let at = node.clock.when(deadline).max(self.now + SOON);
        // One that is under way and earlier looks again then: deadlines move back with every hello.
        if node.wake.is_none_or(|wake| at < wake) {
            node.wake = Some(at);
            self.queue.push(at, Event::Wake(index));
        }
    }

    /// Notes whether the node's gate is open, and accounts for what that changes.
    pub(super) fn look_at_gate(&mut self, index: usize, was_watched: bool) {
        let node = &mut self.nodes[index];
        node.gate_watched &= !was_watched;
        let Some(member) = &node.member else { return };
        let open = node.clock.at(self.now) < member.gate();
        let changed = open != node.gate_open;
        node.gate_open = open;
        if open && !node.gate_watched && !node.answers.is_empty() && node.halted != Some(Halt::Paused) {
            node.gate_watched = true;
            let at = node.clock.when(member.gate());
            self.queue.push(at, Event::Gate(index));
        }
        if changed {
            let held: Vec<usize> = (0..self.units()).filter(|unit| self.nodes[index].holds[*unit]).collect();
            for unit in held {
                self.account(unit, Cause::Machine);
            }
        }
    }
}
