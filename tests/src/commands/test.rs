//! `cargo lab test`: the tests of a tier by `cargo test`, seen as they run, and one summary that names what ran.

use super::parts::Beside;
use super::up::{KUBEADM_STEPS, OLDEST_STEPS, PREPARE_STEPS, ROUTER_STEPS};
use super::up::{prepare, prepare_docker, prepare_kubeadm, prepare_kubernetes};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ferrolb_tests::setup::docker::{CONTAINERS, VARIABLE};
use ferrolb_tests::setup::kubernetes::Version;
use ferrolb_tests::steps::{Steps, spoken};
use ferrolb_tests::{rights, setup, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The test targets that calculate for minutes, unless they are optimised.
const OPTIMISED_TARGETS: [&str; 1] = ["sim"];
/// The test targets whose tests wait for their turn, and those that may stand together should all be at it: with fewer threads, tests that wait to be
/// alone would keep them.
const WAITING_TARGETS: [&str; 2] = ["cluster", "peers"];
const THREADS: &str = "100";
/// Beside the lab's program: which rights FerroLB's accounts used in this run.
const RIGHTS: &str = "rights-used.jsonl";

/// A rung of the test ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// What needs nothing but Rust.
    Unit,
    /// Real kernel network namespaces and a real cluster.
    Lab,
    /// A real cluster and real routers: FRR, BIRD and GoBGP.
    Peers,
    /// The manifests and the Helm chart, by kustomize and Helm, which Go builds.
    Install,
    /// FerroLB in pods, on clusters that kubeadm made.
    Kubeadm,
}

/// What came of a tier's tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    /// Ignored, or filtered out: neither may happen.
    skipped: usize,
}

/// What all tests of a run are told.
struct Run {
    /// Routers are containers.
    docker: bool,
    /// Where labs add up which rights were used.
    rights: PathBuf,
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
    prepare_for(&tiers, docker)?;
    let _beside = if tier.is_none() { Some(Beside::start()?) } else { None };
    let file = std::env::current_exe()?.with_file_name(RIGHTS);
    rights::run::forget(&file)?;
    let run = Run { docker, rights: file };
    let outcomes = tiers.into_iter().map(|tier| run_tier(tier, &run, &targets)).collect::<Result<Vec<_>>>()?;
    println!("\n{}", outcomes.iter().map(summary).collect::<Vec<_>>().join("\n"));
    ensure!(outcomes.iter().all(good), "not all tests passed");
    if tier.is_none() { least_privilege(&run.rights) } else { Ok(()) }
}

/// Shows what is installed and built for the tiers. When all are to run, that is what the first of them need.
fn prepare_for(tiers: &[Tier], docker: bool) -> Result<()> {
    let asked = |tier| tiers.contains(&tier);
    let one = tiers.len() == 1;
    let (routers, oldest, kubeadm) = (asked(Tier::Peers), one && asked(Tier::Lab), one && asked(Tier::Kubeadm));
    if !(routers || asked(Tier::Lab) || kubeadm) {
        return Ok(());
    }
    let more = [(routers, ROUTER_STEPS), (oldest, OLDEST_STEPS), (kubeadm, KUBEADM_STEPS), (docker, 1)];
    let more: usize = more.iter().filter(|(asked, _)| *asked).map(|(_, steps)| steps).sum();
    let steps = &mut Steps::new(PREPARE_STEPS + more);
    prepare(steps, routers, Version::Newest)?;
    if oldest {
        prepare_kubernetes(steps, Version::Oldest)?;
    }
    if kubeadm {
        prepare_kubeadm(steps)?;
    }
    if docker {
        prepare_docker(steps)?;
    }
    Ok(())
}

/// After all stories, for a part of them does not need all: what `deploy/` grants is what FerroLB's accounts used, and what they asked for is granted.
fn least_privilege(file: &Path) -> Result<()> {
    let (seen, granted) = (rights::run::added_up(file)?, rights::run::of_deploy(true)?);
    let (unused, in_vain) = (seen.unused(&granted), seen.in_vain());
    println!("rights  {} granted, {} used, {} refused", granted.len(), granted.len() - unused.len(), in_vain.len());
    let problems = [unused, in_vain].concat();
    ensure!(problems.is_empty(), "deploy/ grants not what the programs need:\n{}", problems.join("\n"));
    Ok(())
}

fn run_tier(tier: Tier, run: &Run, targets: &[String]) -> Result<Outcome> {
    let start = wait::now();
    let (mut counts, mut success) = (Counts::default(), true);
    for arguments in cargo_calls(tier, targets) {
        println!("\n$ cargo {}", arguments.join(" "));
        success &= cargo_test(&arguments, run, &mut counts)?;
    }
    Ok(Outcome { tier, docker: run.docker, counts, success, elapsed: wait::now() - start })
}

/// The `cargo test` calls of a tier. All select the whole workspace, so that nothing is compiled twice for another set of features.
fn cargo_calls(tier: Tier, targets: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let of_tier: Vec<&String> = targets.iter().filter(|target| tier_of(target) == tier).collect();
    let (optimised, plain): (Vec<_>, Vec<_>) =
        of_tier.into_iter().partition(|target| OPTIMISED_TARGETS.contains(&target.as_str()));
    let named = |mut call: Vec<String>, targets: Vec<&String>| {
        call.extend(targets.into_iter().flat_map(|target| ["--test".to_owned(), target.clone()]));
        call
    };
    if tier == Tier::Unit {
        let all = words(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
        let doc = words(&["test", "--workspace", "--no-fail-fast", "--doc"]);
        let in_profile = words(&["test", "--profile", "lab", "--workspace", "--no-fail-fast"]);
        return vec![named(all, plain), doc, named(in_profile, optimised)];
    }
    let call = |target: &String| {
        let mut call = named(words(&["test", "--workspace", "--no-fail-fast"]), vec![target]);
        if WAITING_TARGETS.contains(&target.as_str()) {
            call.extend(words(&["--", "--test-threads", THREADS]));
        }
        call
    };
    plain.into_iter().map(call).collect()
}

/// The tier that a test target is of.
fn tier_of(target: &str) -> Tier {
    match target {
        "install" => Tier::Install,
        "cluster" | "wire" => Tier::Lab,
        "peers" => Tier::Peers,
        "kubeadm" => Tier::Kubeadm,
        _ => Tier::Unit,
    }
}

/// Runs one call with its output shown as it comes; whether it succeeded.
fn cargo_test(arguments: &[String], run: &Run, counts: &mut Counts) -> Result<bool> {
    let mut cargo = setup::cargo();
    cargo.args(arguments).envs(run.docker.then_some((VARIABLE, CONTAINERS)));
    cargo.env(rights::run::VARIABLE, &run.rights).stdout(Stdio::piped());
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
        "{tier:<7} {verdict:<6} {passed} passed, {failed} failed, {skipped} skipped, in {}",
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
        for tier in [None, Some(Tier::Unit), Some(Tier::Lab), Some(Tier::Kubeadm)] {
            let refused = test(tier, true).unwrap_err().to_string();
            assert!(refused.ends_with("cargo lab test peers --docker"), "{refused}");
        }
    }

    #[test]
    fn every_target_belongs_to_exactly_one_tier() {
        let targets: Vec<String> =
            ["tidy", "cluster", "crds", "install", "kubeadm", "peers", "sim", "wire"].map(str::to_owned).into();
        let names = |tier| {
            cargo_calls(tier, &targets).concat().into_iter().filter(|word| targets.contains(word)).collect::<Vec<_>>()
        };
        assert_eq!(names(Tier::Unit), ["tidy", "crds", "sim"]);
        assert_eq!(names(Tier::Install), ["install"]);
        assert_eq!(names(Tier::Lab), ["cluster", "wire"]);
        assert_eq!(names(Tier::Peers), ["peers"]);
        assert_eq!(names(Tier::Kubeadm), ["kubeadm"]);
        for tier in [Tier::Install, Tier::Lab, Tier::Peers, Tier::Kubeadm] {
            assert!(cargo_calls(tier, &[]).is_empty(), "a bare `cargo test` would run every target");
        }
    }
}
