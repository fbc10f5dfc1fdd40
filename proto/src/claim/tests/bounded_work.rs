//! Work that is too much for one call of the machine: the next ticks continue it, and other calls
//! only add to it.

use super::faults::{admit_peer, frame_from};
use super::*;
use crate::claim::evaluation::{COMPARISONS_PER_TURN_MAX, EVALUATIONS_PER_TURN_MAX};
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, FailingReport, ReleaseReason};

/// Number of units: five full turns, and a rest.
const UNITS: usize = 5 * EVALUATIONS_PER_TURN_MAX + 7;

fn address(n: usize) -> IpAddr {
    IpAddr::from([172, 30, (n / 256) as u8, (n % 256) as u8])
}

/// Creates node1, which is about to end its listen phase, with the peer node2. `nodes` are the
/// candidates of all units.
fn new_machine(nodes: &[&str]) -> (ClaimMachine, Instant) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let units = (0..UNITS).map(|n| unit(address(n), nodes)).collect();
    set_units(&mut machine, units, Instant::ZERO);
    turns(&mut machine, Instant::ZERO);
    let now = Instant::from_millis(999);
    admit_peer(&mut machine, "node2", 7, now);
    (machine, now)
}

/// Creates node1, which owns all units, with the peer node2.
fn new_owner() -> (ClaimMachine, Instant) {
    let (mut machine, mut now) = new_machine(&["node1"]);
    while machine.owned().len() < UNITS {
        now = machine.deadline().expect("a deadline");
        turn(&mut machine, now);
    }
    (machine, now)
}

fn outputs(machine: &mut ClaimMachine) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll()).collect()
}

/// Runs a tick, and returns its outputs.
fn turn(machine: &mut ClaimMachine, now: Instant) -> Vec<Output> {
    machine.tick(now);
    assert!(machine.deadline().is_some_and(|at| at > now), "the deadline is in the future");
    outputs(machine)
}

/// Returns the outputs of each tick until no work remains.
fn turns(machine: &mut ClaimMachine, now: Instant) -> Vec<Vec<Output>> {
    let mut turns = Vec::new();
    while machine.has_more_work() {
        let at = machine.deadline().expect("a deadline");
        assert!(at < now + ms(1), "the machine continues at once");
        turns.push(turn(machine, at));
    }
    turns
}

fn hello(clock: u64) -> Input {
    let (accepted_keys, failing) = (vec![], FailingReport::default());
    frame_from("node2", 7, clock, Body::Hello { generation: 0, accepted_keys, failing })
}

fn started(outputs: &[Output]) -> Vec<IpAddr> {
    let start = |output: &Output| {
        let Output::Start(address) = output else { return None };
        Some(*address)
    };
    outputs.iter().filter_map(start).collect()
}

#[test]
fn many_units_are_taken_in_several_turns_in_the_order_of_their_addresses() {
    let (mut machine, _) = new_machine(&["node1"]);
    let now = Instant::from_millis(1_000);
    let mut all = started(&turn(&mut machine, now));
    assert_eq!(all.len(), EVALUATIONS_PER_TURN_MAX);
    machine.handle(hello(10), now);
    let between = started(&outputs(&mut machine));
    assert!(between.is_empty(), "a frame between two turns adds no work");
    for outputs in turns(&mut machine, now) {
        let count = started(&outputs).len();
        assert!((1..=EVALUATIONS_PER_TURN_MAX).contains(&count), "{count}");
        all.extend(started(&outputs));
    }
    assert_eq!(all, (0..UNITS).map(address).collect::<Vec<_>>());
}

#[test]
fn with_many_peers_the_units_are_evaluated_in_more_turns() {
    const PEERS: usize = 40;
    let names: Vec<_> = (1..=PEERS).map(|n| format!("node{n}")).collect();
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    let (mut machine, now) = new_machine(&names);
    for name in &names[2..] {
        admit_peer(&mut machine, name, 7, now);
    }
    let now = Instant::from_millis(1_000);
    turn(&mut machine, now);
    let turns = 1 + turns(&mut machine, now).len();
    assert_eq!(turns, UNITS.div_ceil(COMPARISONS_PER_TURN_MAX / (PEERS - 1)));
}

#[test]
fn a_change_during_the_work_is_evaluated_in_its_turn() {
    let (mut machine, _) = new_machine(&["node1"]);
    let now = Instant::from_millis(1_000);
    turn(&mut machine, now);
    let (early, late) = (address(0), address(UNITS - 1));
    let changed = [early, late].map(|address| unit(address, &["node2"])).into();
    machine.handle(Input::Units { changed, removed: vec![address(UNITS - 2)] }, now);
    turns(&mut machine, now);
    let owned: Vec<_> = machine.owned().keys().copied().collect();
    assert_eq!(owned, (0..UNITS - 2).map(address).collect::<Vec<_>>());
    assert!(machine.units[&early].pending_claim.is_some(), "the first unit will be released");
}

/// Returns the generation, the number and the addresses of each part of a list for one peer.
fn list_parts(outputs: &[Output]) -> Vec<(u32, u16, Vec<IpAddr>)> {
    let part = |output: &Output| {
        let Output::Send { to: Some(_), frame, .. } = output else { return None };
        let Body::List { generation, part, addresses, .. } = &frame.body else { return None };
        Some((*generation, *part, addresses.clone()))
    };
    outputs.iter().filter_map(part).collect()
}

#[test]
fn a_long_list_is_sent_in_several_turns_and_begins_again_after_a_change() {
    let (mut machine, now) = new_owner();
    let request = |clock| frame_from("node2", 7, clock, Body::ListRequest);
    machine.handle(request(20), now);
    let mut parts = list_parts(&outputs(&mut machine));
    assert_eq!(parts.len(), 32, "the first parts");
    turns(&mut machine, now).iter().for_each(|outputs| parts.extend(list_parts(outputs)));
    let numbers: Vec<_> = parts.iter().map(|(_, part, _)| usize::from(*part)).collect();
    assert_eq!(numbers, (0..UNITS.div_ceil(ADDRESSES_PER_FRAME_MAX)).collect::<Vec<_>>());
    let all: Vec<_> = parts.iter().flat_map(|(_, _, addresses)| addresses.clone()).collect();
    assert_eq!(all, (0..UNITS).map(address).collect::<Vec<_>>());

    let now = now + ms(50);
    machine.handle(request(21), now);
    let generation = list_parts(&outputs(&mut machine))[0].0;
    machine.handle(Input::Units { changed: vec![], removed: vec![address(0)] }, now);
    let turns = turns(&mut machine, now);
    let parts: Vec<_> = turns.iter().flat_map(|outputs| list_parts(outputs)).collect();
    assert!(parts.iter().all(|(of, _, _)| *of == generation + 1), "the set has changed");
    let all: Vec<_> = parts.into_iter().flat_map(|(_, _, addresses)| addresses).collect();
    assert_eq!(all, (1..UNITS).map(address).collect::<Vec<_>>());
}

#[test]
fn all_addresses_are_announced_again_in_several_turns() {
    let (mut machine, now) = new_owner();
    let (addresses, reason) = (vec![address(0)], ReleaseReason::HandedOver);
    let release = Body::Release { previous_generation: 1, generation: 2, addresses, reason };
    machine.handle(frame_from("node2", 7, 20, release), now);
    outputs(&mut machine);
    let (mut announced, mut longest) = (Vec::new(), 0);
    let end = now + ms(80);
    while let Some(at) = machine.deadline().filter(|at| *at < end) {
        let outputs = turn(&mut machine, at);
        let series = |output: &Output| {
            let Output::AnnounceSeries(address) = output else { return None };
            Some(*address)
        };
        let again: Vec<_> = outputs.iter().filter_map(series).collect();
        longest = longest.max(again.len());
        announced.extend(again);
    }
    assert_eq!(announced, (0..UNITS).map(address).collect::<Vec<_>>());
    assert_eq!(longest, 512);
}

#[test]
fn many_conflicts_are_settled_in_several_turns() {
    let (mut machine, now) = new_owner();
    let all: Vec<_> = (0..UNITS).map(address).collect();
    let chunks: Vec<_> = all.chunks(ADDRESSES_PER_FRAME_MAX).collect();
    let parts = u16::try_from(chunks.len()).expect("a list has few parts");
    for (part, addresses) in (0..parts).zip(chunks) {
        let (addresses, preempt_delays) = (addresses.to_vec(), vec![]);
        let list = Body::List { generation: 1, part, parts, addresses, preempt_delays };
        machine.handle(frame_from("node2", 7, 20 + u64::from(part), list), now);
    }
    let settled = machine.counts().conflicts;
    assert_eq!(settled, 512, "the complete list leads to conflicts");
    turns(&mut machine, now);
    assert_eq!(machine.counts().conflicts, UNITS as u64);
    assert_eq!(machine.owned().len(), UNITS, "the peer is no candidate");
}
