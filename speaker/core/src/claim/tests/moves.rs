//! Moves of addresses: both nodes report the same cause, and each move is reported once.

use super::*;
use crate::claim::NodeState;

/// Makes a change of the owner, whose name is given, because of which its address moves.
type OwnerChange = fn(&mut Segment, &str);

fn fail_checks(segment: &mut Segment, owner: &str) {
    let failing = Unit { failing: true, ..(*unit(VIP, &NODES)).clone() };
    segment.set_units(owner, vec![Arc::new(failing)]);
}

fn set_node(segment: &mut Segment, owner: &str, draining: bool, unhealthy: bool) {
    let state = NodeState { draining, unhealthy, ..NodeState::default() };
    segment.input(owner, Input::NodeState(state));
}

fn change_owner(segment: &mut Segment, owner: &str, change: fn(&mut Candidate)) {
    let view = change_candidates(&unit(VIP, &NODES), |candidate| {
        if *candidate.node == *owner {
            change(candidate);
        }
    });
    segment.units(&[view]);
}

fn remove_owner(segment: &mut Segment, owner: &str) {
    let others: Vec<_> = NODES.into_iter().filter(|name| *name != owner).collect();
    segment.units(&[unit(VIP, &others)]);
}

#[test]
fn both_nodes_report_a_move_with_the_same_cause() {
    let cases: [(MoveCause, OwnerChange); 7] = [
        (MoveCause::Failing, fail_checks),
        (MoveCause::Draining, |segment, owner| set_node(segment, owner, true, true)),
        (MoveCause::Unhealthy, |segment, owner| set_node(segment, owner, false, true)),
        (MoveCause::Leaving, |segment, owner| segment.input(owner, Input::Leave)),
        (MoveCause::Cordoned, |segment, owner| change_owner(segment, owner, |c| c.cordoned = true)),
        (MoveCause::Terminating, |segment, owner| {
            change_owner(segment, owner, |candidate| {
                (candidate.cordoned, candidate.terminating) = (true, true);
            })
        }),
        (MoveCause::Ineligible, remove_owner),
    ];
    for (cause, change) in cases {
        let mut segment = settled_segment();
        let order = ranked(&NODES, VIP);
        let [before, other] = [0, 1].map(|n| segment.node(order[n]).moves.len());
        change(&mut segment, order[0]);
        segment.run(Duration::from_secs(1));
        let expect = Move {
            address: VIP,
            from: Some(order[0].into()),
            to: order[1].into(),
            cause,
            silence: None,
        };
        assert_eq!(
            segment.node(order[0]).moves[before..],
            *std::slice::from_ref(&expect),
            "{cause:?}"
        );
        assert_eq!(segment.node(order[1]).moves[other..], [expect], "{cause:?}");
        assert_eq!(segment.node(order[2]).moves, [], "{cause:?}");
    }
}

#[test]
fn the_first_owner_reports_no_move_and_a_failover_has_its_silence() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    for name in NODES {
        assert_eq!(segment.node(name).moves, [], "the first ownership is no move");
    }
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(1));
    let [moved] = &segment.node(order[1]).moves[..] else { panic!("one move") };
    assert_eq!((moved.from.as_deref(), moved.cause), (Some(order[0]), MoveCause::NodeFailed));
    assert!(moved.silence.is_some_and(|silence| silence >= ms(189) && silence <= ms(200)));
}

#[test]
fn a_failback_is_a_move_by_order() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    set_node(&mut segment, order[0], true, false);
    segment.run(Duration::from_secs(1));
    set_node(&mut segment, order[0], false, false);
    segment.run(Duration::from_secs(60));
    let causes = |segment: &mut Segment, name: &str| -> Vec<_> {
        segment.node(name).moves.iter().map(|moved| moved.cause).collect()
    };
    let expect = [MoveCause::Draining, MoveCause::Order];
    assert_eq!(causes(&mut segment, order[0]), expect);
    assert_eq!(causes(&mut segment, order[1]), expect);
}

#[test]
fn a_claim_that_names_an_address_twice_moves_it_once() {
    let (mut machine, mut peer) = faults::machine_with_peer();
    let now = Instant::from_millis(1_600);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], now);
    prove(&mut machine, &[VIP], now);
    machine.tick(now);
    while machine.poll().is_some() {}
    let Body::Claim(claims) = claim(&[VIP]) else { unreachable!("a claim") };
    machine.handle(peer.send(Body::Claim([claims.clone(), claims].concat())), now + ms(50));
    let outputs: Vec<_> = std::iter::from_fn(|| machine.poll()).collect();
    let count = |wanted: fn(&Output) -> bool| outputs.iter().filter(|it| wanted(it)).count();
    assert_eq!(count(|output| matches!(output, Output::Stop(_))), 1);
    assert_eq!(count(|output| matches!(output, Output::Moved(_))), 1);
}
