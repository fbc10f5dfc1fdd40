//! Claim machines on a simulated segment with a virtual clock: every frame is signed, sent and
//! decoded.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::election::{Candidate, order};
use crate::wire::hello::{HelloDecodeError, HelloKey, HelloKeyRing};

mod failback;
mod faults;
mod foreign;
mod health;
mod keys;
mod many;
mod missed;
mod newcomers;
mod ownership;
mod senses;
mod shared;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 200));

const THREE: [&str; 3] = ["node1", "node2", "node3"];

struct Node {
    name: Box<str>,
    mac: Mac,
    machine: ClaimMachine,
    answers: BTreeSet<IpAddr>,
    up: bool,
    /// Frames are lost in both directions.
    cut: bool,
    frozen: bool,
    /// How long the node's clock stood still.
    behind: Duration,
    /// How far the node's clock is ahead.
    ahead: Duration,
    /// Frames are lost on receipt only.
    deaf: bool,
    left: bool,
    took_over: Vec<Duration>,
    checked: Vec<IpAddr>,
    started: usize,
    refreshed: usize,
    defended: usize,
    ring: HelloKeyRing,
}

impl Node {
    /// Moves the node's clock forward.
    fn ahead(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// Returns the simulation time at which the node's clock shows `at`.
    fn really(&self, at: Instant) -> Instant {
        Instant::ZERO + (self.behind + at.since(Instant::ZERO)).saturating_sub(self.ahead)
    }

    /// Returns the time that the node's clock shows at the simulation time `now`.
    fn clock(&self, now: Instant) -> Instant {
        Instant::ZERO + (self.ahead + now.since(Instant::ZERO)).saturating_sub(self.behind)
    }
}

/// A frame in transit: index of the sender, destination, bytes.
type Flying = (usize, Option<Mac>, Vec<u8>);

/// A segment with a delay of 0.2 ms.
struct Wire {
    now: Instant,
    nodes: Vec<Node>,
    /// By time of arrival and number of the frame.
    flying: BTreeMap<(Instant, usize), Flying>,
    sent: usize,
    ring: HelloKeyRing,
    settings: fn(&mut ClaimConfig),
    /// Selects the frames to lose, by their number.
    loses: fn(usize) -> bool,
    /// Loses every frame to the group.
    loses_multicast: bool,
    /// Simulates a device that replies to ARP for failed nodes.
    proxy: bool,
    /// Simulates foreign hosts that reply to the requests of [`Output::ProbeNeighbors`].
    hosts_answer: bool,
    /// For each watched address: since when it has no owner, and the longest such time. `doubles`
    /// is the same for more than one owner.
    gaps: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
    doubles: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
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
        failback_delay,
    }
}

fn unit(addresses: &[IpAddr], nodes: &[&str]) -> Arc<Unit> {
    let candidate = |name: &&str| Candidate {
        node: (*name).into(),
        order: order(name, addresses[0]),
        ..Candidate::default()
    };
    let candidates = nodes.iter().map(candidate).collect();
    Arc::new(Unit {
        addresses: addresses.into(),
        candidates,
        can_serve_here: true,
        failing: Box::default(),
    })
}

/// Returns the names of `nodes`, best first for the address.
fn ranked<'a>(nodes: &[&'a str], address: IpAddr) -> Vec<&'a str> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|name| order(name, address));
    nodes
}

impl Wire {
    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| ())
    }

    /// Makes a segment whose nodes have changed settings.
    fn with(names: &[&str], settings: fn(&mut ClaimConfig)) -> Self {
        let mut wire = Self {
            settings,
            now: Instant::ZERO,
            nodes: Vec::new(),
            flying: BTreeMap::new(),
            sent: 0,
            ring: HelloKeyRing::new(vec![HelloKey::new([7; 32])]),
            loses: |_| false,
            loses_multicast: false,
            proxy: false,
            hosts_answer: true,
            gaps: BTreeMap::new(),
            doubles: BTreeMap::new(),
        };
        for name in names {
            wire.start(name);
        }
        wire
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
        self.nodes.push(Node {
            name: name.into(),
            mac,
            machine,
            answers: BTreeSet::new(),
            up: true,
            cut: false,
            frozen: false,
            behind: Duration::ZERO,
            ahead: Duration::ZERO,
            deaf: false,
            left: false,
            took_over: Vec::new(),
            checked: Vec::new(),
            started: 0,
            refreshed: 0,
            defended: 0,
            ring: self.ring.clone(),
        });
        let keys = Input::Keys(self.ring.ids());
        self.input(name, keys);
    }

    fn index(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| *node.name == *name).expect("a node of that name")
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let index = self.index(name);
        &mut self.nodes[index]
    }

    /// Returns how many multicast frames a node has sent.
    fn sent_by(&mut self, name: &str) -> u32 {
        self.node(name).machine.own.sequence
    }

    fn input(&mut self, name: &str, input: Input) {
        let index = self.index(name);
        let now = self.nodes[index].clock(self.now);
        self.nodes[index].machine.handle(input, now);
        self.drain(index);
    }

    fn units(&mut self, units: &[Arc<Unit>]) {
        for name in self.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            self.input(&name, Input::Units(units.to_vec()));
        }
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].machine.poll() {
            let node = &mut self.nodes[index];
            match output {
                Output::Send { to, key, frame } => {
                    let bytes =
                        frame.encode(node.mac, to, node.ring.find(key).expect("a key of its own"));
                    self.sent += 1;
                    self.flying.insert(
                        (self.now + Duration::from_micros(200), self.sent),
                        (index, to, bytes),
                    );
                }
                Output::Start(address) => {
                    assert!(node.answers.insert(address), "started twice");
                    node.started += 1;
                }
                Output::AnnounceSeries(address) => {
                    assert!(node.answers.contains(&address), "refreshed what it has not");
                    node.refreshed += 1;
                }
                Output::Stop(address) => {
                    assert!(node.answers.remove(&address), "stopped what it has not")
                }
                Output::LivenessProbe { mac, .. } => {
                    if self.proxy {
                        node.machine.handle(Input::ArpReply(mac), node.clock(self.now));
                    }
                }
                Output::Defend(address) => {
                    assert!(node.answers.contains(&address), "defended what it has not");
                    node.defended += 1;
                }
                Output::TookOver(silence) => node.took_over.push(silence),
                Output::ArpProbe(address) => node.checked.push(address),
                Output::ProbeNeighbors => {
                    // At least one foreign host is on the same side of any partition.
                    if self.hosts_answer && !node.deaf {
                        node.machine.handle(Input::FrameReceived, node.clock(self.now));
                    }
                }
                Output::Finished => node.left = true,
            }
        }
        self.measure();
    }

    /// Returns the nodes that really reply: up, reached by requests, not stalled, answer lease
    /// valid.
    fn owners(&self, address: IpAddr) -> Vec<&str> {
        let answers = |node: &&Node| {
            node.up
                && !node.deaf
                && !node.frozen
                && node.answers.contains(&address)
                && node.clock(self.now) < node.machine.answer_lease_end() + ms(10)
        };
        self.nodes.iter().filter(answers).map(|node| &*node.name).collect()
    }

    fn watch(&mut self, address: IpAddr) {
        self.gaps.insert(address, (None, Duration::ZERO));
        self.doubles.insert(address, (None, Duration::ZERO));
    }

    fn measure(&mut self) {
        for address in self.gaps.keys().copied().collect::<Vec<_>>() {
            let owners = self.owners(address).len();
            for (table, bad) in [(&mut self.gaps, owners == 0), (&mut self.doubles, owners > 1)] {
                let (since, longest) = table.get_mut(&address).expect("watched");
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

    fn longest_double(&self, address: IpAddr) -> Duration {
        self.doubles[&address].1
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let awake = self.nodes.iter().enumerate().filter(|(_, node)| node.up && !node.frozen);
            let timer = awake
                .filter_map(|(i, node)| Some((node.really(node.machine.deadline()?), i)))
                .min();
            let frame = self.flying.keys().next().copied();
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
                        "a machine that wants time again at once: {deadline:?}"
                    );
                    self.drain(index);
                }
            }
        }
        self.now = end;
        self.measure();
    }

    fn deliver(&mut self, key: (Instant, usize)) {
        let (from, to, bytes) = self.flying.remove(&key).expect("a frame");
        if self.nodes.get(from).is_none_or(|node| node.cut)
            || (self.loses)(key.1)
            || (self.loses_multicast && to.is_none())
        {
            return;
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let addressed = to.is_none_or(|mac| mac == node.mac);
            if index != from && node.up && !node.cut && !node.deaf && !node.frozen && addressed {
                let (source, frame) = match Frame::decode(&bytes, &node.ring) {
                    Ok(decoded) => decoded,
                    Err(HelloDecodeError::ForeignKey) => continue,
                    Err(error) => panic!("our own frames are sound: {error}"),
                };
                let now = node.clock(self.now);
                node.machine.handle(Input::Frame { source, frame }, now);
                self.drain(index);
            }
        }
    }
}

/// Three nodes, up for so long that no preempt delay is running, and one unit; the best node owns
/// it.
fn settled() -> Wire {
    let mut wire = Wire::new(&THREE);
    wire.units(&[unit(&[VIP], &THREE)]);
    wire.run(Duration::from_secs(40));
    wire.watch(VIP);
    wire
}
