//! The machines on a simulated wire with a virtual clock: every frame is signed, sent, read back.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::election::{Candidate, order};
use crate::wire::hello::{DecodeError, Key, KeyRing};

mod failback;
mod faults;
mod foreign;
mod health;
mod keys;
mod many;
mod missed;
mod ownership;
mod senses;
mod shared;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 200));

const THREE: [&str; 3] = ["node1", "node2", "node3"];

struct Node {
    name: Box<str>,
    mac: Mac,
    machine: Claims,
    answers: BTreeSet<IpAddr>,
    up: bool,
    /// Nothing it sends or is sent arrives.
    cut: bool,
    frozen: bool,
    /// How long its own clock stood still.
    behind: Duration,
    /// How far its own clock is ahead.
    ahead: Duration,
    /// Nothing arrives at it; what it sends does.
    deaf: bool,
    left: bool,
    took_over: Vec<Duration>,
    checked: Vec<IpAddr>,
    started: usize,
    refreshed: usize,
    defended: usize,
    ring: KeyRing,
}

impl Node {
    /// Its clock leaps.
    fn ahead(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// When it is `at` by its own clock.
    fn really(&self, at: Instant) -> Instant {
        Instant::ZERO + (self.behind + at.since(Instant::ZERO)).saturating_sub(self.ahead)
    }

    /// Its own clock, when it really is `now`.
    fn clock(&self, now: Instant) -> Instant {
        Instant::ZERO + (self.ahead + now.since(Instant::ZERO)).saturating_sub(self.behind)
    }
}

/// A frame on its way: from whom, to whom, its bytes.
type Flying = (usize, Option<Mac>, Vec<u8>);

/// A wire with a delay of 0.2 ms.
struct Wire {
    now: Instant,
    nodes: Vec<Node>,
    /// By the time of arrival and the number of the frame.
    flying: BTreeMap<(Instant, usize), Flying>,
    sent: usize,
    ring: KeyRing,
    settings: fn(&mut Config),
    /// Loses every frame for which it answers true: the number of the frame.
    loses: fn(usize) -> bool,
    /// Loses every frame to the group.
    loses_multicast: bool,
    /// A device that answers ARP in the place of the dead.
    proxy: bool,
    /// Hosts that are no members answer when they are asked whether they are heard.
    hosts_answer: bool,
    /// For each watched address: since when nobody answers, and the longest such time; likewise for more than one.
    gaps: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
    doubles: BTreeMap<IpAddr, (Option<Instant>, Duration)>,
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(name: &str, epoch: u64) -> Config {
    let failback_delay = Some(Duration::from_secs(30));
    Config { node: name.into(), epoch, hello_interval: ms(50), hello_misses: 3, failback_delay }
}

fn unit(addresses: &[IpAddr], nodes: &[&str]) -> Arc<Unit> {
    let candidate =
        |name: &&str| Candidate { node: (*name).into(), order: order(name, addresses[0]), ..Candidate::default() };
    let candidates = nodes.iter().map(candidate).collect();
    Arc::new(Unit { addresses: addresses.into(), candidates, serves_here: true, failing: Box::default() })
}

/// The names of `nodes`, best first for the address.
fn ranked<'a>(nodes: &[&'a str], address: IpAddr) -> Vec<&'a str> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|name| order(name, address));
    nodes
}

impl Wire {
    fn new(names: &[&str]) -> Self {
        Self::with(names, |_| ())
    }

    /// A wire whose nodes have other settings.
    fn with(names: &[&str], settings: fn(&mut Config)) -> Self {
        let mut wire = Self {
            settings,
            now: Instant::ZERO,
            nodes: Vec::new(),
            flying: BTreeMap::new(),
            sent: 0,
            ring: KeyRing::new(vec![Key::new([7; 32])]),
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

    /// Starts a node, or starts it anew.
    fn start(&mut self, name: &str) {
        self.nodes.retain(|node| *node.name != *name);
        let id = self.sent as u64 * 100 + self.nodes.len() as u64 + 1;
        let mac = Mac([2, 0, 0, 0, name.as_bytes()[name.len() - 2], name.as_bytes()[name.len() - 1]]);
        let mut config = config(name, id);
        (self.settings)(&mut config);
        let machine = Claims::new(config, self.now);
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

    /// How many multicast frames a node has sent.
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
                    let bytes = frame.encode(node.mac, to, node.ring.find(key).expect("a key of its own"));
                    self.sent += 1;
                    self.flying.insert((self.now + Duration::from_micros(200), self.sent), (index, to, bytes));
                }
                Output::Start(address) => {
                    assert!(node.answers.insert(address), "started twice");
                    node.started += 1;
                }
                Output::Refresh(address) => {
                    assert!(node.answers.contains(&address), "refreshed what it has not");
                    node.refreshed += 1;
                }
                Output::Stop(address) => assert!(node.answers.remove(&address), "stopped what it has not"),
                Output::Probe { mac, .. } => {
                    if self.proxy {
                        node.machine.handle(Input::ArpAnswer(mac), node.clock(self.now));
                    }
                }
                Output::Defend(address) => {
                    assert!(node.answers.contains(&address), "defended what it has not");
                    node.defended += 1;
                }
                Output::TookOver(silence) => node.took_over.push(silence),
                Output::Check(address) => node.checked.push(address),
                Output::AskAround => {
                    // Some host on this side of whatever is cut answers.
                    if self.hosts_answer && !node.deaf {
                        node.machine.handle(Input::Heard, node.clock(self.now));
                    }
                }
                Output::Left => node.left = true,
            }
        }
        self.measure();
    }

    /// Who really answers: up, reached by questions, not frozen, the gate open.
    fn owners(&self, address: IpAddr) -> Vec<&str> {
        let answers = |node: &&Node| {
            node.up
                && !node.deaf
                && !node.frozen
                && node.answers.contains(&address)
                && node.clock(self.now) < node.machine.gate() + ms(10)
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
            let timer = awake.filter_map(|(i, node)| Some((node.really(node.machine.deadline()?), i))).min();
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
                    Err(DecodeError::ForeignKey) => continue,
                    Err(error) => panic!("our own frames are sound: {error}"),
                };
                let now = node.clock(self.now);
                node.machine.handle(Input::Frame { source, frame }, now);
                self.drain(index);
            }
        }
    }
}

/// Three nodes, long enough up that none is fresh, with one unit; the best owner holds it.
fn settled() -> Wire {
    let mut wire = Wire::new(&THREE);
    wire.units(&[unit(&[VIP], &THREE)]);
    wire.run(Duration::from_secs(40));
    wire.watch(VIP);
    wire
}
