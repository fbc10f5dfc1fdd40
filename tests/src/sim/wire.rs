//! The wire between the nodes: what is sent arrives late, twice, in another order, or not at all. And what a node's machine
//! says is done here.

use super::event::{Arrival, Event, Packet};
use super::node::Node;
use super::truth::{Cause, Rule};
use super::world::World;
use ferrolb_proto::claim::{Input, LISTEN, Output};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long a frame is under way.
const DELAY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));
/// The share of frames that is lost, and that arrives twice, where a scenario says nothing else: a sound wire.
const LOSS: f64 = 0.002;
const DUPLICATION: f64 = 0.002;

/// The state of the wire.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// Something answers ARP in the place of the dead.
    pub(super) proxy: bool,
    /// Pairs of which the second does not hear the first.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    /// No client sends anything unasked.
    pub(super) quiet: bool,
    /// No client answers a node that asks whether it hears anything.
    pub(super) silent: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Self { loss: LOSS, duplication: DUPLICATION, proxy: false, cuts: BTreeSet::new(), quiet: false, silent: false }
    }
}

impl World {
    /// Does what a node's machine says.
    pub(super) fn obey(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].member.as_mut().and_then(super::member::Member::poll) {
            match output {
                Output::Send { to, key, frame } => self.send(index, to, key, frame),
                Output::Start(address) => self.start_answering(index, address),
                Output::Refresh(address) | Output::Defend(address) => self.refresh(index, address),
                Output::Stop(address) => self.stop_answering(index, address),
                Output::Probe { address, mac } => self.probe(index, address, mac),
                Output::TookOver(after) => {
                    self.log(|| format!("n{index} took over {after:.1?} after the last sign of life"))
                }
                Output::Check(address) => self.ask_for(index, address),
                Output::AskAround => self.ask_around(index),
                Output::Left => return self.die(index),
            }
        }
        let node = &mut self.nodes[index];
        let fences = node.member.as_ref().map_or(0, |member| member.counts().fences);
        let news = fences - std::mem::replace(&mut node.fences, fences);
        if news > 0 {
            self.log(|| format!("n{index} fences itself"));
            self.truth.outcome.fences += if self.truth.measures() { news } else { 0 };
        }
        self.look_at_gate(index, false);
        self.set_alarm(index);
    }

    fn start_answering(&mut self, index: usize, address: IpAddr) {
        let age = self.now.since(self.nodes[index].started);
        if !self.nodes[index].answers.insert(address) {
            self.violate(Rule::Contract, format!("n{index} starts {address}, which it has"));
        }
        if age < LISTEN * 99 / 100 {
            self.violate(Rule::Listen, format!("n{index} claims {address} {age:?} after its start"));
        }
        let Some(unit) = self.catalogue.unit_named(address) else { return };
        self.log(|| format!("n{index} takes unit {unit}"));
        self.check_taking(index, unit);
        self.check_reason(index, unit);
        self.nodes[index].holds[unit] = true;
        self.note_move(unit);
        self.look_at_gate(index, false);
        self.account(unit, Cause::Machine);
        self.begin_announcing(index, unit);
    }

    fn refresh(&mut self, index: usize, address: IpAddr) {
        if !self.nodes[index].answers.contains(&address) {
            self.violate(Rule::Contract, format!("n{index} refreshes {address}, which it has not"));
        }
        let Some(unit) = self.catalogue.unit_named(address) else { return };
        self.log(|| format!("n{index} defends unit {unit}"));
        self.check_defence(index, unit);
        self.begin_announcing(index, unit);
    }

    fn stop_answering(&mut self, index: usize, address: IpAddr) {
        if !self.nodes[index].answers.remove(&address) {
            self.violate(Rule::Contract, format!("n{index} stops {address}, which it has not"));
        }
        let Some(unit) = self.catalogue.unit_named(address) else { return };
        self.log(|| format!("n{index} gives up unit {unit}"));
        self.nodes[index].holds[unit] = false;
        self.truth.note_stop(unit, self.now);
        self.nodes[index].announcements[unit] += 1;
        self.account(unit, Cause::Machine);
    }

    fn send(&mut self, index: usize, to: Option<Mac>, key: u32, frame: Frame) {
        self.truth.outcome.frames += u64::from(self.truth.measures());
        self.note_words(index, &frame);
        if !matches!(&frame.body, Body::Hello { failing, .. } if failing.addresses.is_empty()) {
            self.log(|| format!("n{index} -> {} {}", to.map_or("*".into(), spoken), said(&frame)));
        }
        if let (Body::Challenge { .. }, Some(mac)) = (&frame.body, to)
            && let Some(asked) = self.nodes[index].asked.get_mut(Node::index_of(mac))
        {
            *asked += 1;
        }
        let node = &self.nodes[index];
        if node.mute {
            return;
        }
        let Some(signing) = node.keys.find(key) else {
            return self.violate(Rule::Contract, format!("n{index} signs with the key {key:08x}, which it has not"));
        };
        let bytes = self.codec.then(|| frame.encode(node.mac, to, signing));
        let packet = Packet { from: index, source: node.mac, key, frame, bytes };
        let mut arrivals = Vec::new();
        match to {
            Some(mac) => self.carry(index, Node::index_of(mac), &mut arrivals),
            None => (0..self.nodes.len()).for_each(|receiver| self.carry(index, receiver, &mut arrivals)),
        }
        self.queue.push_frame(arrivals, packet);
    }

    /// Puts a frame on its way to one receiver, if it gets there.
    fn carry(&mut self, from: usize, receiver: usize, arrivals: &mut Vec<Arrival>) {
        let Some(node) = self.nodes.get(receiver) else { return };
        let (life, part) = (node.life, self.nodes[from].part);
        if receiver == from || !node.is_up() || node.part != part {
            return;
        }
        if !self.wire.cuts.is_empty() && self.wire.cuts.contains(&(from, receiver)) {
            return;
        }
        let copies = if self.chance.happens(self.wire.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.chance.happens(self.wire.loss) {
                arrivals.push(Arrival { at: self.now + self.delay(), node: receiver, life, part });
            }
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        self.chance.between(DELAY.0, DELAY.1)
    }

    /// A frame reaches a node.
    pub(super) fn arrive(&mut self, arrival: Arrival, packet: Rc<Packet>) {
        let Arrival { node: index, life, part, .. } = arrival;
        let node = &mut self.nodes[index];
        if !node.is_up() || node.life != life || node.deaf || node.part != part {
            return;
        }
        if node.halted.is_some() {
            node.keep(packet);
        } else {
            self.receive(index, packet);
        }
    }

    /// A node reads a frame.
    pub(super) fn receive(&mut self, index: usize, packet: Rc<Packet>) {
        let from = packet.from;
        let ring = &self.nodes[index].keys;
        let read = match &packet.bytes {
            Some(bytes) => Frame::decode(bytes, ring).ok(),
            None if !ring.ids().contains(&packet.key) => None,
            // The last receiver takes the frame itself.
            None => Some(match Rc::try_unwrap(packet) {
                Ok(packet) => (packet.source, packet.frame),
                Err(packet) => (packet.source, packet.frame.clone()),
            }),
        };
        if let Some(heard) = self.nodes[index].heard.get_mut(from) {
            *heard = self.now;
            self.nodes[index].asked[from] = 0;
        }
        if let Some((source, frame)) = read {
            self.feed(index, Input::Frame { source, frame });
        }
    }

    /// A node asks by ARP for an address from the host at `mac`.
    fn probe(&mut self, index: usize, address: IpAddr, mac: Mac) {
        self.log(|| format!("n{index} asks {} by ARP for {address}", spoken(mac)));
        let (life, part) = (self.nodes[index].life, self.nodes[index].part);
        let lost = self.chance.happens(self.wire.loss) || self.chance.happens(self.wire.loss);
        let wait = self.delay() + self.delay();
        let Some(target) = self.nodes.get(Node::index_of(mac)).filter(|target| target.part == part) else { return };
        let answers = target.works() && target.gate_open && target.answers.contains(&address) && !lost;
        if answers || self.wire.proxy {
            self.queue.push(self.now + wait, Event::ArpAnswer { node: index, life, mac });
        }
    }

    pub(super) fn arp_answered(&mut self, index: usize, life: u32, mac: Mac) {
        let node = &self.nodes[index];
        if node.life == life && node.is_up() && !node.deaf {
            self.feed(index, Input::ArpAnswer(mac));
        }
    }

    /// A node asks the clients on its wire for anything at all.
    fn ask_around(&mut self, index: usize) {
        self.log(|| format!("n{index} asks around"));
        let (life, part) = (self.nodes[index].life, self.nodes[index].part);
        let there = self.clients.iter().filter(|client| client.part == part).count();
        let lost = self.chance.happens(self.wire.loss) || self.nodes[index].mute;
        if there > 0 && !lost && !self.wire.silent {
            let wait = self.delay() + self.delay();
            self.queue.push(self.now + wait, Event::Heard { node: index, life });
        }
    }

    /// A node asks the wire who has an address: members that answer for it do, a stranger that uses it, and the proxy, if it knows.
    fn ask_for(&mut self, index: usize, address: IpAddr) {
        let Some(unit) = self.catalogue.unit_named(address) else { return };
        self.log(|| format!("n{index} asks who has {address}"));
        let part = self.nodes[index].part;
        let proxied = self.proxied[unit].filter(|_| self.wire.proxy);
        let others = self.owners(part, unit).into_iter().filter(|owner| *owner != index);
        let mut macs: Vec<Mac> = others.map(|owner| self.nodes[owner].mac).collect();
        macs.extend(self.strangers.get(&unit).copied().into_iter().chain(proxied));
        let own = self.nodes[index].mac;
        for mac in macs.into_iter().filter(|mac| *mac != own) {
            self.tell_of(index, unit, mac, false);
        }
    }

    /// An ARP frame that says who has a unit's first address goes to a node.
    pub(super) fn tell_of(&mut self, index: usize, unit: usize, mac: Mac, announced: bool) {
        let lost = self.chance.happens(self.wire.loss);
        let at = self.now + self.delay() + if announced { Duration::ZERO } else { self.delay() };
        if !lost {
            let life = self.nodes[index].life;
            self.queue.push(at, Event::Foreign { node: index, life, unit, mac, announced });
        }
    }

    /// Such a frame reaches it.
    pub(super) fn told_of(&mut self, index: usize, life: u32, unit: usize, mac: Mac, announced: bool) {
        let node = &self.nodes[index];
        if node.life == life && node.is_up() && !node.deaf {
            let address = self.catalogue.addresses(unit)[0];
            self.feed(index, Input::Foreign { address, mac, announced });
        }
    }

    /// A frame that is none of ours reaches a node.
    pub(super) fn hear(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if node.life == life && node.is_up() && !node.deaf {
            node.heard_waits = node.halted.is_some();
            self.feed(index, Input::Heard);
        }
    }

    /// Whether some hear others that do not hear them: then two may answer, which is documented.
    pub(super) fn is_one_way(&self) -> bool {
        !self.wire.cuts.is_empty()
    }
}

/// A node's MAC as a person names it in a trace.
fn spoken(mac: Mac) -> String {
    format!("n{}", Node::index_of(mac))
}

/// What a frame says, in a trace.
fn said(frame: &Frame) -> String {
    let list = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match &frame.body {
        Body::Hello { generation, failing, .. } => {
            format!("HELLO of {generation}, fails for {}", list(&failing.addresses))
        }
        Body::Claim { before, generation, addresses, keeps } => {
            format!("CLAIM {before}>{generation} keep {keeps:.1?} {}", list(addresses))
        }
        Body::Release { before, generation, addresses, why } => {
            format!("RELEASE {before}>{generation} {why:?} {}", list(addresses))
        }
        Body::Challenge { .. } => "CHALLENGE".into(),
        Body::Answer { .. } => "ANSWER".into(),
        Body::Ask => "ASK".into(),
        Body::List { generation, part, parts, addresses, keeps } => {
            format!("LIST of {generation}, {} of {parts}, keep {keeps:.1?}: {}", part + 1, list(addresses))
        }
    }
}
