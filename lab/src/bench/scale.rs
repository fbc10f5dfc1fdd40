//! Ten thousand Services in a lab without kube-proxies: time until they have addresses, memory and
//! processor time of the controller, and restart of the controller. The speakers start last, after
//! the controller is measured.
//!
//! # Method
//!
//! - The Services have `allocateLoadBalancerNodePorts: false`, because a cluster has 2,768 node
//!   ports. Eight creators create them after their EndpointSlices, as in [`super::create`], with
//!   the same clocks.
//! - The processor time is that of the controller's process, kernel part included, from before the
//!   first creation until the controller has used at most 2 % of a processor for three seconds. It
//!   includes the Events that the controller sends.
//! - The memory is measured as in [`super::memory`], after that.
//! - Restart: the controller is stopped by SIGTERM and started. The times count from the start of
//!   the process until `/readyz` returns 200, until `ferrolb_controller_leader` is 1, and until
//!   `ferrolb_controller_services` counts all Services, because the controller has adopted every
//!   address. The interval of the checks is 20 ms.
//! - The restarted controller must write nothing until it is idle again. The target of
//!   `ferrolb_controller_writes_total` is zero, so `--check` fails at the first write.
//! - Then a speaker starts on each node. The memory of the largest one counts, when the speakers
//!   own all addresses.
//! - [`super::explain`] measures `kubectl ferrolb` at the end, when the controller is idle again.
//!
//! # Limits
//!
//! With loads of 3 to 8 on the machine, an address took up to 96 ms at the 99th percentile, 1,000
//! addresses took 1.3 s of processor time, and a restarted controller was ready after up to 1.8 s.
//! No run wrote anything after the restart.

use super::create::add_spread;
use super::report::Findings;
use super::services::{self, Assigned, POOL};
use super::targets::{self, CONTROLLER_10000, SPEAKER_10000};
use super::{cpu, explain, memory, settle};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, speaker_name};
use crate::lab::admin::{metric, readyz};
use crate::topology::CONTROL_PLANE;
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

/// Number of Services.
pub(super) const SERVICES: u32 = 10_000;
/// Interval in which the controller uses at most [`IDLE_CPU_MAX`] of processor time if it is idle.
const IDLE_INTERVAL: Duration = Duration::from_secs(3);
const IDLE_CPU_MAX: Duration = Duration::from_millis(60);
/// Maximum time until the controller is idle, and also until the speakers own all addresses.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(180);
/// Maximum time for the restarted controller to decide about all Services.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Runs this benchmark in a lab without kube-proxies and without FerroLB.
///
/// # Errors
/// If a Service gets no address, or a component does not become idle.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    lab.apply(POOL)?;
    settle::wait_for_pools(lab)?;
    let mut findings = Findings::default();
    measure_assignment(lab, &mut findings)?;
    memory::measure(lab, &mut findings, &CONTROLLER_10000, &[CONTROLLER.to_owned()])?;
    measure_restart(lab, &mut findings)?;
    start_speakers(lab, &mut findings)?;
    // The controller writes the conditions `Announced` of all Services, 100 per second.
    wait_idle(lab)?;
    explain::measure(lab, &mut findings)?;
    Ok(findings)
}

fn measure_assignment(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let before = cpu::processor_time(lab.pid(CONTROLLER)?)?;
    let assigned = lab.api(async |client| {
        services::create(&client, "scale", SERVICES as usize, &services::V4).await
    })?;
    let used = wait_idle(lab)? - before;
    for (name, measures, part) in [
        ("scale.api", &targets::SCALE_API, Assigned::api_ms as fn(&Assigned) -> f64),
        ("scale.address", &targets::SCALE_ADDRESS, Assigned::address_ms),
    ] {
        let samples: Vec<f64> = assigned.iter().map(part).collect();
        add_spread(findings, measures, &samples)?;
        findings.keep_samples(name, samples);
    }
    findings.add(&targets::SCALE_CPU, used.as_secs_f64() * 1e6 / f64::from(SERVICES));
    Ok(())
}

/// Waits until the controller is idle and returns the processor time that it has used.
fn wait_idle(lab: &Lab) -> Result<Duration> {
    let pid = lab.pid(CONTROLLER)?;
    wait::until("the controller is idle", IDLE_WAIT_MAX, || {
        let before = cpu::processor_time(pid)?;
        wait::during(IDLE_INTERVAL, || Ok(()))?;
        let used = cpu::processor_time(pid)?;
        ensure!(
            used - before <= IDLE_CPU_MAX,
            "the controller used {:?} of processor time in {IDLE_INTERVAL:?}",
            used - before
        );
        Ok(Some(used))
    })
}

/// Restarts the controller, and measures the times of its startup and its number of writes. No
/// write is needed.
fn measure_restart(lab: &Lab, findings: &mut Findings) -> Result<()> {
    lab.stop(CONTROLLER, Signal::TERM)?;
    let start = wait::now();
    lab.restart(CONTROLLER)?;
    let has_value = |name: &str, value: f64| {
        metric(lab, CONTROL_PLANE, name).is_ok_and(|current| current == value)
    };
    let milestones: [(_, &dyn Fn() -> bool); 3] = [
        (&targets::RESTART_READY, &|| {
            readyz(lab, CONTROL_PLANE).is_ok_and(|(status, _)| status == 200)
        }),
        (&targets::RESTART_LEADING, &|| has_value("ferrolb_controller_leader", 1.0)),
        // The controller counts Services by its decisions, so the full count means that it has
        // decided about all of them.
        (&targets::RESTART_DECIDED, &|| has_value("ferrolb_controller_services", SERVICES.into())),
    ];
    let mut reached = [None; 3];
    wait::until("the restarted controller has decided about all Services", RESTART_MAX, || {
        for ((_, is_reached), reached) in milestones.iter().zip(&mut reached) {
            if reached.is_none() && is_reached() {
                *reached = Some(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let missing: Vec<_> =
            milestones.iter().zip(reached).filter(|(_, reached)| reached.is_none()).collect();
        ensure!(
            missing.is_empty(),
            "the restarted controller has not reached: {}",
            missing.iter().map(|((spec, _), _)| spec.what).collect::<Vec<_>>().join(", ")
        );
        Ok(Some(()))
    })?;
    for ((spec, _), reached) in milestones.iter().zip(reached) {
        findings.add(spec, reached.unwrap_or(f64::INFINITY));
    }
    wait_idle(lab)?;
    findings.add(
        &targets::RESTART_WRITES,
        metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")?,
    );
    Ok(())
}

/// Starts the speakers when all addresses are assigned, and measures their memory.
fn start_speakers(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
    settle::wait_settled(lab)?;
    settle::wait_for_owners(lab, SERVICES.into(), IDLE_WAIT_MAX)?;
    let names: Vec<String> = nodes.iter().map(|node| speaker_name(node)).collect();
    memory::measure(lab, findings, &SPEAKER_10000, &names)
}
