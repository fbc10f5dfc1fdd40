//! Compares predictions with a cluster that runs for longer: each prediction starts with a copy of
//! the objects, as `kubectl ferrolb plan` does.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config as RunnerConfig, RngSeed, TestRunner};

use super::super::script::{Op, rows};
use super::changes::line;
use super::*;
use crate::simulation::Simulation;

/// Number of predicted changes.
const CHANGES: usize = 10_000;
/// Number of changes of one history.
const HISTORY: usize = 40;
/// Largest number of changes that are predicted together.
const TOGETHER_MAX: usize = 3;

/// Returns the addresses and the reason of each Service that FerroLB serves.
fn served(state: &State) -> BTreeMap<Key, (Vec<IpAddr>, &'static str)> {
    let services = state.outlook().services;
    services.into_iter().map(|(key, it)| (key, (it.addresses, it.reason))).collect()
}

impl Cluster {
    /// Returns a cluster with the same objects and a new controller.
    fn copy(&self) -> Self {
        let mut copy = Self::without_leader(vec![], vec![]);
        copy.services = self.services.clone();
        copy.copy_inputs(self);
        copy.address_memory.clone_from(&self.address_memory);
        copy.now = self.now;
        copy
    }

    /// Returns a simulation that begins with a copy of the objects.
    fn simulation(&self) -> Simulation {
        let mut copy = self.copy();
        copy.become_leader();
        Simulation::new(copy.state, copy.now)
    }

    /// Executes the writes that are due, without an advance of the time.
    fn write_due(&mut self) {
        while let Some(write) = self.writes().first() {
            self.write(write);
        }
    }
}

/// Predicts these changes, then applies them. Returns the number of changes.
fn predict_and_apply(cluster: &mut Cluster, ops: &[Op]) -> Result<usize, TestCaseError> {
    let mut simulation = cluster.simulation();
    // The status in each changed object is the one before all changes.
    let mut objects = cluster.copy();
    let mut possible = Vec::new();
    for op in ops {
        if objects.is_possible(op) {
            simulation.change(objects.event_of(op));
            possible.push(op);
        }
    }
    simulation.finish();
    for op in &possible {
        cluster.apply_change(op, true);
        cluster.write_due();
    }
    cluster.settle();
    let (predicted, actual) = (served(simulation.state()), served(&cluster.state));
    let differs = |key: &&Key| predicted.get(*key) != actual.get(*key);
    let differing: Vec<_> = predicted.keys().chain(actual.keys()).filter(differs).collect();
    let describe = |key: &&Key| (predicted.get(*key), actual.get(*key));
    prop_assert!(
        differing.is_empty(),
        "{differing:?}: {:?}",
        differing.iter().map(describe).collect::<Vec<_>>()
    );
    Ok(possible.len())
}

#[test]
fn predictions_of_random_changes_equal_the_results() {
    let config = RunnerConfig { rng_seed: RngSeed::Fixed(1), ..RunnerConfig::default() };
    let mut runner = TestRunner::new(config);
    let lines = prop::collection::vec((line(), 1..=TOGETHER_MAX), HISTORY);
    let mut changes = 0;
    while changes < CHANGES {
        let history = lines.new_tree(&mut runner).unwrap().current();
        let mut cluster = Cluster::new(vec![], vec![]);
        for name in ["red", "blue"] {
            let namespace = Namespace { name: name.into(), ..Namespace::default() };
            cluster.apply_change(&Op::Namespace(namespace), true);
        }
        let text: String = history.iter().map(|(line, _)| format!("{line}\n")).collect();
        let ops = rows(&format!("row: one\n{text}")).remove(0).steps.remove(0).changes;
        let mut left = ops.as_slice();
        for (_, together) in &history {
            let (now, later) = left.split_at(left.len().min(*together));
            left = later;
            let result = predict_and_apply(&mut cluster, now);
            changes += result.unwrap_or_else(|error| {
                panic!("{error}\nup to {} of\n{text}", ops.len() - left.len())
            });
        }
    }
    println!("predictions of {changes} changes equal the results");
}
