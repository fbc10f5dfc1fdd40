//! Measures the longest call of the claim machine with 10,000 units, on segments with few and with
//! many nodes.
//!
//! The thread of an interface runs the claim machine, and reads no frame meanwhile. The clock runs
//! while the machine handles an input or a deadline, and while the outputs are taken and their
//! frames are signed. The result of a case is its longest call, and the sum and the number of its
//! calls. Each case runs several times. The printed run is the one with the shortest longest call,
//! because other load on the machine only adds time. `--check` fails if a call takes more than
//! three times the target.
//!
//! `cargo bench --profile lab -p ferrolb-speaker-core --bench claims` takes a few seconds.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant as WallClock};

use ferrolb_core::Machine;
use ferrolb_core::election::{Candidate, Unit, order};
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{
    ADDRESSES_PER_FRAME_MAX, Body, Claim, ClaimRank, ClaimSetSummary, Flags, Frame, HelloKey,
    KEY_LENGTH, Stretch,
};
use ferrolb_speaker_core::claim::{ClaimConfig, ClaimMachine, Input, Output};

/// Number of units.
const UNITS: u32 = 10_000;
/// Numbers of nodes on the segment, with the measured node.
const NODES: [usize; 2] = [3, 100];
/// Number of runs of each case.
const RUNS: usize = 10;
/// Number of addresses of the peer that fails.
const FAILED: u32 = UNITS / 3;
/// Hello interval of all nodes.
const HELLO_INTERVAL: Duration = Duration::from_millis(50);
/// The target for the longest call, and the factor by which a call must exceed it before `--check`
/// fails, because other programs may slow the machine down.
const CALL_TARGET: Duration = Duration::from_millis(2);
const CHECK_FACTOR: u32 = 3;
/// Time that a case runs at most after its first input.
const CASE_TIME: Duration = Duration::from_secs(8);

/// A case: prepares a run, then measures its calls.
type Case = fn(&mut Run);

fn main() -> ExitCode {
    let mut longest_of_all = Duration::ZERO;
    println!("{UNITS} units: longest call, sum, number of calls");
    let cases: [(&str, Case); 12] = [
        ("first units", first_units),
        ("start of all announcements", start_of_announcements),
        ("one changed unit", one_changed_unit),
        ("change of all units", change_of_all_units),
        ("claims of a peer for all units", claims_of_a_peer),
        ("hello of a peer that owns half of the units", hello_of_an_owner),
        ("claims of a peer for the units of this node", conflict),
        ("list of all units for a peer", list_for_a_peer),
        ("hello after an unnoticed claim", unnoticed_claim),
        ("failure of a peer with a third of the units", |run| failure_of_a_peer(run, FAILED)),
        ("failure of a peer with all units", |run| failure_of_a_peer(run, UNITS)),
        ("restart of a peer with all units", restart_of_a_peer),
    ];
    for nodes in NODES {
        for (name, case) in cases {
            let runs = (0..RUNS).map(|_| {
                let mut run = Run::new(nodes);
                case(&mut run);
                run.calls
            });
            let Calls { longest, sum, count } =
                runs.min_by_key(|calls| calls.longest).unwrap_or_default();
            println!("{nodes:>4} nodes, {name:<44} {longest:>9.1?} {sum:>9.1?} {count:>6}");
            longest_of_all = longest_of_all.max(longest);
        }
    }
    println!("longest call {longest_of_all:.1?}, target {CALL_TARGET:?}");
    let check = std::env::args().any(|argument| argument == "--check");
    if check && longest_of_all > CALL_TARGET * CHECK_FACTOR {
        eprintln!("error: a call takes more than {CHECK_FACTOR} times the target");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Passes all units to a machine without units.
fn first_units(run: &mut Run) {
    run.start_measuring();
    run.handle(Input::Units { changed: run.units(), removed: Vec::new() });
}

/// Ends the listen phase of a node that takes all units, because it is the only candidate.
fn start_of_announcements(run: &mut Run) {
    run.candidates = run.candidates[..1].into();
    run.handle(Input::Units { changed: run.units(), removed: Vec::new() });
    run.start_measuring();
    run.pass(CASE_TIME);
    assert_eq!(run.machine.owned().len(), UNITS as usize, "the node owns all units");
}

/// Receives the list of a peer that owns all units, too, and its next hellos. The peer never
/// yields, so this node yields the units for which the peer precedes it in the order.
fn conflict(run: &mut Run) {
    start_of_announcements(run);
    run.start_measuring();
    run.receive_list(1, UNITS);
    run.pass(Duration::from_millis(500));
    assert!(run.machine.owned().len() < UNITS as usize, "the node has yielded units");
}

/// Sends the list of all units to a peer that requests it.
fn list_for_a_peer(run: &mut Run) {
    start_of_announcements(run);
    run.start_measuring();
    run.receive(1, Body::ListRequest);
    run.pass(Duration::from_millis(20));
}

/// Receives a hello of a peer that has claimed and released an address unnoticed, and announces all
/// addresses again.
fn unnoticed_claim(run: &mut Run) {
    start_of_announcements(run);
    run.start_measuring();
    run.claim_sets[1].counter += 2;
    run.receive_hello(1);
    run.pass(Duration::from_millis(100));
}

/// Changes all units of a node that owns them.
fn change_of_all_units(run: &mut Run) {
    start_of_announcements(run);
    let changed: Vec<_> = run
        .units()
        .into_iter()
        .map(|unit| Arc::new(Unit { can_serve_here: false, ..(*unit).clone() }))
        .collect();
    run.start_measuring();
    run.handle(Input::Units { changed, removed: Vec::new() });
    run.pass(Duration::from_millis(20));
}

/// Changes one unit of a node whose peer owns all units.
fn one_changed_unit(run: &mut Run) {
    claims_of_a_peer(run);
    run.start_measuring();
    let failing = Unit { failing: true, ..(*run.units()[UNITS as usize / 2]).clone() };
    run.handle(Input::Units { changed: vec![failing.into()], removed: Vec::new() });
}

/// Receives the list of a peer that owns all units.
fn claims_of_a_peer(run: &mut Run) {
    run.handle(Input::Units { changed: run.units(), removed: Vec::new() });
    run.start_measuring();
    run.receive_list(1, UNITS);
    run.pass(Duration::from_millis(20));
}

/// Receives a hello of a peer that owns half of the units, while this node owns the other half.
fn hello_of_an_owner(run: &mut Run) {
    run.candidates = run.candidates[..2].into();
    run.handle(Input::Units { changed: run.units(), removed: Vec::new() });
    run.receive_list(1, UNITS / 2);
    run.pass(CASE_TIME);
    assert_eq!(run.machine.owned().len(), UNITS as usize / 2, "the node owns half of the units");
    run.start_measuring();
    run.receive_hello(1);
}

/// Detects the failure of a peer that owns the first `count` units, and takes over those of them
/// for which this node is the best candidate.
fn failure_of_a_peer(run: &mut Run, count: u32) {
    run.handle(Input::Units { changed: run.units(), removed: Vec::new() });
    run.receive_list(1, count);
    run.failed = Some(1);
    run.start_measuring();
    run.pass(CASE_TIME);
    assert_eq!(run.machine.counts().peer_failures, 1, "the peer has failed");
}

/// Receives the first frames of a peer that owned all units and has restarted.
fn restart_of_a_peer(run: &mut Run) {
    claims_of_a_peer(run);
    run.start_measuring();
    (run.epochs[1], run.claim_sets[1]) = (2, ClaimSetSummary::default());
    run.receive_hello(1);
    run.pass(Duration::from_millis(20));
    assert_eq!(
        run.machine.members().peers().live().count(),
        run.epochs.len() - 1,
        "all peers are members"
    );
}

/// Measured calls of the machine.
#[derive(Clone, Copy, Default)]
struct Calls {
    longest: Duration,
    sum: Duration,
    count: u32,
}

/// A machine with its peers, which are numbered from 1.
struct Run {
    machine: ClaimMachine,
    key: HelloKey,
    now: Instant,
    /// All nodes of the segment, sorted by name. The machine is that of the first node.
    candidates: Arc<[Candidate]>,
    /// Time at which all peers send their next hello.
    next_hellos: Instant,
    epochs: Vec<u64>,
    /// Summary of the claim set of each peer.
    claim_sets: Vec<ClaimSetSummary>,
    /// Peer that sends no frames.
    failed: Option<usize>,
    calls: Calls,
}

impl Run {
    /// Creates a machine in its listen phase, whose peers own nothing.
    fn new(nodes: usize) -> Self {
        let node = |n| Candidate { node: name(n).into(), ..Candidate::default() };
        let candidates: Arc<[Candidate]> = (0..nodes).map(node).collect();
        let config = ClaimConfig {
            node: (*candidates[0].node).into(),
            epoch: 1,
            hello_interval: HELLO_INTERVAL,
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(Duration::from_secs(30)),
        };
        let (key, now) = (HelloKey::new([7; KEY_LENGTH]), Instant::from_millis(1_000));
        let mut run = Self {
            machine: ClaimMachine::new(config, now),
            key,
            now,
            candidates,
            next_hellos: now,
            epochs: vec![1; nodes],
            claim_sets: vec![ClaimSetSummary::default(); nodes],
            failed: None,
            calls: Calls::default(),
        };
        run.handle(Input::Keys(vec![run.key.id()]));
        (1..nodes).for_each(|peer| run.receive_hello(peer));
        run.pass(HELLO_INTERVAL);
        assert_eq!(
            run.machine.members().peers().live().count(),
            nodes - 1,
            "all peers are members"
        );
        run
    }

    /// Returns all units, sorted by address. Their candidates are all nodes.
    fn units(&self) -> Vec<Arc<Unit>> {
        let unit = |n| {
            let address = address(n);
            Arc::new(Unit::new(address, address, Arc::clone(&self.candidates)))
        };
        (0..UNITS).map(unit).collect()
    }

    fn start_measuring(&mut self) {
        self.calls = Calls::default();
    }

    /// Handles all deadlines of the next `time`. All peers send hellos meanwhile.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let deadline = self.machine.deadline().unwrap_or(end);
            self.now = self.now.max(deadline.min(self.next_hellos).min(end));
            if self.now >= end {
                return;
            }
            if self.now >= self.next_hellos {
                self.next_hellos = self.now + HELLO_INTERVAL;
                (1..self.claim_sets.len()).for_each(|peer| self.receive_hello(peer));
            }
            if deadline <= self.now {
                self.call(|machine, now| machine.tick(now));
            }
        }
    }

    fn receive_hello(&mut self, peer: usize) {
        if self.failed != Some(peer) {
            self.receive(peer, Body::Hello { accepted_keys: vec![self.key.id()] });
        }
    }

    /// Receives the list of a peer that owns the first `count` units. The peer's claims were lost.
    fn receive_list(&mut self, peer: usize, count: u32) {
        let claim = |n| {
            let address = address(n);
            let order = order(&name(peer), &address.to_string());
            let rank = ClaimRank { order, ..ClaimRank::default() };
            Claim { address, rank, preempt_delay: Duration::ZERO }
        };
        let all: Vec<_> = (0..count).map(claim).collect();
        let stretches = all.chunks(ADDRESSES_PER_FRAME_MAX);
        let counter = u32::try_from(stretches.len()).expect("a list has few stretches");
        let ranks = all.iter().map(|claim| (claim.address, claim.rank));
        self.claim_sets[peer] = ClaimSetSummary::new(self.epochs[peer], counter, ranks);
        let mut after = None;
        for claims in stretches {
            let end = claims.last().map(|claim| claim.address);
            let last = end.filter(|end| Some(*end) != all.last().map(|claim| claim.address));
            self.receive(peer, Body::List(Stretch { after, last, claims: claims.to_vec() }));
            after = end;
        }
    }

    /// Receives a frame of a peer, a microsecond after the previous one.
    fn receive(&mut self, peer: usize, body: Body) {
        self.now = self.now + Duration::from_micros(1);
        let frame = Frame {
            node: name(peer).into(),
            epoch: self.epochs[peer],
            clock: self.now.as_nanos(),
            claim_set: self.claim_sets[peer],
            interval: HELLO_INTERVAL,
            detection_time: None,
            flags: Flags::default(),
            body,
        };
        self.handle(Input::Frame { source: mac(peer), frame });
    }

    fn handle(&mut self, input: Input) {
        self.call(|machine, now| machine.handle(input, now));
    }

    /// Measures a call with its outputs. Each challenged peer replies, unless it has failed.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn call(&mut self, call: impl FnOnce(&mut ClaimMachine, Instant)) {
        let mut challenges = Vec::new();
        let start = WallClock::now();
        call(&mut self.machine, self.now);
        while let Some(output) = self.machine.poll() {
            if let Output::Send { to, frame, .. } = output {
                std::hint::black_box(frame.encode(mac(0), to, &self.key));
                if let Body::Challenge { nonce } = frame.body {
                    challenges.extend(to.map(|to| (usize::from(to.0[5]), nonce)));
                }
            }
        }
        let time = start.elapsed();
        let Calls { longest, sum, count } = self.calls;
        self.calls = Calls { longest: longest.max(time), sum: sum + time, count: count + 1 };
        for (peer, nonce) in challenges {
            if self.failed != Some(peer) {
                self.receive(peer, Body::ChallengeReply { nonce });
            }
        }
    }
}

fn name(node: usize) -> String {
    format!("node{node:03}")
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn mac(peer: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(peer).expect("a segment has few nodes")])
}
