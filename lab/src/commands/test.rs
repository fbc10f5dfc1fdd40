//! `cargo lab test`: runs the tests of a tier with `cargo test`, shows their output, and prints one
//! summary of all tiers.

use super::parts::{BackgroundBuild, idle_command};
use super::up::{KUBEADM_STEPS, NETWORK_PLUGIN_STEPS, PREPARE_STEPS, ROUTER_STEPS, SCENARIO_STEPS};
use super::up::{prepare, prepare_docker, prepare_kubeadm, prepare_network_plugins};
use super::up::{prepare_peers, prepare_scenarios};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::steps::{Steps, format_duration};
use ferrolb_lab::{permissions, setup, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write, stdout};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Beginning of all calls of cargo: the profile and the features with which the lab's programs are
/// built, so nothing is compiled twice.
const CARGO_TEST: [&str; 5] = ["test", "--profile", "lab", "--workspace", "--no-fail-fast"];
/// Number of test threads of targets whose tests wait most of the time. All tests of labs should
/// have a thread: with fewer threads, tests that wait to run alone would occupy them.
const THREADS: [(&str, &str); 5] =
    [("cluster", "100"), ("peers", "100"), ("kubeadm", "100"), ("cni", "100"), ("wire", "8")];
/// End of the name of a target that only a run of its tier includes, before a release. The
/// beginning is the name of the tier's other target.
const RELEASE_SUFFIX: &str = "-release";
/// File next to the lab's program with the permissions that FerroLB's accounts used in this run.
const PERMISSIONS_FILE: &str = "rights-used.jsonl";

/// A tier of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Tests that need nothing but Rust.
    Unit,
    /// Simulations of layer 2, which compute for minutes.
    Sim,
    /// Tests on real kernel network namespaces and a real cluster.
    Lab,
    /// Tests on a real cluster with real routers: FRR, BIRD and GoBGP, as processes and in
    /// containers.
    Peers,
    /// Tests of the manifests and the Helm chart, with kustomize and Helm, built with Go.
    Install,
    /// Tests of FerroLB in pods, on kubeadm clusters.
    Kubeadm,
    /// Tests of FerroLB on kubeadm clusters with network plugins: Flannel, kube-router and Cilium.
    Cni,
}

/// Test results of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TestCounts {
    passed: usize,
    failed: usize,
    /// Number of ignored or filtered tests; must be 0.
    skipped: usize,
    /// True if only the tests of one network plugin run: the filtered ones are not skipped.
    filtered: bool,
}

struct TierResult {
    tier: Tier,
    counts: TestCounts,
    success: bool,
    elapsed: Duration,
}

/// Runs one tier, or all; of the tier `cni` only the tests of `plugin`, if it is given.
pub(crate) fn test(tier: Option<Tier>, plugin: Option<NetworkPlugin>) -> Result<()> {
    ensure!(
        plugin.is_none() || tier == Some(Tier::Cni),
        "--cni selects tests of the tier cni: run `cargo lab test cni --cni ...`"
    );
    let tiers = tier.map_or_else(|| Tier::value_variants().to_vec(), |tier| vec![tier]);
    let targets = targets_of_run(tier, test_targets()?);
    prepare_for(&tiers, plugin)?;
    let parts = if tier.is_none() { Some(BackgroundBuild::start()?) } else { None };
    let file = std::env::current_exe()?.with_file_name(PERMISSIONS_FILE);
    permissions::run::reset(&file)?;
    let outcomes = run_tiers(&tiers, parts, &file, &targets, plugin)?;
    println!("\n{}", outcomes.iter().map(summary).collect::<Vec<_>>().join("\n"));
    ensure!(outcomes.iter().all(succeeded), "not all tests passed");
    if tier.is_none() { least_privilege(&file) } else { Ok(()) }
}

/// Returns the targets of a run: one of all tiers leaves out those for releases.
fn targets_of_run(tier: Option<Tier>, mut targets: Vec<String>) -> Vec<String> {
    targets.retain(|target| tier.is_some() || !target.ends_with(RELEASE_SUFFIX));
    targets
}

/// Installs and builds the requirements of the tiers, as visible steps. In a run of all tiers,
/// [`BackgroundBuild`] builds those of the later ones.
fn prepare_for(tiers: &[Tier], plugin: Option<NetworkPlugin>) -> Result<()> {
    let includes = |tier| tiers.contains(&tier);
    let (routers, plugins) = (includes(Tier::Peers), tiers == [Tier::Cni]);
    let kubeadm = tiers == [Tier::Kubeadm] || plugins;
    if !(routers || includes(Tier::Lab) || kubeadm) {
        return Ok(());
    }
    let more =
        [(routers, ROUTER_STEPS + 1), (kubeadm, KUBEADM_STEPS), (plugins, NETWORK_PLUGIN_STEPS)];
    let more: usize = more.iter().filter(|(needed, _)| *needed).map(|(_, steps)| steps).sum();
    let steps = &mut Steps::new(PREPARE_STEPS + SCENARIO_STEPS + more);
    prepare(steps, routers, KubernetesVersion::Newest)?;
    if tiers == [Tier::Peers] {
        prepare_peers(steps)?;
    } else {
        prepare_scenarios(steps)?;
    }
    if kubeadm {
        let parts = prepare_kubeadm(steps)?;
        if plugins {
            let plugins = plugin.map_or_else(|| NetworkPlugin::ALL.to_vec(), |it| vec![it]);
            prepare_network_plugins(steps, &parts, &plugins)?;
        }
    }
    if routers {
        prepare_docker(steps)?;
    }
    Ok(())
}

/// Compares the permissions that `deploy/` grants with the permissions that FerroLB's accounts used
/// in all scenarios: every granted permission must be used, and every request must be granted. The
/// result is valid only after all scenarios, because a part of them does not use every permission.
fn least_privilege(file: &Path) -> Result<()> {
    let (permission_use, granted) =
        (permissions::run::collected(file)?, permissions::run::granted_by_deploy(true)?);
    let (unused, refused) = (permission_use.unused_lines(&granted), permission_use.refused_lines());
    println!(
        "permissions  {} granted, {} used, {} refused",
        granted.len(),
        granted.len() - unused.len(),
        refused.len()
    );
    let problems = [unused, refused].concat();
    ensure!(
        problems.is_empty(),
        "deploy/ does not grant the permissions that the components need:\n{}",
        problems.join("\n")
    );
    Ok(())
}

/// Runs the tiers one after the other. If there are others, simulations run next to them, with idle
/// processor time only: clusters wait most of the time. The simulations begin when the parts of
/// later tiers are built, because no tier waits for a simulation. Their output follows that of the
/// other tiers.
fn run_tiers(
    tiers: &[Tier],
    parts: Option<BackgroundBuild>,
    permissions_file: &Path,
    targets: &[String],
    plugin: Option<NetworkPlugin>,
) -> Result<Vec<TierResult>> {
    let (simulated, waiting): (Vec<Tier>, Vec<Tier>) =
        tiers.iter().partition(|tier| **tier == Tier::Sim && tiers.len() > 1);
    std::thread::scope(|scope| {
        let simulations = scope.spawn(move || {
            drop(parts);
            let mut output = Vec::new();
            let run =
                |tier| run_tier(tier, permissions_file, targets, plugin, idle_cargo, &mut output);
            let outcomes = simulated.into_iter().map(run).collect::<Result<Vec<_>>>();
            (outcomes, output)
        });
        let waiting = waiting.into_iter().map(|tier| {
            let cargo = || Ok(setup::cargo());
            run_tier(tier, permissions_file, targets, plugin, cargo, &mut stdout())
        });
        let mut outcomes = waiting.collect::<Result<Vec<_>>>()?;
        let (simulated, output) = simulations.join().unwrap_or_else(|panic| resume_unwind(panic));
        stdout().write_all(&output)?;
        outcomes.extend(simulated?);
        Ok(outcomes)
    })
}

/// Runs a tier with the command `cargo`, and writes its output to `output`. Labs append the used
/// permissions to the file `permissions_file`.
fn run_tier(
    tier: Tier,
    permissions_file: &Path,
    targets: &[String],
    plugin: Option<NetworkPlugin>,
    cargo: fn() -> Result<Command>,
    output: &mut impl Write,
) -> Result<TierResult> {
    let start = wait::now();
    let mut counts = TestCounts { filtered: plugin.is_some(), ..TestCounts::default() };
    let mut success = true;
    writeln!(output, "\n-- tier {}", tier_name(tier))?;
    for arguments in cargo_calls(tier, targets, plugin) {
        writeln!(output, "\n$ cargo {}", arguments.join(" "))?;
        let mut cargo = cargo()?;
        cargo.args(arguments).env(permissions::run::PERMISSIONS_FILE_ENV, permissions_file);
        success &= cargo_test(cargo, output, &mut counts)?;
    }
    Ok(TierResult { tier, counts, success, elapsed: wait::now() - start })
}

/// Returns the `cargo test` calls of a tier, for all its tests or those of one network plugin.
fn cargo_calls(tier: Tier, targets: &[String], plugin: Option<NetworkPlugin>) -> Vec<Vec<String>> {
    let of_tier = targets.iter().filter(|target| tier_of(target) == tier);
    let call = |more: &[&str]| CARGO_TEST.iter().chain(more).map(|&word| word.to_owned()).collect();
    if tier == Tier::Unit {
        let named = of_tier.flat_map(|target| ["--test", target]);
        let all: Vec<&str> = ["--lib", "--bins"].into_iter().chain(named).collect();
        return vec![call(&all), call(&["--doc"])];
    }
    let threads = |target: &str| THREADS.iter().find(|(name, _)| *name == without_suffix(target));
    // The tests of a plugin are in the module of its name.
    let module = plugin.map(|plugin| format!("{plugin}::").replace('-', "_"));
    of_tier
        .map(|target| {
            let threads = threads(target).map(|(_, count)| ["--", "--test-threads", count]);
            let threads = threads.as_ref().map_or(&[][..], |words| &words[..]);
            call(&[&["--test", target], threads, module.as_deref().as_slice()].concat())
        })
        .collect()
}

/// Returns the name of a target without [`RELEASE_SUFFIX`].
fn without_suffix(target: &str) -> &str {
    target.strip_suffix(RELEASE_SUFFIX).unwrap_or(target)
}

/// Returns the tier of a test target.
fn tier_of(target: &str) -> Tier {
    match without_suffix(target) {
        "install" => Tier::Install,
        "cluster" | "wire" => Tier::Lab,
        "peers" => Tier::Peers,
        "kubeadm" => Tier::Kubeadm,
        "cni" => Tier::Cni,
        "sim" => Tier::Sim,
        _ => Tier::Unit,
    }
}

/// Runs one call, copies its output to `output`, and returns whether it succeeded.
fn cargo_test(
    mut cargo: Command,
    output: &mut impl Write,
    counts: &mut TestCounts,
) -> Result<bool> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let lines = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(lines).lines() {
        let line = line?;
        writeln!(output, "{line}")?;
        counts.add(&line);
    }
    Ok(child.wait()?.success())
}

/// Returns cargo like [`setup::cargo`]; it and its children use only idle processor time.
fn idle_cargo() -> Result<Command> {
    let cargo = setup::cargo();
    let mut command = idle_command(cargo.get_program())?;
    command.current_dir(setup::repository());
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

impl TestCounts {
    /// Adds up a line like
    /// `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let [count, word] = pair else { continue };
            let Ok(count) = count.parse::<usize>() else { continue };
            match word.trim_end_matches(';') {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "filtered" if self.filtered => {}
                "ignored" | "filtered" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// Returns whether a tier succeeded: at least one test ran, and all existing tests passed.
fn succeeded(outcome: &TierResult) -> bool {
    outcome.success
        && outcome.counts.passed > 0
        && outcome.counts.failed == 0
        && outcome.counts.skipped == 0
}

fn tier_name(tier: Tier) -> String {
    format!("{tier:?}").to_lowercase()
}

fn summary(outcome: &TierResult) -> String {
    let TestCounts { passed, failed, skipped, .. } = outcome.counts;
    let tier = tier_name(outcome.tier);
    let verdict = if succeeded(outcome) { "ok" } else { "FAILED" };
    format!(
        "{tier:<7} {verdict:<6} {passed} passed, {failed} failed, {skipped} skipped, in {}",
        format_duration(outcome.elapsed)
    )
}

/// Returns the names of all integration test targets in the workspace.
fn test_targets() -> Result<Vec<String>> {
    let mut cargo = setup::cargo();
    cargo.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&ferrolb_lab::run::run(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    });
    Ok(tests.filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn results_of_several_targets_add_up() {
        let mut counts = TestCounts::default();
        for line in [
            "running 14 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test 3 passed; never counted",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s",
        ] {
            counts.add(line);
        }
        let expect = TestCounts { passed: 13, failed: 2, skipped: 5, filtered: false };
        assert_eq!(counts, expect);
    }

    #[test]
    fn the_tests_of_other_network_plugins_are_not_skipped() {
        let mut counts = TestCounts { filtered: true, ..TestCounts::default() };
        counts.add("test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out");
        assert_eq!(counts, TestCounts { passed: 1, failed: 0, skipped: 1, filtered: true });
        let calls = cargo_calls(Tier::Cni, &words(&["cni"]), Some(NetworkPlugin::KubeRouter));
        assert_eq!(calls.concat().last().unwrap(), "kube_router::");
    }

    #[test]
    fn only_a_run_of_its_tier_includes_a_target_for_releases() {
        let all = words(&["cni", "cni-release", "kubeadm", "kubeadm-release", "sim"]);
        assert_eq!(targets_of_run(None, all.clone()), ["cni", "kubeadm", "sim"]);
        assert_eq!(targets_of_run(Some(Tier::Cni), all.clone()), all);
        for target in ["kubeadm", "kubeadm-release"] {
            let calls = cargo_calls(Tier::Kubeadm, &words(&[target]), None);
            assert_eq!(calls.concat().last().unwrap(), "100", "{target}");
        }
    }

    #[test]
    fn a_tier_without_tests_or_with_skipped_tests_fails() {
        for (passed, failed, skipped, success, expect) in [
            (1, 0, 0, true, true),
            (0, 0, 0, true, false),
            (1, 1, 0, true, false),
            (1, 0, 1, true, false),
            (1, 0, 0, false, false),
        ] {
            let outcome = TierResult {
                tier: Tier::Lab,
                counts: TestCounts { passed, failed, skipped, filtered: false },
                success,
                elapsed: Duration::ZERO,
            };
            assert_eq!(succeeded(&outcome), expect, "{}", summary(&outcome));
        }
    }

    #[test]
    fn every_target_belongs_to_exactly_one_tier() {
        let targets = words(&[
            "tidy",
            "cluster",
            "wire",
            "crds",
            "install",
            "kubeadm",
            "kubeadm-release",
            "cni",
            "cni-release",
            "peers",
            "sim",
        ]);
        let names = |tier| {
            cargo_calls(tier, &targets, None)
                .concat()
                .into_iter()
                .filter(|word| targets.contains(word))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Tier::Unit), ["tidy", "crds"]);
        assert_eq!(names(Tier::Sim), ["sim"]);
        assert_eq!(names(Tier::Install), ["install"]);
        assert_eq!(names(Tier::Lab), ["cluster", "wire"]);
        assert_eq!(names(Tier::Peers), ["peers"]);
        assert_eq!(names(Tier::Kubeadm), ["kubeadm", "kubeadm-release"]);
        assert_eq!(names(Tier::Cni), ["cni", "cni-release"]);
        for tier in [Tier::Sim, Tier::Install, Tier::Lab, Tier::Peers, Tier::Kubeadm, Tier::Cni] {
            assert!(
                cargo_calls(tier, &[], None).is_empty(),
                "`cargo test` without targets would run every target"
            );
        }
    }
}
