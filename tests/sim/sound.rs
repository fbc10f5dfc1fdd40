//! The machine as it is keeps every rule.

use ferrolb_tests::sim::report::{self, Row};
use ferrolb_tests::sim::{Run, Scenario, scenario};

/// Runs of all scenarios on a wire of this size; the seeds begin where those of no other test are.
fn runs(scenarios: &[&'static Scenario], start: u64, seeds: u64, (nodes, units): (usize, usize)) -> Vec<Run> {
    let run = |scenario, seed| Run { scenario, seed, nodes, units, broken: None, trace: false };
    scenarios.iter().flat_map(|scenario| (start..start + seeds).map(|seed| run(*scenario, seed))).collect()
}

/// Goes through the runs, prints their table, and fails with every rule that was broken.
fn check(scenarios: &[&'static Scenario], start: u64, seeds: u64, size: (usize, usize)) {
    let runs = runs(scenarios, start, seeds, size);
    let outcomes = report::go(&runs, report::processors());
    println!("{} nodes, {} units; times in ms\n{}", size.0, size.1, report::head());
    let mut complaints = String::new();
    for (runs, outcomes) in runs.chunks(seeds as usize).zip(outcomes.chunks(seeds as usize)) {
        let row = Row { runs, outcomes };
        println!("{}", row.line());
        complaints += &row.complaint();
    }
    assert!(complaints.is_empty(), "rules were broken; the second line of each repeats it:\n{complaints}");
}

fn all() -> Vec<&'static Scenario> {
    scenario::ALL.iter().collect()
}

fn named(names: &[&str]) -> Vec<&'static Scenario> {
    let find = |name: &&str| scenario::ALL.iter().find(|scenario| scenario.name == *name).expect("a scenario");
    names.iter().map(find).collect()
}

#[test]
fn three_nodes_keep_every_rule() {
    check(&all(), 10_000, 100, (3, 3));
}

#[test]
fn four_nodes_keep_every_rule() {
    check(&all(), 20_000, 150, (4, 4));
}

#[test]
fn ten_nodes_keep_every_rule() {
    check(&all(), 30_000, 20, (10, 6));
}

#[test]
fn a_hundred_nodes_keep_every_rule() {
    check(&named(&["death", "loss1", "split", "chaos"]), 40_000, 1, (100, 10));
}

/// More addresses than one hello has room for fail in these.
#[test]
fn hundreds_of_units_keep_every_rule() {
    check(&named(&["sick", "failing", "all_failing", "chaos"]), 50_000, 20, (4, 300));
}

#[test]
fn a_run_repeats_to_the_last_frame() {
    for run in runs(&named(&["chaos", "keys"]), 7, 3, (5, 4)) {
        let (first, second) = (run.go(), run.go());
        assert_eq!((first.frames, first.moves, first.orphans), (second.frames, second.moves, second.orphans));
    }
}
