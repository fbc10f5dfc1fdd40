//! Network segment between the nodes: frames arrive delayed, twice, reordered, or not at all. This
//! module also executes the outputs of the nodes' claim machines.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};
use ferrolb_speaker_core::claim::{Input, LISTEN_PHASE, Move, Output};

use super::checker::{Cause, Rule};
use super::detection_times::LostFrames;
use super::event::{Delivery, Event, Packet, Path};
use super::node::SimNode;
use super::trace::{describe_frame, node_name};
use super::world::SimWorld;

/// Minimum and maximum delay of a frame.
const DELAY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));
/// Default share of lost frames. [`DUPLICATION`] is the default share of duplicated frames. Both
/// are the shares of a healthy segment.
pub(super) const LOSS: f64 = 0.002;
const DUPLICATION: f64 = 0.002;

/// State of the segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    /// True if a proxy replies to ARP requests in place of failed nodes.
    pub(super) proxy: bool,
    /// Pairs in which the second node does not receive the first node's frames.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    /// Frames with another detection time that are lost; None if the scenario loses no such frames.
    pub(super) lost_frames: Option<LostFrames>,
    /// Nodes that drop the frames of the ownership protocol which arrive. ARP passes.
    pub(super) filters: BTreeSet<usize>,
    pub(super) second_path: SecondPath,
    /// True if clients send no broadcast frames on their own.
    pub(super) no_client_broadcasts: bool,
    /// True if clients ignore the requests by which a node checks that it still receives frames.
    pub(super) no_client_replies: bool,
}

/// Second path between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecondPath {
    /// Datagrams take the way of the other frames, and no packet filter drops them.
    Segment,
    /// Datagrams take another network, which has no faults.
    OtherNetwork,
    /// A packet filter drops all datagrams.
    Blocked,
}

impl SecondPath {
    /// All second paths; the most frequent one in practice twice.
    pub(super) const ALL: [Self; 4] =
        [Self::Segment, Self::Segment, Self::OtherNetwork, Self::Blocked];
}

impl Segment {
    pub(super) const fn new(second_path: SecondPath) -> Self {
        Self {
            loss: LOSS,
            duplication: DUPLICATION,
            proxy: false,
            cuts: BTreeSet::new(),
            lost_frames: None,
            filters: BTreeSet::new(),
            second_path,
            no_client_broadcasts: false,
            no_client_replies: false,
        }
    }
}

impl SimWorld {
    /// Executes the outputs of a node's machine.
    pub(super) fn execute_outputs(&mut self, index: usize) {
        while let Some(output) =
            self.nodes[index].machine.as_mut().and_then(super::faulty_machine::FaultyMachine::poll)
        {
            match output {
                Output::Send { to, key, frame } => self.send(index, to, key, frame),
                Output::SendDatagram { to, key, frame } => {
                    self.send_datagram(index, &to, key, frame)
                }
                Output::Start(address) => self.start_announcing(index, address),
                Output::AnnounceSeries(address) | Output::Defend(address) => {
                    self.announce_again(index, address)
                }
                Output::Stop(address) => self.stop_announcing(index, address),
                Output::LivenessProbe { address, mac, .. } => {
                    self.send_liveness_probe(index, address, mac)
                }
                Output::Moved(moved) => self.record_cause(index, &moved),
                Output::ArpProbe(address) => self.probe_address(index, address),
                Output::ProbeNeighbors => self.probe_neighbors(index),
                Output::Finished => return self.crash(index),
            }
        }
        let node = &mut self.nodes[index];
        let fences = node.machine.as_ref().map_or(0, |machine| machine.counts().fences);
        let new_fences = fences - std::mem::replace(&mut node.counted_fences, fences);
        let failures = node.machine.as_ref().map_or(0, |machine| machine.counts().peer_failures);
        let new_failures = failures - std::mem::replace(&mut node.counted_failures, failures);
        if self.checker.is_measuring() {
            self.checker.outcome.failures += new_failures;
        }
        if new_fences > 0 {
            self.log(|| format!("n{index} fences itself"));
            self.checker.outcome.fences += if self.checker.is_measuring() { new_fences } else { 0 };
        }
        self.check_answer_lease(index, false);
        self.schedule_wake(index);
    }

    /// Records the cause of a move that the new owner reports.
    fn record_cause(&mut self, index: usize, moved: &Move) {
        let Move { address, from, to, cause, .. } = moved;
        self.log(|| {
            let from = from.as_deref().unwrap_or("none");
            format!("n{index}: {address} moves from {from} to {to}, {}", cause.name())
        });
        if let Some(unit) =
            self.catalog.unit_of(*address).filter(|_| **to == *self.nodes[index].name)
        {
            self.checker.units[unit].move_cause = Some(*cause);
        }
    }

    fn start_announcing(&mut self, index: usize, address: IpAddr) {
        let age = self.now.since(self.nodes[index].started);
        if !self.nodes[index].announced.insert(address) {
            self.report_violation(
                Rule::Contract,
                format!("n{index} starts {address}, which it already announces"),
            );
        }
        if age < LISTEN_PHASE * 99 / 100 {
            self.report_violation(
                Rule::Listen,
                format!("n{index} claims {address} {age:?} after its start"),
            );
        }
        let Some(unit) = self.catalog.unit_of(address) else { return };
        self.log(|| format!("n{index} takes unit {unit}"));
        self.check_taking(index, unit);
        if self.answered_probes.has(unit, index, self.segment.loss > 0.0, self.now) {
            self.report_violation(
                Rule::ForeignHost,
                format!("n{index} takes unit {unit}, which a foreign host uses"),
            );
        }
        self.answered_probes.forget(unit);
        self.check_reason(index, unit);
        self.nodes[index].owns[unit] = true;
        self.record_move(index, unit);
        self.check_answer_lease(index, false);
        self.update_state(unit, Cause::Machine);
        self.begin_announcing(index, unit);
    }

    fn announce_again(&mut self, index: usize, address: IpAddr) {
        if !self.nodes[index].announced.contains(&address) {
            self.report_violation(
                Rule::Contract,
                format!("n{index} announces {address} again, which it does not announce"),
            );
        }
        let Some(unit) = self.catalog.unit_of(address) else { return };
        self.log(|| format!("n{index} defends unit {unit}"));
        self.check_defense(index, unit);
        self.begin_announcing(index, unit);
    }

    fn stop_announcing(&mut self, index: usize, address: IpAddr) {
        if !self.nodes[index].announced.remove(&address) {
            self.report_violation(
                Rule::Contract,
                format!("n{index} stops {address}, which it does not announce"),
            );
        }
        let Some(unit) = self.catalog.unit_of(address) else { return };
        self.log(|| format!("n{index} releases unit {unit}"));
        self.nodes[index].owns[unit] = false;
        self.nodes[index].announcement_numbers[unit] += 1;
        self.update_state(unit, Cause::Machine);
    }

    fn send(&mut self, index: usize, to: Option<Mac>, key: u32, frame: Frame) {
        self.checker.outcome.frames += u64::from(self.checker.is_measuring());
        self.record_frame(index, &frame);
        self.record_detection_time(index, &frame);
        if !matches!(&frame.body, Body::Hello { .. }) {
            self.log(|| {
                format!(
                    "n{index} -> {} {}",
                    to.map_or("*".into(), node_name),
                    describe_frame(&frame)
                )
            });
        }
        if let (Body::Challenge { .. }, Some(mac)) = (&frame.body, to)
            && let Some(challenges) = self.nodes[index].challenges.get_mut(SimNode::index_of(mac))
        {
            *challenges += 1;
        }
        let node = &self.nodes[index];
        if node.sends_nothing {
            return;
        }
        let Some(signing_key) = node.keys.find(key) else {
            return self.report_violation(
                Rule::Contract,
                format!("n{index} signs with the key {key:08x}, which it does not have"),
            );
        };
        let bytes = self.codec.then(|| frame.encode(node.mac, to, signing_key));
        let path = Path::Segment;
        let packet = Packet { from: index, source: node.mac, key, frame, bytes, path };
        let mut arrivals = Vec::new();
        match to {
            Some(mac) => self.schedule_delivery(index, SimNode::index_of(mac), &mut arrivals),
            None => (0..self.nodes.len())
                .for_each(|receiver| self.schedule_delivery(index, receiver, &mut arrivals)),
        }
        self.queue.push_frame(arrivals, packet);
    }

    /// Sends a datagram of the second path.
    fn send_datagram(&mut self, index: usize, to: &str, key: u32, frame: Frame) {
        self.log(|| format!("n{index} -> {to} by UDP: {}", describe_frame(&frame)));
        let node = &self.nodes[index];
        let Some(receiver) = self.nodes.iter().position(|node| *node.name == *to) else { return };
        let Some(signing_key) = node.keys.find(key) else { return };
        let bytes = self.codec.then(|| frame.encode_datagram(signing_key));
        let path = Path::Second;
        let packet = Packet { from: index, source: node.mac, key, frame, bytes, path };
        let mut arrivals = Vec::new();
        match self.segment.second_path {
            SecondPath::Blocked => {}
            SecondPath::Segment if node.sends_nothing => {}
            SecondPath::Segment => self.schedule_delivery(index, receiver, &mut arrivals),
            SecondPath::OtherNetwork => {
                let (at, process_number) =
                    (self.now + self.delay(), self.nodes[receiver].process_number);
                arrivals.push(Delivery { at, node: receiver, process_number, part: 0 });
            }
        }
        self.queue.push_frame(arrivals, packet);
    }

    /// Schedules the delivery of a frame to one receiver, unless the frame is lost.
    fn schedule_delivery(&mut self, from: usize, receiver: usize, arrivals: &mut Vec<Delivery>) {
        let Some(node) = self.nodes.get(receiver) else { return };
        let (process_number, part) = (node.process_number, self.nodes[from].part);
        if receiver == from || !node.is_up() || node.part != part {
            return;
        }
        if !self.segment.cuts.is_empty() && self.segment.cuts.contains(&(from, receiver)) {
            return;
        }
        if self.segment.lost_frames.as_mut().is_some_and(|lost| lost.lose(from, receiver)) {
            return;
        }
        let copies = if self.rng.chance(self.segment.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.rng.chance(self.segment.loss) {
                arrivals.push(Delivery {
                    at: self.now + self.delay(),
                    node: receiver,
                    process_number,
                    part,
                });
            }
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        self.rng.between(DELAY.0, DELAY.1)
    }

    /// Delivers a frame of the ownership protocol to a node, unless the node cannot receive the
    /// frame.
    pub(super) fn arrive(&mut self, arrival: Delivery, packet: Rc<Packet>) {
        let Delivery { node: index, process_number, part, .. } = arrival;
        let node = &mut self.nodes[index];
        let is_on_segment = !node.isolated && node.part == part;
        let arrives = match (packet.path, self.segment.second_path) {
            (Path::Segment, _) => is_on_segment && !self.segment.filters.contains(&index),
            (Path::Second, SecondPath::OtherNetwork) => true,
            (Path::Second, _) => is_on_segment,
        };
        if !node.is_up() || node.process_number != process_number || !arrives {
            return;
        }
        if node.halted.is_some() {
            node.queue_frame(packet);
        } else {
            self.receive(index, packet);
        }
    }

    /// Makes a node read and process a frame.
    pub(super) fn receive(&mut self, index: usize, packet: Rc<Packet>) {
        let (from, path) = (packet.from, packet.path);
        let keys = &self.nodes[index].keys;
        let decoded = match &packet.bytes {
            Some(bytes) if path == Path::Second => {
                Frame::decode_datagram(bytes, keys).ok().map(|frame| (packet.source, frame))
            }
            Some(bytes) => Frame::decode(bytes, keys).ok(),
            None if !keys.ids().contains(&packet.key) => None,
            // The last receiver takes the frame without a copy.
            None => Some(match Rc::try_unwrap(packet) {
                Ok(packet) => (packet.source, packet.frame),
                Err(packet) => (packet.source, packet.frame.clone()),
            }),
        };
        if let Some(received_at) = self.nodes[index].last_frame.get_mut(from)
            && path == Path::Segment
        {
            *received_at = self.now;
            self.nodes[index].challenges[from] = 0;
        }
        if let Some((source, frame)) = decoded {
            self.pass_input(
                index,
                match path {
                    Path::Segment => Input::Frame { source, frame },
                    Path::Second => Input::Datagram(frame),
                },
            );
        }
    }

    /// Sends a node's ARP request to the node with the MAC `mac`, for an address or for one of the
    /// node itself.
    fn send_liveness_probe(&mut self, index: usize, address: Option<IpAddr>, mac: Mac) {
        self.log(|| format!("n{index} sends an ARP request to {} for {address:?}", node_name(mac)));
        let node = &self.nodes[index];
        let (process_number, part, own) = (node.process_number, node.part, node.mac);
        let sends_nothing = node.sends_nothing;
        let lost = self.rng.chance(self.segment.loss) || self.rng.chance(self.segment.loss);
        let wait = self.delay() + self.delay();
        let other = SimNode::index_of(mac);
        let Some(target) = self.nodes.get(other).filter(|target| target.part == part) else {
            return;
        };
        let has_address =
            address.is_none_or(|address| target.lease_valid && target.announced.contains(&address));
        let is_cut = |from, to| self.segment.cuts.contains(&(from, to));
        let arrives = !lost && !sends_nothing && !is_cut(index, other);
        let replies = arrives && target.works() && has_address;
        if replies {
            self.pass_input(other, Input::RequestAnswered(own));
        }
        if (replies && !self.segment.cuts.contains(&(other, index)))
            || (arrives && self.segment.proxy)
        {
            self.queue.push(self.now + wait, Event::ArpReply { node: index, process_number, mac });
        }
    }

    pub(super) fn receive_arp_reply(&mut self, index: usize, process_number: u32, mac: Mac) {
        let node = &self.nodes[index];
        if node.process_number == process_number && node.is_up() && !node.isolated {
            self.pass_input(index, Input::ArpReply(mac));
        }
    }

    /// Sends requests of a node to the clients in the node's part of the segment. A reply proves
    /// that the node still receives frames.
    fn probe_neighbors(&mut self, index: usize) {
        self.log(|| format!("n{index} sends requests to its neighbors"));
        let (process_number, part) = (self.nodes[index].process_number, self.nodes[index].part);
        let clients = self.clients.iter().filter(|client| client.part == part).count();
        let lost = self.rng.chance(self.segment.loss) || self.nodes[index].sends_nothing;
        if clients > 0 && !lost && !self.segment.no_client_replies {
            let wait = self.delay() + self.delay();
            self.queue.push(self.now + wait, Event::ClientReply { node: index, process_number });
        }
    }

    /// Sends a node's ARP probe for an address. The replies come from the owners, from a foreign
    /// host that uses the address, and from the proxy if it has an entry for the address.
    fn probe_address(&mut self, index: usize, address: IpAddr) {
        let Some(unit) = self.catalog.unit_of(address) else { return };
        self.log(|| format!("n{index} sends an ARP probe for {address}"));
        let part = self.nodes[index].part;
        let proxied = self.proxy_entries[unit].filter(|_| self.segment.proxy);
        let others = self.owners(part, unit).into_iter().filter(|owner| *owner != index);
        let mut macs: Vec<Mac> = others.map(|owner| self.nodes[owner].mac).collect();
        macs.extend(self.foreign_hosts.get(&unit).copied().into_iter().chain(proxied));
        let own = self.nodes[index].mac;
        for mac in macs.into_iter().filter(|mac| *mac != own) {
            self.send_foreign_arp(index, unit, mac, false);
        }
    }

    /// Sends a node an ARP frame in which the host with the MAC `mac` uses a unit's first address.
    /// The frame is an announcement, or the reply to an ARP probe of the node.
    pub(super) fn send_foreign_arp(
        &mut self,
        index: usize,
        unit: usize,
        mac: Mac,
        announced: bool,
    ) {
        let is_cut = self.segment.cuts.contains(&(SimNode::index_of(mac), index));
        let lost = self.rng.chance(self.segment.loss) || is_cut;
        let at = self.now + self.delay() + if announced { Duration::ZERO } else { self.delay() };
        if !lost {
            let process_number = self.nodes[index].process_number;
            self.queue
                .push(at, Event::ForeignArp { node: index, process_number, unit, mac, announced });
        }
    }

    /// Delivers to a node an ARP frame in which the host with the MAC `mac` uses a unit's first
    /// address.
    pub(super) fn receive_foreign_arp(
        &mut self,
        index: usize,
        process_number: u32,
        unit: usize,
        mac: Mac,
        announced: bool,
    ) {
        let node = &self.nodes[index];
        if node.process_number == process_number && node.is_up() && !node.isolated {
            let is_answer = !announced && self.foreign_hosts.get(&unit) == Some(&mac);
            let owners = self.owners(node.part, unit);
            if is_answer && (owners.is_empty() || owners.contains(&index)) {
                self.answered_probes.record(unit, index, self.now);
            }
            let address = self.catalog.address(unit);
            self.pass_input(index, Input::ForeignFrame { address, mac, announced });
        }
    }

    /// Delivers to a node a frame from a host that is not a node, as this input.
    pub(super) fn receive_foreign_frame(
        &mut self,
        index: usize,
        process_number: u32,
        input: Input,
    ) {
        let node = &mut self.nodes[index];
        if node.process_number == process_number && node.is_up() && !node.isolated {
            node.foreign_frame_pending = node.halted.is_some();
            self.pass_input(index, input);
        }
    }

    /// Returns whether frames between two nodes are delivered in one direction only, and there is
    /// no second path. In this case a unit may have two owners, which is a documented limit of the
    /// protocol.
    pub(super) fn is_one_way(&self) -> bool {
        !self.segment.cuts.is_empty() && self.segment.second_path != SecondPath::OtherNetwork
    }
}
