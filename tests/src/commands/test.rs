//! `cargo lab test`: the tests of a tier by `cargo test`, seen as they run, and one summary that names what ran.

use super::up::{PREPARE_STEPS, ROUTER_STEPS, prepare, prepare_docker};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use ferrolb_tests::setup::docker::{CONTAINERS, VARIABLE};
use ferrolb_tests::steps::{Steps, spoken};
use ferrolb_tests::{setup, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

/// The test targets that need root rights and a lab; every target that is not named here is of the unit tier.
const LAB_TARGETS: [&str; 2] = ["cluster", "wire"];
/// The test targets that need routers, too.
const PEERS_TARGETS: [&str; 1] = ["peers"];
/// The test targets that calculate for minutes, unless they are optimised.
const OPTIMISED_TARGETS: [&str; 1] = ["sim"];

/// A rung of the test ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// What needs nothing but Rust.
    Unit,
    /// Real kernel network namespaces and a real cluster.
    Lab,
    /// A real cluster and real routers: FRR, BIRD and GoBGP.
    Peers,
}

/// What came of a tier's tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    /// Ignored, or filtered out: neither may happen.
    skipped: usize,
}

struct Outcome {
    tier: Tier,
    /// Its routers were containers.
    docker: bool,
    counts: Counts,
    success: bool,
    elapsed: Duration,
}

/// Runs one tier, or all; with `docker` that of the peers, whose routers are containers then.
pub(crate) fn test(tier: Option<Tier>, docker: bool) -> Result<()> {
    ensure!(!docker || tier == Some(Tier::Peers), "--docker is for the peers: cargo lab test peers --docker");
    let tiers = tier.map_or_else(|| Tier::value_variants().to_vec(), |tier| vec![tier]);
    let targets = test_targets()?;
    let routers = tiers.contains(&Tier::Peers);
    if routers || tiers.contains(&Tier::Lab) {
        let router_steps = if routers { ROUTER_STEPS } else { 0 };
        let steps = &mut Steps::new(PREPARE_STEPS + router_steps + usize::from(docker));
        prepare(steps, routers)?;
        if docker {
            prepare_docker(steps)?;
        }
    }
    let outcomes = tiers.into_iter().map(|tier| run_tier(tier, docker, &targets)).collect::<Result<Vec<_>>>()?;
    println!("\n{}", outcomes.iter().map(summary).collect::<Vec<_>>().join("\n"));
    if outcomes.iter().all(good) { Ok(()) } else { bail!("not all tests passed") }
}

fn run_tier(tier: Tier, docker: bool, targets: &[String]) -> Result<Outcome> {
    let start = wait::now();
    let (mut counts, mut success) = (Counts::default(), true);
    for arguments in cargo_calls(tier, targets) {
        println!("\n$ cargo {}", arguments.join(" "));
        success &= cargo_test(&arguments, docker, &mut counts)?;
    }
    Ok(Outcome { tier, docker, counts, success, elapsed: wait::now() - start })
}

/// The `cargo test` calls of a tier. All select the whole workspace, so that nothing is compiled twice for another set of features.
fn cargo_calls(tier: Tier, targets: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let is_of = |names: &'static [&str]| move |target: &&String| names.contains(&target.as_str());
    let named = |targets: Vec<&String>| {
        targets.into_iter().flat_map(|target| ["--test".to_owned(), target.clone()]).collect::<Vec<_>>()
    };
    let (is_lab, is_peers, is_optimised) = (is_of(&LAB_TARGETS), is_of(&PEERS_TARGETS), is_of(&OPTIMISED_TARGETS));
    let in_namespaces = |chosen: Vec<&String>| match chosen.is_empty() {
        true => Vec::new(),
        false => vec![[words(&["test", "--workspace", "--no-fail-fast"]), named(chosen)].concat()],
    };
    match tier {
        Tier::Unit => {
            let mut all = words(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
            let elsewhere = |target: &&String| is_lab(target) || is_peers(target) || is_optimised(target);
            all.extend(named(targets.iter().filter(|target| !elsewhere(target)).collect()));
            let mut optimised = words(&["test", "--profile", "lab", "--workspace", "--no-fail-fast"]);
            optimised.extend(named(targets.iter().filter(is_optimised).collect()));
            vec![all, words(&["test", "--workspace", "--no-fail-fast", "--doc"]), optimised]
        }
        Tier::Lab => in_namespaces(targets.iter().filter(is_lab).collect()),
        Tier::Peers => in_namespaces(targets.iter().filter(is_peers).collect()),
    }
}

/// Runs one call with its output shown as it comes; whether it succeeded.
fn cargo_test(arguments: &[String], docker: bool, counts: &mut Counts) -> Result<bool> {
    let mut cargo = setup::cargo();
    cargo.args(arguments).envs(docker.then_some((VARIABLE, CONTAINERS))).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        counts.add(&line);
    }
    Ok(child.wait()?.success())
}

impl Counts {
    /// Adds up a line like `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let [count, what] = pair else { continue };
            let Ok(count) = count.parse::<usize>() else { continue };
            match what.trim_end_matches(';') {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" | "filtered" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// A tier is good when something ran and everything that is there passed.
fn good(outcome: &Outcome) -> bool {
    outcome.success && outcome.counts.passed > 0 && outcome.counts.failed == 0 && outcome.counts.skipped == 0
}

fn summary(outcome: &Outcome) -> String {
    let Counts { passed, failed, skipped } = outcome.counts;
    let tier = format!("{:?}", outcome.tier).to_lowercase() + if outcome.docker { " --docker" } else { "" };
    let verdict = if good(outcome) { "ok" } else { "FAILED" };
    format!(
        "{tier:<5} {verdict:<6} {passed} passed, {failed} failed, {skipped} skipped, in {}",
        spoken(outcome.elapsed)
    )
}

/// The names of all integration test targets in the workspace.
fn test_targets() -> Result<Vec<String>> {
    let mut cargo = setup::cargo();
    cargo.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&ferrolb_tests::run::run(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let tests =
        targets.filter(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")));
    Ok(tests.filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_targets_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 14 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test 3 passed; never counted",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 13, failed: 2, skipped: 5 });
    }

    #[test]
    fn a_tier_that_ran_nothing_or_skipped_something_is_not_good() {
        for (passed, failed, skipped, success, expect) in [
            (1, 0, 0, true, true),
            (0, 0, 0, true, false),
            (1, 1, 0, true, false),
            (1, 0, 1, true, false),
            (1, 0, 0, false, false),
        ] {
            let outcome = Outcome {
                tier: Tier::Lab,
                docker: false,
                counts: Counts { passed, failed, skipped },
                success,
                elapsed: Duration::ZERO,
            };
            assert_eq!(good(&outcome), expect, "{}", summary(&outcome));
        }
    }

    #[test]
    fn containers_are_for_the_peers_alone() {
        for tier in [None, Some(Tier::Unit), Some(Tier::Lab)] {
            let refused = test(tier, true).unwrap_err().to_string();
            assert!(refused.ends_with("cargo lab test peers --docker"), "{refused}");
        }
    }

    #[test]
    fn every_target_belongs_to_exactly_one_tier() {
        let targets: Vec<String> = ["tidy", "cluster", "crds", "peers", "sim", "wire"].map(str::to_owned).into();
        let names = |tier| {
            cargo_calls(tier, &targets).concat().into_iter().filter(|word| targets.contains(word)).collect::<Vec<_>>()
        };
        assert_eq!(names(Tier::Unit), ["tidy", "crds", "sim"]);
        assert_eq!(names(Tier::Lab), ["cluster", "wire"]);
        assert_eq!(names(Tier::Peers), ["peers"]);
        for tier in [Tier::Lab, Tier::Peers] {
            assert!(cargo_calls(tier, &[]).is_empty(), "a bare `cargo test` would run every target");
        }
    }
}
