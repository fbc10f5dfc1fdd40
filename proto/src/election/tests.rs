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
const CRITERIA: usize = 11;

/// Returns the rank of a node to which these criteria apply.
fn rank_with(criteria: [bool; CRITERIA], count_preempt_delay: bool) -> Rank<'static> {
    let [
        leaving,
        failing,
        draining,
        unhealthy,
        terminating,
        cordoned,
        flapping,
        in_preempt_delay,
        less_preferred,
        later,
        later_name,
    ] = criteria;
    let (preference, order) = (u32::from(!less_preferred), u32::from(later));
    let node = if later_name { "o" } else { "n" }.into();
    let candidate = Box::leak(Box::new(Candidate { node, cordoned, terminating, preference }));
    let flags =
        Flags { leaving, draining, unhealthy, flapping, in_preempt_delay, ..Flags::default() };
    rank(candidate, order, flags, failing, count_preempt_delay)
}

#[test]
fn each_rank_criterion_outweighs_all_later_ones() {
    for criterion in 0..CRITERIA {
        let (alone, all_later) =
            (std::array::from_fn(|i| i == criterion), std::array::from_fn(|i| i > criterion));
        assert!(
            rank_with(all_later, true) < rank_with(alone, true),
            "criterion {criterion} outweighs all later ones"
        );
    }
    let delay_only = std::array::from_fn(|i| i == 7);
    assert!(
        rank_with(delay_only, false) == rank_with([false; CRITERIA], false),
        "the preempt delay counts only if `count_preempt_delay` is true"
    );
}

#[test]
fn a_rank_without_api_facts_depends_on_the_state_that_the_node_reports() {
    for criterion in 0..CRITERIA {
        let rank = rank_with(std::array::from_fn(|i| i == criterion), true);
        let other = rank_with([false; CRITERIA], true);
        let is_api_fact = [4, 5, 8].contains(&criterion);
        assert_eq!(rank.without_api_facts() == other.without_api_facts(), is_api_fact);
    }
}

#[test]
fn flags_other_than_soft_rules_do_not_count() {
    let other_flags =
        Flags { isolated: true, in_preempt_delay: true, health_checked: true, ..Flags::default() };
    assert_eq!(
        soft_rules(&Candidate { preference: 7, ..Candidate::default() }, other_flags, false),
        NO_SOFT_RULES
    );
}

/// Returns one candidate for each bit of `nodes` that is 1.
fn candidates(nodes: u8) -> Arc<[Candidate]> {
    let node = |n| Candidate { node: format!("node{n}").into(), ..Candidate::default() };
    (0..8).filter(|n| nodes & (1 << n) != 0).map(node).collect()
}

proptest! {
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
