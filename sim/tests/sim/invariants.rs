//! Tests that a claim machine without a defect violates no rule.

use ferrolb_sim::report::{self, Row};
use ferrolb_sim::{Run, Scenario, scenario};

/// Returns runs of the scenarios on a segment with `nodes` nodes and `units` units. Each test has a
/// seed range of its own.
fn runs(
    scenarios: &[&'static Scenario],
    start: u64,
    seeds: u64,
    (nodes, units): (usize, usize),
) -> Vec<Run> {
    let run = |scenario, seed| Run { scenario, seed, nodes, units, defect: None, trace: false };
    scenarios
        .iter()
        .flat_map(|scenario| (start..start + seeds).map(|seed| run(*scenario, seed)))
        .collect()
}

/// Executes the runs, prints their table, and fails with every violated rule.
fn check(scenarios: &[&'static Scenario], start: u64, seeds: u64, size: (usize, usize)) {
    let runs = runs(scenarios, start, seeds, size);
    let outcomes = report::execute_all(&runs, report::processors());
    println!("{} nodes, {} units; times in ms\n{}", size.0, size.1, report::head());
    let mut violations = String::new();
    for (runs, outcomes) in runs.chunks(seeds as usize).zip(outcomes.chunks(seeds as usize)) {
        let row = Row { runs, outcomes };
        println!("{}", row.line());
        violations += &row.violations_text();
    }
    assert!(
        violations.is_empty(),
        "rules were violated; the second line of each violation is the command that repeats it:\n{violations}"
    );
}

fn all() -> Vec<&'static Scenario> {
    scenario::all().collect()
}

fn named(names: &[&str]) -> Vec<&'static Scenario> {
    let find = |name: &&str| {
        scenario::all().find(|scenario| scenario.name == *name).expect("the scenario exists")
    };
    names.iter().map(find).collect()
}

#[test]
fn two_nodes_keep_every_rule_if_one_fails_stalls_or_is_isolated() {
    let without_peers =
        ["last", "last_restarted", "isolate_silent", "deaf_silent", "deaf_for_good"];
    check(&named(&without_peers), 60_000, 50, (2, 12));
    check(&named(&["death", "deaf", "isolate", "split", "restart"]), 60_000, 50, (2, 12));
    let busy = ["stalls", "stalls_in_turn", "stalls_silent", "stalls_changes", "busy_death"];
    check(&named(&busy), 60_000, 50, (2, 12));
}

#[test]
fn three_nodes_keep_every_rule() {
    check(&all(), 10_000, 40, (3, 3));
}

#[test]
fn four_nodes_keep_every_rule() {
    check(&all(), 20_000, 40, (4, 4));
}

#[test]
fn ten_nodes_keep_every_rule() {
    check(&all(), 30_000, 6, (10, 6));
}

#[test]
fn a_hundred_nodes_keep_every_rule() {
    check(&named(&["death", "loss1", "split", "chaos"]), 40_000, 1, (100, 10));
}

/// Tests scenarios in which the claims of a node, and changes of their ranks, need several frames.
#[test]
fn hundreds_of_units_keep_every_rule() {
    check(&named(&["sick", "failing", "all_failing"]), 50_000, 20, (4, 300));
    check(&named(&["chaos"]), 50_000, 20, (4, 300));
}

/// Runs in which a former version of the claim machine or of the checker led to violations:
/// scenario, seed, and number of nodes and of units.
const EARLIER_VIOLATIONS: [(&str, u64, (usize, usize)); 13] = [
    ("chaos", 10_054, (3, 3)),
    ("chaos", 10_349, (3, 3)),
    ("chaos", 16_452, (3, 3)),
    ("chaos", 22_965, (4, 4)),
    ("chaos", 800_777, (4, 4)),
    ("chaos", 801_861, (4, 4)),
    ("chaos", 1_007_528, (4, 4)),
    ("chaos", 3_001_482, (4, 4)),
    ("one_way", 3_000_299, (4, 4)),
    ("one_way", 3_100_204, (10, 8)),
    ("pause", 2_000_279, (4, 4)),
    ("pause", 3_100_251, (10, 8)),
    ("split", 2_200_053, (10, 8)),
];

#[test]
fn earlier_violations_do_not_recur() {
    for (name, seed, size) in EARLIER_VIOLATIONS {
        check(&named(&[name]), seed, 1, size);
    }
}

#[test]
fn runs_with_the_same_seed_have_the_same_result() {
    for run in runs(&named(&["chaos", "keys"]), 7, 3, (5, 4)) {
        let (first, second) = (run.execute(), run.execute());
        assert_eq!(
            (first.frames, first.moves, first.unowned_times),
            (second.frames, second.moves, second.unowned_times)
        );
    }
}
