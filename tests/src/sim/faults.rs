//! What can befall a node, the wire or the API. Each fault is one act on the world; scenarios put them in order.

use super::clients::STRANGER;
use super::node::Halt;
use super::truth::{Cause, DEATH_MIN, Rule};
use super::view::{Change, only};
use super::world::{INTERVAL, World};
use ferrolb_proto::Instant;
use ferrolb_proto::claim::{Input, Says};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Key, KeyRing};
use std::rc::Rc;
use std::time::Duration;

/// After a halt of this length another has taken what the halted node had: suspicion, death, the stagger of two, and slack.
const TAKEN_AFTER: Duration = Duration::from_millis(400);
/// How long after its return a paused node may need to notice: it has to hear two peers, and the idle speak every second.
const FENCE_WITHIN: Duration = Duration::from_millis(1_100);
/// The hardware address of a host that is no member.
const STRANGER_MAC: Mac = Mac([2, 0xff, 0, 0, 0xff, 0xff]);
/// The shortest time in which a change of the API reaches a node.
const LEARN_MIN: Duration = Duration::from_millis(20);

impl World {
    /// A node that holds something, or the first.
    pub(super) fn owner(&mut self) -> usize {
        let holds = |index: &usize| self.nodes[*index].holds.contains(&true);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(holds).collect();
        if owners.is_empty() { 0 } else { self.chance.pick(&owners) }
    }

    /// The process ends at once, and says nothing.
    pub(super) fn die(&mut self, index: usize) {
        self.log(|| format!("===== end n{index}"));
        self.nodes[index].clear(self.now);
        self.account_all(Cause::World);
    }

    /// The process is asked to end.
    pub(super) fn leave(&mut self, index: usize) {
        self.log(|| format!("===== leave n{index}"));
        self.nodes[index].leaving = self.nodes[index].is_up();
        self.feed(index, Input::Leave);
        self.account_all(Cause::World);
    }

    pub(super) fn freeze(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Stopped);
    }

    pub(super) fn pause(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Paused);
    }

    fn halt(&mut self, index: usize, time: Duration, how: Halt) {
        let node = &mut self.nodes[index];
        if !node.is_up() || node.halted.is_some() {
            return;
        }
        node.halted = Some(how);
        if how == Halt::Paused {
            node.clock.stop(self.now);
            self.unsteady.insert(index);
        }
        let life = node.life;
        self.log(|| format!("===== {how:?} n{index} for {time:.1?}"));
        self.account_all(Cause::World);
        self.after(time, move |world| world.resume(index, life, how, time));
    }

    fn resume(&mut self, index: usize, life: u32, how: Halt, time: Duration) {
        let node = &mut self.nodes[index];
        if node.life != life || !node.is_up() {
            return;
        }
        if how == Halt::Paused {
            node.clock.go_on(self.now);
        }
        node.halted = None;
        node.wake = None;
        let (fences, held) = (node.fences, (0..node.holds.len()).filter(|unit| node.holds[*unit]).collect::<Vec<_>>());
        self.log(|| format!("===== n{index} goes on"));
        // A question may be answered before anything else is done.
        self.look_at_gate(index, false);
        self.account_all(Cause::World);
        let part = self.nodes[index].part;
        let taken = held.iter().any(|unit| self.owners(part, *unit).iter().any(|owner| *owner != index));
        // What was taken sooner was handed over: the gate is for who was found dead.
        if how == Halt::Stopped && taken && time + INTERVAL >= DEATH_MIN {
            let stale = held.iter().find(|unit| {
                let owners = self.owners(part, **unit);
                owners.contains(&index) && owners.len() > 1
            });
            if let Some(unit) = stale {
                self.violate(Rule::Gate, format!("n{index} was stopped for {time:.1?} and answers for unit {unit}"));
            }
        }
        self.catch_up(index);
        self.account_all(Cause::World);
        let is_witnessed = self.bounds.fences.is_some() && self.unsteady.iter().all(|node| *node == index);
        if taken && time >= TAKEN_AFTER && is_witnessed {
            let since = self.now;
            self.after(FENCE_WITHIN, move |world| world.check_fenced(index, life, fences, &held, since));
        }
    }

    /// A node that goes on reads its clock or its sockets first, as it happens.
    fn catch_up(&mut self, index: usize) {
        if self.nodes[index].view_waits {
            self.show_view(index);
        }
        let clock_first = self.chance.happens(0.5);
        if clock_first {
            self.tick(index);
        }
        if std::mem::take(&mut self.nodes[index].heard_waits) {
            self.feed(index, Input::Heard);
        }
        for packet in std::mem::take(&mut self.nodes[index].stash) {
            self.receive(index, packet);
        }
        if !clock_first {
            self.tick(index);
        }
        self.catch_up_announcing(index);
    }

    /// It has fenced itself, or has yielded all that it had to those who claimed it meanwhile: then it has nothing to give up.
    fn check_fenced(&mut self, index: usize, life: u32, before: u64, held: &[usize], since: Instant) {
        let node = &self.nodes[index];
        let holds_on = held.iter().any(|unit| node.holds[*unit] && self.truth.units[*unit].taken < since);
        if node.life == life && node.works() && node.fences == before && holds_on {
            self.violate(Rule::Fence, format!("n{index} was frozen, lost what it had, and has not noticed"));
        }
    }

    /// Tears the wire: nodes with different numbers do not hear each other. One client is on each part, and one on the first, where a
    /// node is, too: what moves while clients alone are torn off nobody can tell them, as no node hears that they are back.
    pub(super) fn split(&mut self, parts: &[u8]) {
        self.log(|| format!("===== split {parts:?}"));
        let first = parts.iter().min().copied().unwrap_or(0);
        let parts: Vec<u8> = parts.iter().map(|part| part - first).collect();
        for (node, part) in self.nodes.iter_mut().zip(&parts) {
            node.part = *part;
        }
        self.parts = parts.iter().max().map_or(1, |last| last + 1);
        for (part, client) in (0..self.parts).zip(&mut self.clients) {
            client.part = part;
        }
        self.account_all(Cause::World);
    }

    /// Mends the wire.
    pub(super) fn heal(&mut self) {
        self.log(|| "===== heal".into());
        for node in &mut self.nodes {
            node.part = 0;
        }
        for client in &mut self.clients {
            client.part = 0;
        }
        self.parts = 1;
        self.account_all(Cause::World);
    }

    /// Tears one node off; now and then with a client on its side, whom it hears.
    pub(super) fn isolate(&mut self, index: usize) {
        let parts: Vec<u8> = (0..self.nodes.len()).map(|node| u8::from(node == index)).collect();
        self.split(&parts);
        if self.chance.happens(0.5) {
            self.clients[1].part = 0;
            self.account_all(Cause::World);
        }
    }

    pub(super) fn deafen(&mut self, index: usize, deaf: bool) {
        self.log(|| format!("===== n{index} deaf: {deaf}"));
        self.nodes[index].deaf = deaf;
        self.account_all(Cause::World);
    }

    pub(super) fn silence(&mut self, index: usize, mute: bool) {
        self.log(|| format!("===== n{index} mute: {mute}"));
        self.nodes[index].mute = mute;
        self.account_all(Cause::World);
    }

    /// From here on `deaf` does not hear `speaker`, or does so again.
    pub(super) fn cut(&mut self, speaker: usize, deaf: usize, cut: bool) {
        self.log(|| format!("===== n{deaf} does not hear n{speaker}: {cut}"));
        if cut {
            self.wire.cuts.insert((speaker, deaf));
        } else {
            self.wire.cuts.remove(&(speaker, deaf));
        }
        self.account_all(Cause::World);
    }

    /// A host that is no member begins to use the first address of a unit, or stops.
    pub(super) fn squat(&mut self, unit: usize, squats: bool) {
        self.log(|| format!("===== a stranger has unit {unit}: {squats}"));
        if squats {
            self.strangers.insert(unit, STRANGER_MAC);
        } else {
            self.strangers.remove(&unit);
        }
        self.account(unit, Cause::World);
    }

    /// A host that is no member announces the first address of a unit as its own; the clients believe it.
    pub(super) fn claim_as_stranger(&mut self, unit: usize) {
        self.log(|| format!("===== a stranger announces unit {unit}"));
        for client in &mut self.clients {
            client.cache[unit] = Some(STRANGER);
        }
        for index in 0..self.nodes.len() {
            self.tell_of(index, unit, STRANGER_MAC, true);
        }
    }

    /// What the rest of a node says of it.
    pub(super) fn says(&mut self, index: usize, draining: bool, unhealthy: bool) {
        self.log(|| format!("===== n{index} draining: {draining}, unhealthy: {unhealthy}"));
        self.truth.note_change(self.now);
        self.feed(index, Input::Says(Says { draining, unhealthy, ..Says::default() }));
    }

    /// A node's health checks of a unit begin to fail, or pass again.
    pub(super) fn fail(&mut self, index: usize, unit: usize, failing: bool) {
        self.log(|| format!("===== the checks of n{index} of unit {unit} fail: {failing}"));
        self.nodes[index].failing[unit] = failing;
        self.truth.note_change(self.now);
        self.show_view(index);
    }

    /// What gives a node's machine its units stands still, or goes on.
    pub(super) fn wedge(&mut self, index: usize, stuck: bool) {
        self.log(|| format!("===== n{index} stuck: {stuck}"));
        self.nodes[index].leaving = stuck;
        self.truth.note_change(self.now);
        self.feed(index, Input::Stuck(stuck));
        self.account_all(Cause::World);
    }

    /// The API changes now; every node learns of it after a lag of its own, the `stale` one after that of its own.
    pub(super) fn api(&mut self, lag: Duration, change: Change, stale: Option<(usize, Duration)>) {
        self.log(|| "===== the API changes".into());
        self.api.learn(&change);
        let change = Rc::new(change);
        for index in 0..self.nodes.len() {
            let wait = match stale {
                Some((node, wait)) if node == index => wait,
                _ => self.chance.between(LEARN_MIN, lag),
            };
            // A watch never tells of changes in another order than they were made in.
            let at = (self.now + wait).max(self.nodes[index].learns_at);
            self.nodes[index].learns_at = at;
            let change = Rc::clone(&change);
            self.after(at.since(self.now), move |world| world.learn(index, &change));
        }
        self.account_all(Cause::World);
    }

    fn learn(&mut self, index: usize, change: &Change) {
        self.log(|| format!("n{index} learns of the change"));
        Rc::make_mut(&mut self.nodes[index].view).learn(change);
        self.truth.note_change(self.now);
        self.show_view(index);
    }

    /// Each unit gets a random selection of the nodes as its candidates.
    pub(super) fn some_candidates(&mut self) -> Change {
        let nodes = self.nodes.len();
        let mut some = || {
            let count = 1 + self.chance.below(nodes - 1);
            only(nodes, &self.chance.some_of(nodes, count))
        };
        let candidates = (0..self.clients[0].cache.len()).map(|_| some()).collect();
        Change { candidates: Some(candidates), ..Change::default() }
    }

    /// A node learns the hello keys that it is to accept, newest first.
    pub(super) fn learn_keys(&mut self, index: usize, keys: Vec<Key>) {
        self.nodes[index].keys = KeyRing::new(keys);
        let ids = self.nodes[index].keys.ids();
        self.log(|| format!("n{index} learns the keys {ids:08x?}"));
        self.feed(index, Input::Keys(ids));
    }

    pub(super) fn leap(&mut self, index: usize, by: Duration) {
        self.log(|| format!("===== the clock of n{index} leaps by {by:?}"));
        let node = &mut self.nodes[index];
        node.clock.leap(self.now, by);
        self.unsteady.insert(index);
        node.wake = None;
        self.set_alarm(index);
        self.look_at_gate(index, false);
    }
}
