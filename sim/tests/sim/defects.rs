//! Tests that the checker detects every deliberate defect of a claim machine by the violated rule,
//! in runs that a claim machine without a defect passes.

use ferrolb_sim::{Defect, Rule, Run, scenario};
use std::collections::BTreeSet;

const SEEDS: u64 = 24;

/// Returns the rules that the runs of a scenario violate.
fn violated_rules(name: &str, defect: Option<Defect>) -> BTreeSet<Rule> {
    let scenario =
        scenario::all().find(|scenario| scenario.name == name).expect("the scenario exists");
    let run = |seed| Run { scenario, seed, nodes: 4, units: 4, defect, trace: false };
    (0..SEEDS)
        .flat_map(|seed| run(seed).execute().violations)
        .map(|violation| violation.rule)
        .collect()
}

fn check(defect: Defect, scenario: &str, rule: Rule) {
    assert_eq!(
        violated_rules(scenario, None),
        BTreeSet::new(),
        "the scenario {scenario} violates rules without a defect"
    );
    let rules = violated_rules(scenario, Some(defect));
    assert!(rules.contains(&rule), "{defect:?} in {scenario} violates {rules:?}, not {rule:?}");
}

#[test]
fn detects_a_machine_that_ignores_the_answer_lease() {
    check(Defect::IgnoresAnswerLease, "freeze", Rule::AnswerLease);
}

#[test]
fn detects_a_machine_that_never_yields() {
    check(Defect::NeverYields, "restart", Rule::HandOver);
    check(Defect::NeverYields, "restart", Rule::End);
}

#[test]
fn detects_a_machine_that_never_challenges() {
    check(Defect::NeverChallenges, "loss10", Rule::Taken);
}

#[test]
fn detects_a_machine_that_never_listens() {
    check(Defect::NeverListens, "cold", Rule::Listen);
}

#[test]
fn detects_a_machine_that_never_sends_release() {
    check(Defect::NeverReleases, "all_failing", Rule::Unowned);
    check(Defect::NeverReleases, "all_failing", Rule::End);
}

#[test]
fn detects_a_machine_that_ignores_peer_clocks() {
    check(Defect::IgnoresPeerClocks, "pause", Rule::Fence);
}

#[test]
fn detects_a_machine_whose_frames_describe_an_empty_set() {
    check(Defect::RestatesNothing, "loss1", Rule::HandOver);
    check(Defect::RestatesNothing, "death", Rule::End);
}

#[test]
fn detects_a_machine_that_replies_after_release() {
    check(Defect::NeverStops, "drain", Rule::HandOver);
}

#[test]
fn detects_a_claim_machine_that_misses_its_deadlines() {
    check(Defect::Late, "death", Rule::Unowned);
}

#[test]
fn detects_a_defense_without_announcement() {
    check(Defect::DefendsWithoutAnnouncing, "split", Rule::Cache);
}

#[test]
fn detects_a_machine_that_is_never_isolated() {
    check(Defect::NeverIsolated, "deaf", Rule::Unowned);
}

#[test]
fn detects_a_machine_that_omits_keep_times() {
    check(Defect::OmitsKeepTimes, "comes_and_goes", Rule::Moves);
}

#[test]
fn detects_a_machine_that_hides_failing_checks() {
    check(Defect::HidesFailures, "checks", Rule::Best);
}

#[test]
fn detects_a_machine_that_ignores_its_own_cordon() {
    check(Defect::IgnoresOwnCordon, "mixed", Rule::Best);
}

#[test]
fn detects_a_machine_that_ignores_foreign_hosts() {
    check(Defect::IgnoresForeignHosts, "new_in_use", Rule::ForeignHost);
}

#[test]
fn detects_a_machine_that_waits_longer_than_it_states() {
    check(Defect::HidesDetectionTime, "stalls", Rule::AnswerLease);
}

#[test]
fn detects_a_machine_that_shortens_its_answer_lease_too_late() {
    check(Defect::ShortensLeaseLate, "stalls_changes", Rule::AnswerLease);
}

#[test]
fn detects_a_machine_that_ignores_earlier_versions() {
    check(Defect::IgnoresEarlierVersions, "stalls_mixed", Rule::AnswerLease);
}

#[test]
fn detects_a_machine_that_waits_too_long_or_not_long_enough() {
    check(Defect::WaitsTooLong, "busy_death", Rule::Unowned);
    check(Defect::WaitsOneSecond, "stalls_silent", Rule::AnswerLease);
}

#[test]
fn detects_a_fenced_machine_that_waits_beside_unhealthy_nodes() {
    check(Defect::IgnoresHealthAfterFence, "stalls_alone", Rule::UnhealthyOwner);
}
