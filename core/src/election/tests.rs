//! Order and rank of candidates, and the orders that a unit copies from another one.

use proptest::prelude::*;

use super::*;

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 200));

#[test]
fn the_order_is_that_of_metallb() {
    // sha256("node1#172.30.0.200"), computed with sha256sum of coreutils.
    let expected = include_str!("../election_order.hex").trim();
    assert_eq!(format!("{:08x}", order("node1", &VIP.to_string())), expected[..8]);
}

/// Number of criteria that worsen the rank of a node, worst first: the soft rules, a running
/// preempt delay, less preference, a later position in the order, a later name.
const CRITERIA: usize = 12;
/// Soft rules that a claim states, and not the flags of the node.
const CLAIM_CRITERIA: [usize; 4] = [1, 3, 6, 7];

/// Returns the name, the flags and the rest of the rank of a node to which these criteria apply.
fn criteria(criteria: [bool; CRITERIA]) -> (&'static str, Flags, ClaimRank) {
    let [
        isolated,
        ineligible,
        leaving,
        failing,
        draining,
        unhealthy,
        terminating,
        cordoned,
        in_preempt_delay,
        less_preferred,
        later,
        later_name,
    ] = criteria;
    let soft_rules = SoftRules::INELIGIBLE
        .when(ineligible)
        .and(SoftRules::FAILING.when(failing))
        .and(SoftRules::TERMINATING.when(terminating))
        .and(SoftRules::CORDONED.when(cordoned));
    let rank = ClaimRank {
        soft_rules: soft_rules.bits(),
        preference: u16::from(!less_preferred),
        order: u32::from(later),
    };
    let flags =
        Flags { leaving, draining, unhealthy, in_preempt_delay, isolated, health_checked: later };
    (if later_name { "o" } else { "n" }, flags, rank)
}

fn rank_with(applying: [bool; CRITERIA]) -> Rank<'static> {
    let (node, flags, rank) = criteria(applying);
    Rank::stated(node, flags, rank)
}

fn rank_of(criterion: usize) -> Rank<'static> {
    rank_with(std::array::from_fn(|i| i == criterion))
}

#[test]
fn each_rank_criterion_outweighs_all_later_ones() {
    for criterion in 0..CRITERIA {
        let all_later = rank_with(std::array::from_fn(|i| i > criterion));
        assert!(all_later < rank_of(criterion), "criterion {criterion} outweighs all later ones");
    }
}

#[test]
fn a_claim_states_the_soft_rules_of_its_address() {
    for criterion in 0..CRITERIA {
        let (_, _, rank) = criteria(std::array::from_fn(|i| i == criterion));
        let is_stated = SoftRules::of_claim(rank) != SoftRules::NONE;
        assert_eq!(is_stated, CLAIM_CRITERIA.contains(&criterion), "criterion {criterion}");
    }
}

#[test]
fn a_candidate_has_the_rank_that_it_would_state() {
    for (cordoned, terminating) in [(false, false), (true, false), (false, true), (true, true)] {
        let candidate = Candidate { node: "n".into(), cordoned, terminating, preference: 7 };
        let flags = Flags { draining: true, ..Flags::default() };
        let soft_rules = SoftRules::of_candidate(&candidate).bits();
        let rank = ClaimRank { soft_rules, preference: 7, order: 9 };
        assert_eq!(Rank::of_candidate(&candidate, 9, flags), Rank::stated("n", flags, rank));
    }
}

/// Criteria of a healthy owner whose preference, order and name are worse than those of others.
fn worst_order() -> Rank<'static> {
    rank_with(std::array::from_fn(|i| i >= CRITERIA - 3))
}

#[test]
fn a_node_takes_from_a_living_owner_by_fewer_soft_rules_or_by_the_order() {
    let best = rank_with([false; CRITERIA]);
    assert!(best.may_take_from(&worst_order(), false));
    assert!(!best.may_take_from(&worst_order(), true), "the preempt delay of the address runs");
    assert!(!best.may_take_from(&best, false));
    for criterion in 0..8 {
        let owner = rank_of(criterion);
        assert!(best.may_take_from(&owner, true), "the soft rule {criterion} of the owner");
        assert!(!owner.may_take_from(&best, false));
        assert!(!owner.may_take_from(&worst_order(), false), "a soft rule excludes the order");
        let same = rank_with(std::array::from_fn(|i| i == criterion || i >= CRITERIA - 3));
        assert!(!owner.may_take_from(&same, false), "the order moves nothing between these");
    }
    let in_delay = rank_of(8);
    assert!(!in_delay.may_take_from(&worst_order(), false));
    assert!(in_delay.may_take_from(&rank_of(7), false));
}

/// Returns one candidate for each bit of `nodes` that is 1.
fn candidates(nodes: u8) -> Arc<[Candidate]> {
    let node = |n| Candidate { node: format!("node{n}").into(), ..Candidate::default() };
    (0..8).filter(|n| nodes & (1 << n) != 0).map(node).collect()
}

proptest! {
    /// Two owners compare the same two ranks, and exactly one of them is worse.
    #[test]
    fn of_two_nodes_exactly_one_has_the_better_rank(one: [bool; CRITERIA], other: [bool; CRITERIA]) {
        let (one, mut other) = (one, other);
        other[CRITERIA - 1] = !one[CRITERIA - 1];
        let (one, other) = (rank_with(one), rank_with(other));
        prop_assert!((one < other) != (other < one));
        prop_assert!(!(one.may_take_from(&other, false) && other.may_take_from(&one, false)));
    }

    #[test]
    fn a_unit_finds_its_candidates_by_name(nodes: u8) {
        let unit = Unit::new(VIP, VIP, candidates(nodes));
        let not_here = Unit { announced_here: false, ..unit.clone() };
        for n in 0..8 {
            let name = format!("node{n}");
            let found = unit.candidate(&name);
            let is_candidate = nodes & (1 << n) != 0;
            prop_assert_eq!(found.map(|candidate| &*candidate.node), is_candidate.then_some(&*name));
            prop_assert_eq!(unit.own_candidate(&name), found);
            prop_assert_eq!(not_here.own_candidate(&name), None);
        }
    }
}
