//! Work that is too much for one call of the machine: the next ticks continue it, and other calls
//! only add to it.

use ferrolb_core::election::SoftRules;
use ferrolb_proto::wire::hello::ADDRESSES_PER_FRAME_MAX;

use super::*;
use crate::claim::ownership::{COMPARISONS_PER_TURN_MAX, EVALUATIONS_PER_TURN_MAX};

/// Number of units: five full turns, and a rest.
const UNITS: usize = 5 * EVALUATIONS_PER_TURN_MAX + 7;

fn address(n: usize) -> IpAddr {
    IpAddr::from([172, 30, (n / 256) as u8, (n % 256) as u8])
}

/// Creates node1, which is about to end its listen phase, with the peer node2. `nodes` are the
/// candidates of all units.
fn new_machine(nodes: &[&str]) -> (ClaimMachine, TestPeer, Instant) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let units = (0..UNITS).map(|n| unit(address(n), nodes)).collect();
    set_units(&mut machine, units, Instant::ZERO);
    prove(&mut machine, &(0..UNITS).map(address).collect::<Vec<_>>(), Instant::ZERO);
    turns(&mut machine, Instant::ZERO);
    let now = Instant::from_millis(999);
    let peer = TestPeer::admitted("node2", 7, &mut machine, now);
    (machine, peer, now)
}

/// Creates node1, which owns all units, with the peer node2.
fn new_owner() -> (ClaimMachine, TestPeer, Instant) {
    let (mut machine, peer, mut now) = new_machine(&["node1"]);
    while machine.owned().len() < UNITS {
        now = machine.deadline().expect("a deadline");
        turn(&mut machine, now);
    }
    (machine, peer, now)
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

fn started(outputs: &[Output]) -> Vec<IpAddr> {
    let start = |output: &Output| {
        let Output::Start(address) = output else { return None };
        Some(*address)
    };
    outputs.iter().filter_map(start).collect()
}

#[test]
fn many_units_are_taken_in_several_turns_in_the_order_of_their_addresses() {
    let (mut machine, mut peer, _) = new_machine(&["node1"]);
    let now = Instant::from_millis(1_000);
    let mut all = started(&turn(&mut machine, now));
    assert_eq!(all.len(), EVALUATIONS_PER_TURN_MAX);
    machine.handle(peer.send(hello()), now);
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
    let (mut machine, _, now) = new_machine(&names);
    for name in &names[2..] {
        TestPeer::admitted(name, 7, &mut machine, now);
    }
    let now = Instant::from_millis(1_000);
    turn(&mut machine, now);
    let turns = 1 + turns(&mut machine, now).len();
    assert_eq!(turns, UNITS.div_ceil(COMPARISONS_PER_TURN_MAX / (PEERS - 1)));
}

#[test]
fn a_change_during_the_work_is_evaluated_in_its_turn() {
    let (mut machine, _, _) = new_machine(&["node1"]);
    let now = Instant::from_millis(1_000);
    turn(&mut machine, now);
    let (early, late) = (address(0), address(UNITS - 1));
    let changed = [early, late].map(|address| unit(address, &["node2"])).into();
    machine.handle(Input::Units { changed, removed: vec![address(UNITS - 2)] }, now);
    turns(&mut machine, now);
    let owned: Vec<_> = machine.owned().keys().copied().collect();
    assert_eq!(owned, (0..UNITS - 2).map(address).collect::<Vec<_>>());
    assert!(machine.ownership.is_pending(early), "the first unit will be released");
}

/// Returns the stretches among the outputs.
fn stretches(outputs: &[Output]) -> Vec<Stretch> {
    let stretch = |output: &Output| {
        let Output::Send { to: None, frame, .. } = output else { return None };
        let Body::List(stretch) = &frame.body else { return None };
        Some(stretch.clone())
    };
    outputs.iter().filter_map(stretch).collect()
}

/// Returns the addresses of stretches, each of which must follow the one before.
fn addresses(stretches: &[Stretch]) -> Vec<IpAddr> {
    for [one, next] in stretches.array_windows() {
        assert_eq!(one.last, next.after, "a stretch begins where the one before ends");
    }
    stretches.iter().flat_map(|stretch| &stretch.claims).map(|claim| claim.address).collect()
}

#[test]
fn a_long_list_is_sent_in_several_turns_and_continues_after_a_change() {
    let (mut machine, mut peer, now) = new_owner();
    machine.handle(peer.send(Body::ListRequest), now);
    let mut list = stretches(&outputs(&mut machine));
    assert_eq!(list.len(), 32, "the first stretches");
    machine.handle(peer.send(Body::ListRequest), now);
    machine.handle(Input::Units { changed: vec![], removed: vec![address(0)] }, now);
    turns(&mut machine, now).iter().for_each(|outputs| list.extend(stretches(outputs)));
    // The request during the list has no effect.
    assert_eq!(addresses(&list), (0..UNITS).map(address).collect::<Vec<_>>());

    let now = now + ms(100);
    machine.handle(peer.send(Body::ListRequest), now);
    let mut list = stretches(&outputs(&mut machine));
    turns(&mut machine, now).iter().for_each(|outputs| list.extend(stretches(outputs)));
    let sent: BTreeSet<_> = addresses(&list).into_iter().collect();
    assert_eq!(sent, (1..UNITS).map(address).collect(), "the next list has all addresses");
}

#[test]
fn all_addresses_are_announced_again_in_several_turns() {
    let (mut machine, mut peer, now) = new_owner();
    // Node2 has claimed and released an address unnoticed.
    drop(peer.send(claim(&[address(0)])));
    drop(peer.send(hand_over(&[address(0)])));
    machine.handle(peer.send(hello()), now);
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
    let (mut machine, mut peer, now) = new_owner();
    // Node2 claims all addresses while its frames are lost. A soft rule applies to it.
    let all: Vec<_> = (0..UNITS).map(address).collect();
    let rank = ClaimRank { soft_rules: SoftRules::FAILING.bits(), ..ClaimRank::default() };
    peer.owned = all.iter().map(|address| (*address, rank)).collect();
    let mut after = None;
    for chunk in all.chunks(ADDRESSES_PER_FRAME_MAX) {
        let last = chunk.last().filter(|last| **last != address(UNITS - 1)).copied();
        let claim = |address: &IpAddr| Claim { address: *address, rank, preempt_delay: ms(0) };
        let stretch = Stretch { after, last, claims: chunk.iter().map(claim).collect() };
        machine.handle(peer.send(Body::List(stretch)), now);
        after = last;
    }
    assert_eq!(machine.counts().conflicts, UNITS as u64, "each stretch settles its conflicts");
    machine.handle(peer.send(hello()), now);
    assert_eq!(machine.counts().conflicts, UNITS as u64 + 512, "a hello settles them again");
    turns(&mut machine, now);
    assert_eq!(machine.counts().conflicts, 2 * UNITS as u64);
    assert_eq!(machine.owned().len(), UNITS, "node2 has the worse rank");
}
