//! Busy nodes: speakers beside pods that use all processors, in a kubeadm cluster with two workers.
//!
//! # Method
//!
//! A DaemonSet keeps the workers busy with four times as many processes as the host has processors.
//! It requests what the speaker's request leaves of each worker, so the kernel gives the speaker
//! the share of its own request. A client connects every 10 ms to a Service with a pod on each
//! node; these pods request nothing.
//!
//! The cases differ in the CPU request of the speakers, and in the flag `--detection-time-max`:
//! with 0 all nodes have the constant detection time of calm ones. The capture of the switch shows
//! the moves of the address; their causes, fences, suspicions and failures are metrics of the
//! speakers. No node fails, so each failure is false.
//!
//! After one case, the owner loses its power while the workers are still busy. The next owner may
//! be late by its own lateness after the detection time that the failed one stated.
//!
//! The benchmark itself is in the control group of the client's host, with the weight of a machine:
//! outside of the lab's groups, it would get a tenth of the processors.

use super::in_lab;
use super::power_off::{create_service, stated_detection_ms, wait_served};
use super::report::Findings;
use super::targets::{BUSY, BUSY_FAILOVER, BusyMeasures};
use crate::cluster::ferrolb::NAMESPACE;
use crate::lab::admin::{metric, metric_by};
use crate::scenario::print_measured;
use crate::setup::Tools;
use crate::setup::kubeadm::PodImage;
use crate::traffic::capture::{self, Capture};
use crate::{Lab, Options, wait};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Number of busy processes per processor of the host.
const PROCESSES_PER_PROCESSOR: usize = 4;
const WORKERS: usize = 2;
/// CPU request of the busy pod of a worker with two processors: the rest is less than the largest
/// request of the speaker and those of the cluster's own pods.
const BUSY_REQUEST: &str = "1250m";
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(180);
/// Flag values of the two ways to detect failures.
const CONSTANT: &str = "0s";
const STATED: &str = "2s";
/// Time for which the workers are busy before a case is measured: the speakers have stated how late
/// they are.
const WARM_UP: Duration = Duration::from_secs(20);
/// Interval of the client's connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the frames after the power failure are captured.
const AFTER_FAILURE: Duration = Duration::from_secs(8);
/// Maximum time until the speakers have returned their metrics.
const REPLY_MAX: Duration = Duration::from_secs(60);
const ROLLOUT_MAX: &str = "--timeout=300s";
/// Usual time from the end of a case to the begin of the next one.
const SWITCH_TIME: Duration = Duration::from_secs(90);

/// A case of the benchmark.
struct Case {
    request: &'static str,
    detection_max: &'static str,
    time: Duration,
    /// True if the owner loses its power afterwards, while the workers are still busy.
    fails: bool,
}

const fn case(request: &'static str, detection_max: &'static str, time: Duration) -> Case {
    Case { request, detection_max, time, fails: false }
}

/// The cases, in the order of [`BUSY`].
const CASES: [Case; BUSY.len()] = [
    case("100m", CONSTANT, LONG),
    Case { fails: true, ..case("100m", STATED, LONG) },
    case("10m", CONSTANT, LONG),
    case("10m", STATED, LONG),
    case("250m", STATED, SHORT),
    case("500m", STATED, SHORT),
];

/// Returns the usual duration of the benchmark.
pub fn usual_duration() -> Duration {
    CASES.iter().map(|case| case.time + SWITCH_TIME).sum()
}

/// Measures all cases in one kubeadm cluster, and prints each at once.
///
/// # Errors
/// If no other node takes the address after the power failure.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let options = Options { kubeadm: true, nodes: WORKERS as u8 + 1, ..options.clone() };
    in_lab(tools, &options, |lab| {
        lab.deploy_ferrolb()?;
        let server = create_service(lab)?;
        let mut findings = Findings::default();
        let client = lab.join_client_group()?;
        for (case, specs) in CASES.iter().zip(&BUSY) {
            start(lab, case, server)?;
            print_measured(&measure(lab, case, specs, server, &mut findings)?);
            if case.fails {
                print_measured(&fail_owner(lab, server, &mut findings)?);
            }
        }
        drop(client);
        Ok(findings)
    })
}

/// Starts the speakers of a case, and then the busy pods.
fn start(lab: &Lab, case: &Case, server: SocketAddr) -> Result<()> {
    lab.kubectl(&["delete", "daemonset", "busy", "--ignore-not-found", "--wait"])?;
    let speakers = json!({"spec": {"template": {"spec": {"containers": [{
        "name": "speaker",
        "resources": {"requests": {"cpu": case.request}},
        "env": [{"name": "FERROLB_DETECTION_TIME_MAX", "value": case.detection_max}],
    }]}}}});
    lab.kubectl(&["-n", NAMESPACE, "patch", "daemonset", "speaker", "-p", &speakers.to_string()])?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "daemonset/speaker", ROLLOUT_MAX])?;
    wait_served(lab, server)?;
    let processors = std::thread::available_parallelism()?.get();
    let processes = (PROCESSES_PER_PROCESSOR * processors).div_ceil(WORKERS);
    lab.apply_objects(&[busy(processes)])?;
    lab.kubectl(&["rollout", "status", "daemonset/busy", ROLLOUT_MAX])?;
    wait::during(WARM_UP, || Ok(()))
}

/// Returns a DaemonSet with so many busy processes on each worker.
fn busy(processes: usize) -> serde_json::Value {
    let script = "while :; do :; done & ".repeat(processes) + "wait";
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "busy", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "busy"}},
            "template": {"metadata": {"labels": {"app": "busy"}}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "busy", "image": PodImage::NAME, "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", script],
                    "resources": {"requests": {"cpu": BUSY_REQUEST}},
                }],
            }},
        },
    })
}

/// Measures one case with the client, and returns a description of the result.
fn measure(
    lab: &Lab,
    case: &Case,
    specs: &BusyMeasures,
    server: SocketAddr,
    findings: &mut Findings,
) -> Result<String> {
    let read = || Ok(Some((counters(lab)?, moves_by_cause(lab)?)));
    let (before, causes_before) = wait::until("the speakers reply", REPLY_MAX, read)?;
    lab.owner_of(server.ip())?.context("no node owns the address")?;
    let capture = Capture::start(lab)?;
    let probing = lab.start_probe(server, 2 * case.time, PROBE_INTERVAL);
    wait::during(case.time, || Ok(()))?;
    let report = probing.stop()?;
    let moves = capture::moves(&capture.stop()?, server.ip());
    let (after, causes_after) = wait::until("the speakers reply", REPLY_MAX, read)?;
    let [fences, failures, suspicions] = [0, 1, 2].map(|index| after[index] - before[index]);
    let outside = report.losses_without_move(&moves);
    findings.add(&specs.moves, moves.len() as f64);
    findings.add(&specs.fences, fences);
    findings.add(&specs.failures, failures);
    findings.add(&specs.suspicions, suspicions);
    findings.add(&specs.lost, (report.lost - outside) as f64);
    Ok(format!(
        "request {}, --detection-time-max {}, {} s: {} of {} connections lost, {outside} of them \
         outside of {} moves{}; {fences} fences, {failures} failures, {suspicions} suspicions",
        case.request,
        case.detection_max,
        case.time.as_secs(),
        report.lost,
        report.sent,
        moves.len(),
        new_moves(&causes_before, &causes_after),
    ))
}

/// Returns the moves since the start of all speakers by their cause.
fn moves_by_cause(lab: &Lab) -> Result<BTreeMap<String, f64>> {
    let mut causes = BTreeMap::new();
    for node in lab.nodes() {
        for (cause, moves) in metric_by(lab, &node, "ferrolb_speaker_moves_total", "cause")? {
            *causes.entry(cause).or_default() += moves;
        }
    }
    Ok(causes)
}

/// Returns a text with the moves between two readings, such as ` (2 released, 1 unhealthy)`.
fn new_moves(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> String {
    let count = |(cause, moves): (&String, &f64)| {
        let new = moves - before.get(cause).unwrap_or(&0.0);
        (new > 0.0).then(|| format!("{new} {cause}"))
    };
    let counts: Vec<String> = after.iter().filter_map(count).collect();
    if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
}

/// Returns the fences, the failures and the suspicions of all speakers since their start.
fn counters(lab: &Lab) -> Result<[f64; 3]> {
    let sum = |name: &str| -> Result<f64> {
        lab.nodes().iter().map(|node| metric(lab, node, name)).sum()
    };
    Ok([
        sum("ferrolb_speaker_fences_total")?,
        sum("ferrolb_speaker_deaths_total")?,
        sum("ferrolb_speaker_suspicions_total")?,
    ])
}

/// Powers the owner off, measures the time until another node claims the address, and powers the
/// owner on again. Returns a description of the result.
fn fail_owner(lab: &Lab, server: SocketAddr, findings: &mut Findings) -> Result<String> {
    let owner = lab.owner_of(server.ip())?.context("no node owns the address")?;
    let stated = stated_detection_ms(lab, &owner)?;
    let capture = Capture::start(lab)?;
    wait::during(Duration::from_secs(1), || Ok(()))?;
    let failed_at = wait::now();
    lab.power_off(&owner)?;
    wait::during(AFTER_FAILURE, || Ok(()))?;
    let frames = capture.stop()?;
    let claim = frames.iter().find(|frame| {
        frame.at > failed_at && capture::claimed_by(&frame.bytes, server.ip()).is_some()
    });
    let claimed = claim.context("no node claimed the address after the failure")?.at - failed_at;
    let claimed = claimed.as_secs_f64() * 1000.0;
    let next = lab.owner_of(server.ip())?.context("no node owns the address")?;
    let late = metric(lab, &next, "ferrolb_speaker_late_hellos_seconds")? * 1000.0;
    findings.add(&BUSY_FAILOVER, claimed);
    lab.power_on(&owner)?;
    Ok(format!(
        "{owner} powered off: {next} claimed the address after {claimed:.0} ms; detection time of \
         {owner} because of late hellos: {stated} ms (0: none); hellos of {next} up to {late:.0} ms \
         late"
    ))
}
