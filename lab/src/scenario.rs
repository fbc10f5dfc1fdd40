//! Starts the lab of a test, runs its scenario step by step, and always stops the lab. A failed
//! scenario prints the end of the logs of FerroLB's components and of the routers.

mod lab_slots;
mod stalls;

use crate::process::{self, ProcessRecord};
use crate::setup::Tools;
use crate::setup::kubernetes::KubernetesVersion;
use crate::{Lab, Options, permissions, run, state};
use anyhow::{Context, Result};
use lab_slots::LabSlot;
use stalls::StallMonitor;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Shortest stall that explains a failed scenario: two hello intervals. If hellos are delayed for
/// this time, other nodes almost declare their sender failed.
const STALL_MIN: Duration = Duration::from_millis(100);
/// Maximum number of runs of a scenario that fails while a processor stalls.
const RUNS_MAX: usize = 3;
/// Number of log lines of each program that a failed test prints.
const LOG_LINES: usize = 25;
/// Parts of log lines that a failed test does not print: FRR's daemons write one for each
/// configuration line that belongs to another daemon, and MetalLB's two for each object it reads.
const ROUTINE_LINES: [&str; 3] =
    ["No such command on config line", "\"start reconcile\"", "\"end reconcile\""];
/// Prefixes of the log names that a failed test prints.
const LOG_NAME_PREFIXES: [&str; 6] = ["controller", "speaker", "gobgpd", "frr", "bird", "metallb"];

/// Starts a lab, runs `scenario` in it, and stops it. A panic or an error in the scenario fails the
/// test.
///
/// If a processor of this machine stalled during the scenario, an error fails the test only if the
/// scenario fails again in another run. Other labs may run at the same time: without kubelets,
/// Kubernetes' own programs run at low priority.
pub fn run_scenario(options: &Options, scenario: impl Fn(&Lab) -> Result<()>) {
    run_scenario_in(false, options, scenario);
}

/// Runs a scenario like [`run_scenario`], with no other lab at the same time, for precise time
/// measurements. The cluster's programs run at normal priority: other work of the machine would
/// otherwise leave them a tenth of a processor.
pub fn run_scenario_alone(options: &Options, scenario: impl Fn(&Lab) -> Result<()>) {
    run_scenario_in(true, options, |lab| {
        process::records(lab.state()).iter().for_each(ProcessRecord::restore_priority);
        scenario(lab)
    });
}

fn run_scenario_in(alone: bool, options: &Options, scenario: impl Fn(&Lab) -> Result<()>) {
    let tools = match options {
        Options { kubeadm: true, bgp: true, .. } => Tools::with_all,
        Options { kubeadm: true, .. } => Tools::with_kubeadm,
        Options { containers: true, .. } => Tools::with_containers,
        Options { bgp: true, .. } => Tools::with_routers,
        Options { kubernetes: KubernetesVersion::Oldest, .. } => Tools::with_oldest,
        Options { .. } => Tools::ready,
    };
    with_lab_lock((!alone).then_some(options), tools, |tools| {
        for _ in 1..RUNS_MAX {
            let stalls = StallMonitor::watch()?;
            let Err(error) = run_once(tools, options, &scenario) else { return Ok(()) };
            let longest = stalls.end();
            print_line(&format!(
                "a processor of this machine stalled for up to {longest:?} during the scenario"
            ));
            if longest < STALL_MIN {
                return Err(error);
            }
            print_line("the stall explains the failure: running the scenario again");
        }
        run_once(tools, options, &scenario)
    });
}

fn run_once(tools: &Tools, options: &Options, scenario: impl Fn(&Lab) -> Result<()>) -> Result<()> {
    let lab = Lab::up(tools, &Options { audit: true, scenario: true, ..options.clone() })?;
    let log_tail = LogTailOnFailure(state::logs(&options.name.parse()?));
    // The error is printed at once, and also in the harness's output of this test before the long
    // logs of the programs.
    scenario(&lab).inspect_err(|error| {
        print_line(&format!("failed: {error:#}"));
        println!("failed: {error:#}");
    })?;
    // The scenario succeeded, so the logs are not printed.
    std::mem::forget(log_tail);
    permissions::run::record_lab(lab.state())?;
    lab.down()
}

/// Runs `work` with the tools while no other lab of this or another test run exists.
pub fn without_other_labs(work: impl FnOnce(&Tools) -> Result<()>) {
    with_lab_lock(None, Tools::ready, work);
}

/// Runs `work`, which starts a lab with these options, next to other labs.
pub fn beside_other_labs(options: &Options, work: impl FnOnce(&Tools) -> Result<()>) {
    with_lab_lock(Some(options), Tools::ready, work);
}

/// Runs `work` next to other labs, as far as the machine has room for a lab with the options
/// `shared`; with `None`, runs it without other labs.
fn with_lab_lock(
    shared: Option<&Options>,
    tools: fn() -> Result<&'static Tools>,
    work: impl FnOnce(&Tools) -> Result<()>,
) {
    let run = || {
        let tools = tools()?;
        // The slot is taken before the lock. Otherwise a test that waits for a slot would hold the
        // shared lock and block tests that must run alone.
        let _slot = shared.map(LabSlot::take);
        // A lock on a directory that all test runs of this user share; it ends with the file.
        let lock_file = File::open(&Tools::ready()?.kubernetes)?;
        match shared {
            Some(_) => lock_file.lock_shared()?,
            None => lock_file.lock()?,
        }
        work(tools)
    };
    if let Err(error) = run() {
        panic!("{error:#}");
    }
}

/// Returns the options of a lab with one node, for tests in which the node does not matter.
pub fn one_node(name: &str) -> Options {
    Options { nodes: 1, ..Options::named(name) }
}

/// Returns the options of a lab with one node and no kube-proxy, for tests of the controller alone:
/// no other program uses processor time.
pub fn without_proxy(name: &str) -> Options {
    Options { proxy_mode: None, ..one_node(name) }
}

/// Runs one step of a scenario. The title is printed first, and is part of the step's error.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("- {title}");
    work().with_context(|| title.to_owned())
}

/// Prints a measured value, also for a test that passes.
pub fn print_measured(line: &str) {
    print_line(&format!("measured: {line}"));
}

fn print_line(line: &str) {
    // Not `eprintln!`, whose output the test harness captures. An error means that nothing reads
    // the output.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints the end of the logs of FerroLB's components when dropped.
struct LogTailOnFailure(PathBuf);

impl Drop for LogTailOnFailure {
    fn drop(&mut self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.sort();
        for log in logs {
            let name = log.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if LOG_NAME_PREFIXES.iter().any(|start| name.starts_with(start)) {
                let text = fs::read_to_string(&log).unwrap_or_default();
                let is_routine = |line: &&str| ROUTINE_LINES.iter().any(|it| line.contains(it));
                let shown: Vec<&str> = text.lines().filter(|line| !is_routine(line)).collect();
                println!(
                    "--- the log of {name} ends:\n{}",
                    run::last_lines(&shown.join("\n"), LOG_LINES)
                );
            }
        }
    }
}
