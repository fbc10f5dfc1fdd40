//! Parallel execution of many runs, and their results: a table next to the prototype's results, and
//! each violated rule with the command that repeats its first violation.

use super::{Rule, Run, RunOutcome, Violation};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Minimum time with two owners for a unit to count in the table. The prototype used the same
/// value.
const LONG_DOUBLE_OWNER: Duration = Duration::from_millis(60);

/// Executes all runs, `jobs` at a time, and returns their outcomes in the order of the runs.
pub fn execute_all(runs: &[Run], jobs: usize) -> Vec<RunOutcome> {
    execute_each(runs, jobs, Run::execute)
}

/// Executes all runs of any kind, `jobs` at a time, and returns their outcomes in the order of the
/// runs.
pub fn execute_each<R: Sync, O: Send>(
    runs: &[R],
    jobs: usize,
    execute: impl Fn(&R) -> O + Sync,
) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, run)) = next_run(runs, &next) {
            done.push((at, execute(run)));
        }
        done
    };
    let mut all: Vec<(usize, O)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a run does not panic"))
            .collect()
    });
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

fn next_run<'a, R>(runs: &'a [R], next: &AtomicUsize) -> Option<(usize, &'a R)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, runs.get(at)?))
}

/// Returns the number of processors, the default number of parallel runs.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Runs of one scenario and their outcomes, for one row of the table.
pub struct Row<'a> {
    pub runs: &'a [Run],
    pub outcomes: &'a [RunOutcome],
}

/// Returns the heading of the table.
pub fn head() -> String {
    format!(
        "{:<14} {:>5} | {:>22} {:>7} | {:>13} {:>7} | {:>6} {:>6} | {:>6} {:>8} {:>8} | {:>6} | {:>13}",
        "scenario",
        "runs",
        "unowned: p50 p99 max",
        "(seed)",
        "2 owners: max",
        "(seed)",
        "moves",
        "burst",
        "fences",
        "failed/h",
        "frames/s",
        "broken",
        "prototype, ms"
    )
}

impl Row<'_> {
    /// Returns the scenario's row of the table. Times are in milliseconds; moves and fences are
    /// means per run, and failures a number per hour.
    pub fn line(&self) -> String {
        let count = self.outcomes.len().max(1) as f64;
        let mut unowned_times: Vec<Duration> =
            self.outcomes.iter().flat_map(|outcome| outcome.unowned_times.clone()).collect();
        unowned_times.sort_unstable();
        let at = |share: f64| {
            let index = (unowned_times.len() as f64 * share) as usize;
            millis(
                unowned_times
                    .get(index.min(unowned_times.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or_default(),
            )
        };
        let (unowned, unowned_seed) = self.worst(|outcome| &outcome.unowned_times);
        let (double_owner, double_owner_seed) = self.worst(|outcome| &outcome.double_owner_times);
        let long_double_owners = self
            .outcomes
            .iter()
            .flat_map(|outcome| &outcome.double_owner_times)
            .filter(|time| **time > LONG_DOUBLE_OWNER)
            .count();
        let mean =
            |value: fn(&RunOutcome) -> f64| self.outcomes.iter().map(value).sum::<f64>() / count;
        let seconds: f64 = self.outcomes.iter().map(|outcome| outcome.measured.as_secs_f64()).sum();
        let frames: u64 = self.outcomes.iter().map(|outcome| outcome.frames).sum();
        let failures: u64 = self.outcomes.iter().map(|outcome| outcome.failures).sum();
        let prototype = self.runs.first().and_then(|run| run.scenario.prototype);
        let prototype = prototype.map_or_else(
            || "-".to_owned(),
            |result| format!("{} / {}", result.unowned, result.double_owner),
        );
        format!(
            "{:<14} {:>5} | {:>6} {:>4} {:>4} {:>5} {:>7} | {:>5} {:>7} {:>7} | {:>6.1} {:>6} | {:>6.2} {:>8.0} {:>8.0} | {:>6} | {:>13}",
            self.runs.first().map_or("", |run| run.scenario.name),
            self.outcomes.len(),
            unowned_times.len(),
            at(0.5),
            at(0.99),
            unowned,
            unowned_seed,
            long_double_owners,
            double_owner,
            double_owner_seed,
            mean(|outcome| outcome.moves as f64),
            self.outcomes.iter().map(|outcome| outcome.burst).max().unwrap_or(0),
            mean(|outcome| outcome.fences as f64),
            failures as f64 * 3_600.0 / seconds.max(1.0),
            frames as f64 / seconds.max(1.0),
            self.violations().count(),
            prototype,
        )
    }

    /// Returns the maximum of the values of `list`, in milliseconds, and the seed of its run.
    fn worst(&self, list: fn(&RunOutcome) -> &Vec<Duration>) -> (u128, String) {
        let worst = |(run, outcome): (&Run, &RunOutcome)| {
            Some((list(outcome).iter().max().copied()?, run.seed))
        };
        let all = self.runs.iter().zip(self.outcomes).filter_map(worst);
        all.max_by_key(|(time, _)| *time)
            .map_or((0, String::new()), |(time, seed)| (millis(time), format!("({seed})")))
    }

    /// Returns every violation with its run.
    pub fn violations(&self) -> impl Iterator<Item = (&Run, &Violation)> {
        self.runs
            .iter()
            .zip(self.outcomes)
            .flat_map(|(run, outcome)| outcome.violations.iter().map(move |v| (run, v)))
    }

    /// Returns each violated rule with its count and the command that repeats its first violation;
    /// empty without violations.
    pub fn violations_text(&self) -> String {
        let mut rules: BTreeMap<Rule, (usize, &Run, &Violation)> = BTreeMap::new();
        for (run, violation) in self.violations() {
            rules.entry(violation.rule).or_insert((0, run, violation)).0 += 1;
        }
        let mut text = String::new();
        for (count, run, violation) in rules.values() {
            let name = run.scenario.name;
            let _ = writeln!(
                text,
                "  {name}: {count} times, first in seed {}: {violation}\n    {}",
                run.seed,
                run.replay()
            );
        }
        text
    }
}

const fn millis(time: Duration) -> u128 {
    time.as_millis()
}
