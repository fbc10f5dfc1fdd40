//! Claim machines on a simulated segment with a virtual clock. Every frame is signed, sent and
//! decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_core::election::Unit;
use ferrolb_core::election::{Candidate, order};
use ferrolb_proto::wire::hello::Frame;
use ferrolb_proto::wire::hello::{
    Body, Claim, ClaimRank, ClaimSetSummary, Flags, HelloDecodeError, HelloKey, HelloKeyRing,
    Stretch,
};

use super::*;

mod arp;
mod bounded_work;
mod busy;
mod claimants;
mod doubts;
mod failback;
mod faults;
mod foreign;
mod health;
mod keys;
mod many_owners;
mod missed_changes;
mod moves;
mod newcomers;
mod ownership;
mod peer;
mod second_path;
mod self_check;
mod shared;
mod units;

use peer::{TestPeer, claim, claim_with, hand_over, hello, known_claims};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 200));

const NODES: [&str; 3] = ["node1", "node2", "node3"];

struct TestNode {
    name: Box<str>,
    mac: Mac,
    machine: ClaimMachine,
    announced: BTreeSet<IpAddr>,
    up: bool,
    /// True if all frames from and to the node are lost.
    partitioned: bool,
    stalled: bool,
    /// Time for which the node's clock stood still.
    clock_lag: Duration,
    /// Time by which the node's clock is ahead.
    clock_lead: Duration,
    /// True if all frames to the node are lost, and frames from the node arrive.
    receives_nothing: bool,
    /// True if all frames from the node are lost, and frames to the node arrive.
    is_mute: bool,
    /// True if a packet filter drops the frames of the ownership protocol that arrive at the node.
    filters: bool,
    finished: bool,
    /// Values of the node's [`Output::Moved`] outputs.
    moves: Vec<Move>,
    /// Silence before the failovers among `moves`.
    failovers: Vec<Duration>,
    probed: Vec<IpAddr>,
    /// Number of the node's [`Output::Start`] outputs.
    starts: usize,
    /// Number of the node's [`Output::AnnounceSeries`] outputs.
    announce_series: usize,
    /// Number of the node's [`Output::Defend`] outputs.
    defenses: usize,
    multicast_frames_sent: u32,
    ring: HelloKeyRing,
}

impl TestNode {
    /// Moves the node's clock forward.
    fn advance_clock(&mut self, by: Duration) {
        self.clock_lead += by;
    }

    /// Returns the simulation time at which the node's clock shows `at`.
    fn segment_time(&self, at: Instant) -> Instant {
        Instant::ZERO + (self.clock_lag + at.since(Instant::ZERO)).saturating_sub(self.clock_lead)
    }

    /// Returns the time that the node's clock shows at the simulation time `now`.
    fn clock(&self, now: Instant) -> Instant {
        Instant::ZERO + (self.clock_lead + now.since(Instant::ZERO)).saturating_sub(self.clock_lag)
    }
}

/// Path of a frame: the segment with the destination, or the second path to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    Segment(Option<Mac>),
    Second(Arc<str>),
}

/// A frame in transit: index of the sender, path, bytes.
type FrameInTransit = (usize, Path, Vec<u8>);

/// A simulated network segment with a delay of 0.2 ms.
struct Segment {
    now: Instant,
    nodes: Vec<TestNode>,
    /// Frames in transit, by time of arrival and number of the frame.
    in_transit: BTreeMap<(Instant, usize), FrameInTransit>,
    sent: usize,
    ring: HelloKeyRing,
    settings: fn(&mut ClaimConfig),
    /// Selects the frames to lose, by their number.
    is_lost: fn(usize) -> bool,
    /// True if every multicast frame is lost.
    loses_multicast: bool,
    /// True if a device replies to ARP for failed nodes.
    proxy: bool,
    /// True if foreign hosts reply to the requests of [`Output::ProbeNeighbors`].
    hosts_reply: bool,
    /// True if the second path leads through another network than the segment. Otherwise it does
    /// not exist.
    has_second_path: bool,
    /// True if the announcements of a node arrive at the others.
    announcements_arrive: bool,
    /// For each watched address: the time since which it has no owner, and the longest time without
    /// an owner.
    gaps: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
    /// For each watched address: the time since which it has several owners, and the longest time
    /// with several owners.
    overlaps: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(name: &str, epoch: u64) -> ClaimConfig {
    let failback_delay = Some(Duration::from_secs(30));
    ClaimConfig {
        node: name.into(),
        epoch,
        hello_interval: ms(50),
        hello_misses: 3,
        detection_time_max: Duration::from_secs(2),
        failback_delay,
    }
}

/// Returns the unit of an address whose candidates have the order for `ordered_by`.
fn unit_ordered_by(ordered_by: IpAddr, address: IpAddr, nodes: &[&str]) -> Arc<Unit> {
    let candidate = |name| Candidate { node: Arc::from(name), ..Candidate::default() };
    let names: BTreeSet<&str> = nodes.iter().copied().collect();
    let candidates = names.into_iter().map(candidate).collect();
    Arc::new(Unit::new(address, ordered_by, candidates))
}

/// Returns the unit with this change of each candidate.
fn change_candidates(unit: &Unit, change: impl FnMut(&mut Candidate)) -> Arc<Unit> {
    let mut unit = unit.clone();
    Arc::make_mut(&mut unit.candidates).iter_mut().for_each(change);
    Arc::new(unit)
}

fn unit(address: IpAddr, nodes: &[&str]) -> Arc<Unit> {
    unit_ordered_by(address, address, nodes)
}

/// Returns the input that replaces all units of a machine.
fn replace_units(machine: &ClaimMachine, units: Vec<Arc<Unit>>) -> Input {
    let all: BTreeMap<_, _> = units.into_iter().map(|unit| (unit.address, unit)).collect();
    let removed = machine.ownership.addresses().filter(|address| !all.contains_key(*address));
    Input::Units { removed: removed.copied().collect(), changed: all.into_values().collect() }
}

/// Replaces all units of a machine.
fn set_units(machine: &mut ClaimMachine, units: Vec<Arc<Unit>>, now: Instant) {
    machine.handle(replace_units(machine, units), now);
}

/// Makes units proven, as a claim and a release of a peer do.
fn prove(machine: &mut ClaimMachine, addresses: &[IpAddr], now: Instant) {
    machine.ownership.note_moves(addresses, now);
}

/// Returns `nodes` sorted by their order for the address, the best first.
fn ranked<'a>(nodes: &[&'a str], address: IpAddr) -> Vec<&'a str> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|name| order(name, &address.to_string()));
    nodes
}

impl Segment {
    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| ())
    }

    /// Creates a segment whose nodes have the changes of `settings` in their configuration.
    fn with(names: &[&str], settings: fn(&mut ClaimConfig)) -> Self {
        let mut segment = Self {
            settings,
            now: Instant::ZERO,
            nodes: Vec::new(),
            in_transit: BTreeMap::new(),
            sent: 0,
            ring: HelloKeyRing::new(vec![HelloKey::new([7; 32])]),
            is_lost: |_| false,
            loses_multicast: false,
            proxy: false,
            hosts_reply: true,
            has_second_path: false,
            announcements_arrive: false,
            gaps: BTreeMap::new(),
            overlaps: BTreeMap::new(),
        };
        for name in names {
            segment.start(name);
        }
        segment
    }

    /// Starts or restarts a node.
    fn start(&mut self, name: &str) {
        self.nodes.retain(|node| *node.name != *name);
        let id = self.sent as u64 * 100 + self.nodes.len() as u64 + 1;
        let mac =
            Mac([2, 0, 0, 0, name.as_bytes()[name.len() - 2], name.as_bytes()[name.len() - 1]]);
        let mut config = config(name, id);
        (self.settings)(&mut config);
        let machine = ClaimMachine::new(config, self.now);
        self.nodes.push(TestNode {
            name: name.into(),
            mac,
            machine,
            announced: BTreeSet::new(),
            up: true,
            partitioned: false,
            stalled: false,
            clock_lag: Duration::ZERO,
            clock_lead: Duration::ZERO,
            receives_nothing: false,
            is_mute: false,
            filters: false,
            finished: false,
            moves: Vec::new(),
            failovers: Vec::new(),
            probed: Vec::new(),
            starts: 0,
            announce_series: 0,
            defenses: 0,
            multicast_frames_sent: 0,
            ring: self.ring.clone(),
        });
        let keys = Input::Keys(self.ring.ids());
        self.input(name, keys);
    }

    fn index(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| *node.name == *name).expect("a node with this name")
    }

    fn node(&mut self, name: &str) -> &mut TestNode {
        let index = self.index(name);
        &mut self.nodes[index]
    }

    /// Returns how many multicast frames a node has sent.
    fn multicast_frames_sent(&mut self, name: &str) -> u32 {
        self.node(name).multicast_frames_sent
    }

    fn input(&mut self, name: &str, input: Input) {
        let index = self.index(name);
        let now = self.nodes[index].clock(self.now);
        self.nodes[index].machine.handle(input, now);
        self.handle_outputs(index);
    }

    fn units(&mut self, units: &[Arc<Unit>]) {
        for name in self.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            self.set_units(&name, units.to_vec());
        }
    }

    /// Replaces all units of one node.
    fn set_units(&mut self, name: &str, units: Vec<Arc<Unit>>) {
        let change = replace_units(&self.node(name).machine, units);
        self.input(name, change);
    }

    fn handle_outputs(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].machine.poll() {
            let node = &mut self.nodes[index];
            match output {
                Output::Send { to, key, frame } => {
                    let bytes = frame.encode(
                        node.mac,
                        to,
                        node.ring.find(key).expect("the node has the signing key"),
                    );
                    self.sent += 1;
                    node.multicast_frames_sent += u32::from(to.is_none());
                    self.in_transit.insert(
                        (self.now + Duration::from_micros(200), self.sent),
                        (index, Path::Segment(to), bytes),
                    );
                }
                Output::SendDatagram { to, key, frame } => {
                    let key = node.ring.find(key).expect("the node has the signing key");
                    self.sent += 1;
                    self.in_transit.insert(
                        (self.now + Duration::from_micros(300), self.sent),
                        (index, Path::Second(to), frame.encode_datagram(key)),
                    );
                }
                Output::Start(address) => {
                    assert!(node.announced.insert(address), "a node starts an address twice");
                    node.starts += 1;
                    self.announce(index, address);
                }
                Output::AnnounceSeries(address) => {
                    assert!(
                        node.announced.contains(&address),
                        "a node announces an address without a start"
                    );
                    node.announce_series += 1;
                    self.announce(index, address);
                }
                Output::Stop(address) => {
                    assert!(node.announced.remove(&address), "a node stops what it has started")
                }
                Output::LivenessProbe { address, mac, .. } => {
                    self.probe_liveness(index, address, mac)
                }
                Output::Defend(address) => {
                    assert!(
                        node.announced.contains(&address),
                        "a node defends an address without a start"
                    );
                    node.defenses += 1;
                    self.announce(index, address);
                }
                Output::Moved(moved) => {
                    node.failovers.extend(moved.silence);
                    node.moves.push(moved);
                }
                Output::ArpProbe(address) => {
                    node.probed.push(address);
                    self.reply_to_probe(index, address);
                }
                Output::ProbeNeighbors => {
                    // At least one foreign host is on the same side of any partition.
                    if self.hosts_reply && !node.receives_nothing && !node.is_mute {
                        node.machine.handle(Input::NeighborReplied, node.clock(self.now));
                    }
                }
                Output::Finished => node.finished = true,
            }
        }
        self.measure_owners();
    }

    /// Returns the nodes that reply to a client: those that are up, receive its requests, are not
    /// stalled, and have a valid answer lease.
    fn owners(&self, address: IpAddr) -> Vec<&str> {
        let replies = |node: &&TestNode| {
            node.up
                && !node.receives_nothing
                && !node.stalled
                && node.announced.contains(&address)
                && node.clock(self.now) < node.machine.members().own().answer_lease_end() + ms(10)
        };
        self.nodes.iter().filter(replies).map(|node| &*node.name).collect()
    }

    fn watch_owners(&mut self, address: IpAddr) {
        self.gaps.insert(address, (None, Duration::ZERO));
        self.overlaps.insert(address, (None, Duration::ZERO));
    }

    fn measure_owners(&mut self) {
        for address in self.gaps.keys().copied().collect::<Vec<_>>() {
            let owners = self.owners(address).len();
            for (table, bad) in [(&mut self.gaps, owners == 0), (&mut self.overlaps, owners > 1)] {
                let (since, longest) = table.get_mut(&address).expect("the address is watched");
                if let Some(since) = *since {
                    *longest = (*longest).max(self.now.since(since));
                }
                *since = bad.then(|| since.unwrap_or(self.now));
            }
        }
    }

    fn longest_gap(&self, address: IpAddr) -> Duration {
        self.gaps[&address].1
    }

    fn longest_overlap(&self, address: IpAddr) -> Duration {
        self.overlaps[&address].1
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let awake = self.nodes.iter().enumerate().filter(|(_, node)| node.up && !node.stalled);
            let timer = awake
                .filter_map(|(i, node)| Some((node.segment_time(node.machine.deadline()?), i)))
                .min();
            let frame = self.in_transit.keys().next().copied();
            let next = timer.map(|(at, _)| at).into_iter().chain(frame.map(|(at, _)| at)).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            match frame.filter(|(frame_at, _)| *frame_at <= at) {
                Some(key) => self.deliver(key),
                None => {
                    let index = timer.expect("a timer is due").1;
                    let now = self.nodes[index].clock(self.now);
                    self.nodes[index].machine.tick(now);
                    let deadline = self.nodes[index].machine.deadline();
                    assert!(
                        deadline.is_none_or(|at| at > now),
                        "the claim machine requests a past deadline: {deadline:?}"
                    );
                    self.handle_outputs(index);
                }
            }
        }
        self.now = end;
        self.measure_owners();
    }

    fn deliver(&mut self, key: (Instant, usize)) {
        let (from, path, bytes) = self.in_transit.remove(&key).expect("a frame in transit");
        let Some(sender) = self.nodes.get(from) else { return };
        let is_lost = match &path {
            Path::Segment(to) => {
                sender.partitioned
                    || sender.is_mute
                    || (self.is_lost)(key.1)
                    || (self.loses_multicast && to.is_none())
            }
            Path::Second(_) => !self.has_second_path,
        };
        if is_lost {
            return;
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let arrives = match &path {
                Path::Segment(to) => {
                    let receives = !node.partitioned && !node.receives_nothing && !node.filters;
                    receives && to.is_none_or(|mac| mac == node.mac)
                }
                Path::Second(to) => node.name == (**to).into(),
            };
            if index == from || !node.up || node.stalled || !arrives {
                continue;
            }
            let decoded = match path {
                Path::Segment(_) => Frame::decode(&bytes, &node.ring)
                    .map(|(source, frame)| Input::Frame { source, frame }),
                Path::Second(_) => Frame::decode_datagram(&bytes, &node.ring).map(Input::Datagram),
            };
            let input = match decoded {
                Ok(input) => input,
                Err(HelloDecodeError::ForeignKey) => continue,
                Err(error) => panic!("a frame of a node is invalid: {error}"),
            };
            let now = node.clock(self.now);
            node.machine.handle(input, now);
            self.handle_outputs(index);
        }
    }
}

/// Returns a segment with three nodes whose preempt delays have ended, and one unit with the
/// address [`VIP`]. The candidate with the best rank owns the unit.
fn settled_segment() -> Segment {
    let mut segment = Segment::new(&NODES);
    segment.units(&[unit(VIP, &NODES)]);
    segment.run(Duration::from_secs(40));
    segment.watch_owners(VIP);
    segment
}
