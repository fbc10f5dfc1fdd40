//! Large objects and a large cluster: memory of the components, and their cost while endpoints
//! change. The benchmark uses two labs.

mod changes;
mod cluster;
mod objects;
mod received;
mod requests;

use super::machine::kilobytes;
use super::report::Findings;
use super::targets::MeasureSpec;
use super::{settle, with_ferrolb};
use crate::cluster::ferrolb::{CONTROLLER, speaker_name};
use crate::lab::admin::metric;
use crate::setup::Tools;
use crate::topology::CONTROL_PLANE;
use crate::{Lab, Options, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// Maximum time for the speakers to own all addresses.
const OWNED_MAX: Duration = Duration::from_secs(180);

/// Runs this benchmark in two labs. The API server of the second one logs the requests of FerroLB.
///
/// # Errors
/// If an object cannot be created, an address has no owner in time, or the API server cannot
/// process the changes in time.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let mut findings =
        with_ferrolb(tools, options, objects::run).context("cannot measure large objects")?;
    let logged = Options { audit: true, ..options.clone() };
    findings.extend(
        with_ferrolb(tools, &logged, cluster::run).context("cannot measure a large cluster")?,
    );
    Ok(findings)
}

/// Returns the process names of the speakers.
fn speakers(lab: &Lab) -> Vec<String> {
    lab.nodes().iter().map(|node| speaker_name(node)).collect()
}

/// Restarts all components. Returns the time from their start until the controller counts
/// `services` Services and the speakers own as many addresses, in milliseconds.
fn restart(lab: &Lab, services: usize) -> Result<f64> {
    let mut names = vec![CONTROLLER.to_owned()];
    names.extend(speakers(lab));
    names.iter().try_for_each(|name| lab.stop(name, Signal::TERM))?;
    let start = wait::now();
    names.iter().try_for_each(|name| lab.restart(name))?;
    wait_owned(lab, services, start)
}

/// Waits until the controller counts `services` Services and the speakers own as many addresses,
/// and returns the time since `start` in milliseconds.
fn wait_owned(lab: &Lab, services: usize, start: Instant) -> Result<f64> {
    wait::until("the components have read all Services", OWNED_MAX, || {
        // Reads metrics, because they count from the start of a process. A SpeakerStatus may be
        // from the previous process.
        let assigned = metric(lab, CONTROL_PLANE, "ferrolb_controller_services")?;
        let owned = settle::owned_addresses(lab)?;
        ensure!(
            [assigned, owned] == [services as f64; 2],
            "the controller counts {assigned} Services, the speakers own {owned} addresses"
        );
        Ok(Some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Adds the peak memory of the largest of these processes since their start.
fn add_peak(
    lab: &Lab,
    findings: &mut Findings,
    measure: &MeasureSpec,
    names: &[String],
) -> Result<()> {
    let peaks =
        names.iter().map(|name| peak_megabytes(lab.pid(name)?)).collect::<Result<Vec<_>>>()?;
    findings.add(measure, peaks.iter().copied().fold(0.0, f64::max));
    findings.keep_samples(measure.id, peaks);
    Ok(())
}

/// Returns the peak memory of a process so far (`VmHWM`, proc(5)), in millions of bytes.
fn peak_megabytes(pid: i32) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let peak = kilobytes(&text, "VmHWM").with_context(|| format!("{file} has no VmHWM"))?;
    Ok(peak as f64 / 1000.0)
}
