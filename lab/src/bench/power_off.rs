//! Power failure of a machine in a kubeadm cluster, while a client connects every 10 ms: with the
//! flag `--node-failure-endpoints=off`, and with `services`.
//!
//! # Method
//!
//! FerroLB and the three backends of the address are pods, one backend on each machine. One machine
//! loses its power, with kubelet, containerd and pods: the owner of the address, or another one.
//! The Service has the policy Cluster, or Local. The active leader runs on another machine.
//!
//! Another machine owns the address after 0.2 s. With the policy Cluster, a third of the
//! connections is lost after that, because kube-proxy sends them to the pod of the failed machine:
//! until the controller marks this pod, or, without it, until Kubernetes declares the machine
//! failed (`--node-monitor-grace-period` of kube-controller-manager, 50 s by default).
//!
//! A row gives the time from the power failure to the last lost connection before 5 s without a
//! lost one: the median of `--runs` runs with `services`, and one run with `off`. Later losses are
//! printed: a client that uses the port of a lost connection again loses the new one, too. The
//! first run of each case has 60 s for the plot.
//!
//! `cargo lab bench power-off --runs 5 --svg docs/images/power-off.svg` draws the plot of the
//! documentation. `tests/kubeadm/power_off.rs` tests the same case.

mod failure;
mod plot;
mod setup;

use super::in_lab;
use super::report::{Findings, Remark};
use super::stats::Spread;
use super::targets::{self, MeasureSpec};
use crate::setup::Tools;
use crate::{Lab, Options, wait};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::time::Duration;

pub use failure::{PowerFailure, power_off, power_off_owner, shut_down};
pub use setup::{
    create_service, leader_machine, move_leader_from, set_node_failure_endpoints, set_policy,
    stated_detection_ms, wait_served,
};

/// Time for which the client connects after the power failure, in the first run of each case: 50 s
/// of grace period in Kubernetes, and a margin.
const PROBE_LONG: Duration = Duration::from_secs(60);
/// The same for the other runs.
const PROBE_SHORT: Duration = Duration::from_secs(10);

/// A case of the benchmark.
#[derive(Clone, Copy, Debug)]
struct Case {
    policy: &'static str,
    /// True if the owner of the address fails, false if another machine does.
    owner_fails: bool,
    /// Title of the case in the plot.
    title: &'static str,
    /// Measures without and with marked pods.
    specs: [&'static MeasureSpec; 2],
}

const CASES: [Case; 4] = [
    Case {
        policy: "Cluster",
        owner_fails: true,
        title: "policy Cluster, the owner fails",
        specs: targets::POWER_OFF_CLUSTER_OWNER,
    },
    Case {
        policy: "Cluster",
        owner_fails: false,
        title: "policy Cluster, another machine fails",
        specs: targets::POWER_OFF_CLUSTER_OTHER,
    },
    Case {
        policy: "Local",
        owner_fails: true,
        title: "policy Local, the owner fails",
        specs: targets::POWER_OFF_LOCAL_OWNER,
    },
    Case {
        policy: "Local",
        owner_fails: false,
        title: "policy Local, another machine fails",
        specs: targets::POWER_OFF_LOCAL_OTHER,
    },
];

/// Values of the flag `--node-failure-endpoints`, in the order of [`Case::specs`].
const SCOPES: [&str; 2] = [OFF, "services"];
const OFF: &str = "off";
/// Time in which all kube-proxies have updated their rules after a change of the policy.
const POLICY_TIME: Duration = Duration::from_secs(3);

/// Usual duration of one run, on two cores.
const RUN_USUAL_TIME: Duration = Duration::from_secs(105);

/// Returns the usual duration of the benchmark.
pub fn usual_duration(runs: usize) -> Duration {
    let each = u32::try_from(runs.saturating_add(1)).unwrap_or(u32::MAX);
    (0..CASES.len()).map(|_| RUN_USUAL_TIME.saturating_mul(each)).sum()
}

/// Measures power failures, each in a new kubeadm cluster.
///
/// # Errors
/// If no other machine takes the address.
pub(super) fn run(tools: &Tools, options: &Options, runs: usize) -> Result<Findings> {
    let options = Options { kubeadm: true, ..options.clone() };
    let (mut findings, mut text) = (Findings::default(), String::new());
    for (position, scope) in SCOPES.into_iter().enumerate() {
        for case in &CASES {
            let runs = if scope == OFF { 1 } else { runs };
            let mut failures = Vec::new();
            for run in 0..runs {
                let after = if run == 0 { PROBE_LONG } else { PROBE_SHORT };
                failures
                    .push(in_lab(tools, &options, |lab| fail_machine(lab, scope, case, after))?);
            }
            let (good, later): (Vec<_>, Vec<_>) =
                failures.iter().map(PowerFailure::good_after_ms).unzip();
            let median = Spread::of(&good).context("there is a run")?.median;
            findings.add(case.specs[position], median);
            let lost: Vec<_> = failures.iter().map(|it| it.report.lost.to_string()).collect();
            let all: Vec<_> = good.iter().map(|ms| format!("{ms:.0}")).collect();
            let (title, all, lost) = (case.title, all.join(", "), lost.join(", "));
            let _ = writeln!(
                text,
                "{scope}, {title}: good after {all} ms; lost {lost}, later ones {later:?}"
            );
            let first = failures.first().context("there is a run")?;
            if scope != OFF && case.owner_fails && case.policy == "Cluster" {
                findings.add(&targets::POWER_OFF_GAP, first.report.longest_gap_ms);
            }
            findings.keep_samples(&sample_key(scope, case), first.lost_per_second());
        }
    }
    findings.remarks.push(Remark { id: "power-off.runs", what: "each run", text });
    Ok(findings)
}

fn sample_key(scope: &str, case: &Case) -> String {
    format!("power-off.{scope}.{}", case.title)
}

/// Lets a machine fail that does not run the active leader.
fn fail_machine(lab: &Lab, scope: &str, case: &Case, after: Duration) -> Result<PowerFailure> {
    lab.deploy_ferrolb()?;
    let server = create_service(lab)?;
    if scope == OFF {
        set_node_failure_endpoints(lab, scope)?;
    }
    let owner = lab.owner_of(server.ip())?.context("no machine replies for the address")?;
    // The control plane must stay: without the API server, nothing changes.
    let mut others = lab.nodes().into_iter().skip(1);
    let machine = if case.owner_fails { Some(owner) } else { others.find(|it| *it != owner) };
    let machine = machine.context("there is a machine that does not own the address")?;
    move_leader_from(lab, &machine)?;
    wait_served(lab, server)?;
    set_policy(lab, case.policy)?;
    wait::during(POLICY_TIME, || Ok(()))?;
    let (failure, ()) = power_off(lab, &machine, server, after, |_, _| Ok(()))?;
    Ok(failure)
}

/// Returns the plot of the results as SVG; `None` if they were not measured.
pub fn svg_plot(findings: &Findings) -> Option<String> {
    let mut panels = Vec::new();
    for case in &CASES {
        let series = SCOPES.map(|scope| findings.samples.get(&sample_key(scope, case)));
        let [off, on] = series;
        panels.push((case.title, [off?.as_slice(), on?.as_slice()]));
    }
    Some(plot::svg(&panels))
}
