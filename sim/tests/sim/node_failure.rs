//! Tests of the simulation of node failure: no rule is violated, and the checker detects each
//! deliberate defect.

use ferrolb_sim::node_failure::{Defect, FaultKind, Rule, Run, table};
use ferrolb_sim::report;
use std::collections::BTreeSet;

const NODES: usize = 100;

fn violated_rules(runs: &[Run]) -> BTreeSet<Rule> {
    let outcomes = report::execute_each(runs, report::processors(), Run::execute);
    let violations = outcomes.into_iter().flat_map(|outcome| outcome.violations);
    violations.map(|violation| violation.rule).collect()
}

#[test]
fn living_nodes_are_not_marked_for_long_and_failed_ones_are_soon() {
    // Several seeds of each kind of fault, and as many with several faults.
    let runs: Vec<_> =
        (0..16 * FaultKind::ALL.len() as u64).map(|seed| Run::of_seed(seed, NODES)).collect();
    let outcomes = report::execute_each(&runs, report::processors(), Run::execute);
    println!("{}\n{}", table::head(), table::rows(&runs, &outcomes).join("\n"));
    let violations = table::violations_text(&runs, &outcomes);
    assert!(
        violations.is_empty(),
        "rules were violated; the second line of each violation is the command that repeats it:\n{violations}"
    );
    let marks: u32 = outcomes.iter().map(|outcome| outcome.marks).sum();
    let false_marks: u32 = outcomes.iter().map(|outcome| outcome.false_marks).sum();
    assert!(marks > 100 && false_marks * 100 <= marks, "{false_marks} of {marks} marks are false");
}

#[test]
fn a_thousand_nodes_keep_every_rule() {
    let runs: Vec<_> =
        (0..FaultKind::ALL.len() as u64).map(|seed| Run::of_seed(50_000 + seed, 1_000)).collect();
    assert_eq!(violated_rules(&runs), BTreeSet::new());
}

/// Runs in which a former version of the machines led to violations: fault, seed and nodes. A
/// watcher that had lost one packet of a probe never reported the failure of the node.
const EARLIER_VIOLATIONS: [(FaultKind, u64, usize); 3] = [
    (FaultKind::PowerOff, 492, 100),
    (FaultKind::SpeakerUpdated, 200_280, 100),
    (FaultKind::SpeakerUpdated, 4_570, 100),
];

#[test]
fn earlier_violations_do_not_recur() {
    let runs = EARLIER_VIOLATIONS.map(|(kind, seed, nodes)| {
        let of_seed = Run::of_seed(seed, nodes);
        Run { fault: Some(kind), on_leaders_node: false, ..of_seed }
    });
    assert_eq!(violated_rules(&runs), BTreeSet::new());
}

#[test]
fn runs_with_the_same_seed_have_the_same_result() {
    for seed in [3, 30, 40] {
        let run = Run { fault: None, ..Run::of_seed(seed, NODES) };
        let (first, second) = (run.execute(), run.execute());
        assert_eq!((first.marks, first.longest), (second.marks, second.longest));
    }
}

/// Checks that a defect violates a rule, in runs that violate none without the defect.
fn check(defect: Defect, fault: FaultKind, rule: Rule) {
    let run = |seed| Run { fault: Some(fault), ..Run::of_seed(seed, NODES) };
    check_runs(defect, &(0..24).map(run).collect::<Vec<_>>(), rule);
}

/// The same for faults on the node of the leader.
fn check_on_leaders_node(defect: Defect, fault: FaultKind, rule: Rule) {
    let run = |seed| Run { fault: Some(fault), on_leaders_node: true, ..Run::of_seed(seed, NODES) };
    check_runs(defect, &(0..200).map(run).collect::<Vec<_>>(), rule);
}

fn check_runs(defect: Defect, runs: &[Run], rule: Rule) {
    let fault = runs[0].label();
    assert_eq!(violated_rules(runs), BTreeSet::new(), "{fault} without a defect");
    let broken = |run: &Run| Run { defect: Some(defect), ..*run };
    let rules = violated_rules(&runs.iter().map(broken).collect::<Vec<_>>());
    assert!(rules.contains(&rule), "{defect:?} with {fault} violates {rules:?}, not {rule:?}");
}

#[test]
fn detects_a_watcher_that_ignores_kubelets() {
    check(Defect::IgnoresKubelets, FaultKind::SpeakerKilled, Rule::Alive);
    check(Defect::IgnoresKubelets, FaultKind::BothDropped, Rule::Alive);
}

#[test]
fn detects_a_controller_that_marks_again_and_again() {
    check(Defect::MarksAgain, FaultKind::PowerCycle, Rule::Again);
}

#[test]
fn detects_a_kubelet_that_does_not_restore_its_pods() {
    check(Defect::KubeletsNeverSync, FaultKind::PowerCycle, Rule::Long);
}

#[test]
fn detects_a_controller_that_marks_too_many_nodes() {
    check(Defect::IgnoresLimit, FaultKind::PowerOffRack, Rule::Limit);
}

#[test]
fn detects_a_controller_that_marks_late() {
    check(Defect::MarksLate, FaultKind::PowerOff, Rule::Slow);
    check(Defect::MarksLate, FaultKind::Reboot, Rule::Slow);
}

#[test]
fn detects_a_controller_that_takes_a_stopped_speaker_for_a_failed_node() {
    check(Defect::IgnoresPods, FaultKind::SpeakerUpdated, Rule::Alive);
    check(Defect::IgnoresPods, FaultKind::SpeakerRemoved, Rule::Alive);
    check(Defect::IgnoresVersions, FaultKind::Reboot, Rule::Versions);
}

#[test]
fn detects_a_standby_that_marks_too_much_or_nothing() {
    check(Defect::StandbyMarksAll, FaultKind::PowerOff, Rule::Standby);
    check(Defect::StandbyMarksNone, FaultKind::LeaderOff, Rule::Slow);
}

#[test]
fn detects_a_standby_that_ignores_renewals_of_the_lease() {
    check_on_leaders_node(Defect::IgnoresRenewals, FaultKind::SmallPart, Rule::Renewal);
}
