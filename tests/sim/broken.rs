//! The checker catches every machine that is broken on purpose, each by the rule that it breaks, in runs that a sound machine passes.

use ferrolb_tests::sim::{Broken, Rule, Run, scenario};
use std::collections::BTreeSet;

const SEEDS: u64 = 12;

/// The rules that are broken in a scenario.
fn broken_rules(name: &str, broken: Option<Broken>) -> BTreeSet<Rule> {
    let scenario = scenario::ALL.iter().find(|scenario| scenario.name == name).expect("a scenario");
    let run = |seed| Run { scenario, seed, nodes: 4, units: 4, broken, trace: false };
    (0..SEEDS).flat_map(|seed| run(seed).go().violations).map(|violation| violation.rule).collect()
}

fn check(broken: Broken, scenario: &str, rule: Rule) {
    assert_eq!(broken_rules(scenario, None), BTreeSet::new(), "{scenario}: a sound machine");
    let rules = broken_rules(scenario, Some(broken));
    assert!(rules.contains(&rule), "{broken:?} in {scenario} breaks {rules:?}, and {rule:?} should be among them");
}

#[test]
fn who_ignores_the_gate_is_caught_answering_after_it_was_stopped() {
    check(Broken::IgnoresGate, "freeze", Rule::Gate);
}

#[test]
fn who_never_yields_is_caught_when_a_successor_takes() {
    check(Broken::NeverYields, "restart", Rule::HandOver);
    check(Broken::NeverYields, "restart", Rule::End);
}

#[test]
fn who_takes_silence_for_death_is_caught_on_a_lossy_wire() {
    check(Broken::NeverAsks, "loss10", Rule::Taken);
}

#[test]
fn who_does_not_listen_is_caught_at_its_start() {
    check(Broken::NeverListens, "cold", Rule::Listen);
}

#[test]
fn who_gives_up_without_a_word_is_caught_when_nobody_answers() {
    check(Broken::NeverReleases, "endpoints", Rule::Orphan);
    check(Broken::NeverReleases, "endpoints", Rule::End);
}

#[test]
fn who_does_not_see_that_its_clock_stood_still_is_caught_after_a_pause() {
    check(Broken::BlindToClocks, "pause", Rule::Fence);
}

#[test]
fn who_does_not_restate_its_claims_is_caught_when_others_take_them() {
    check(Broken::RestatesNothing, "loss1", Rule::Taken);
    check(Broken::RestatesNothing, "death", Rule::Livelock);
}

#[test]
fn who_goes_on_to_answer_is_caught_at_a_hand_over() {
    check(Broken::NeverStops, "drain", Rule::HandOver);
}

#[test]
fn who_is_late_is_caught_at_a_death() {
    check(Broken::Late, "death", Rule::Orphan);
}

#[test]
fn who_does_not_tell_the_clients_is_caught_by_their_caches() {
    check(Broken::DefendsInSilence, "stale", Rule::Cache);
}

#[test]
fn who_thinks_that_it_hears_is_caught_when_it_is_deaf() {
    check(Broken::NeverDeaf, "deaf", Rule::Orphan);
}

#[test]
fn who_forgets_that_an_address_moved_often_is_caught_when_its_owner_comes_and_goes() {
    check(Broken::ForgetsMoves, "comes_and_goes", Rule::Moves);
}

#[test]
fn who_hides_that_its_checks_fail_is_caught_when_it_keeps_what_another_serves_better() {
    check(Broken::HidesFailures, "checks", Rule::Best);
}

#[test]
fn who_overlooks_that_it_is_as_bad_as_the_owner_is_caught_when_it_takes_by_order() {
    check(Broken::ThinksItselfSound, "all_cordoned", Rule::Wander);
}
