//! Ten thousand Services in a lab without kube-proxies: their addresses, what the controller holds and uses for them, and its restart among
//! them. Speakers come last, when the controller has been measured.

use super::budgets::{self, CONTROLLER_10000, SPEAKER_10000};
use super::create::spread;
use super::report::Findings;
use super::services::{self, Assigned, POOL};
use super::{cpu, memory, rest};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, speaker_name};
use crate::lab::admin::{metric, readyz};
use crate::topology::CONTROL_PLANE;
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

/// How many Services there are.
pub(super) const SERVICES: u32 = 10_000;
/// A program that uses no more than this for so long has done its work.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_CPU: Duration = Duration::from_millis(60);
/// How long it may take until then, and the speakers until they have all addresses.
const QUIET_MAX: Duration = Duration::from_secs(180);
/// How long a restarted controller may take.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Runs in a lab without kube-proxies and without FerroLB.
///
/// # Errors
/// When a Service gets no address, or a program does not come to rest.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    lab.apply(POOL)?;
    rest::wait_for_pools(lab)?;
    let mut findings = Findings::default();
    assign(lab, &mut findings)?;
    memory::hold(lab, &mut findings, &CONTROLLER_10000, &[CONTROLLER.to_owned()])?;
    restart(lab, &mut findings)?;
    speak(lab, &mut findings)?;
    Ok(findings)
}

fn assign(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let before = cpu::used(lab.pid(CONTROLLER)?)?;
    let assigned =
        lab.api(async |client| services::create(&client, "scale", SERVICES as usize, &services::V4).await)?;
    let used = quiet(lab)? - before;
    for (name, known, part) in [
        ("scale.api", &budgets::SCALE_API, Assigned::api_ms as fn(&Assigned) -> f64),
        ("scale.address", &budgets::SCALE_ADDRESS, Assigned::address_ms),
    ] {
        let samples: Vec<f64> = assigned.iter().map(part).collect();
        spread(findings, known, &samples)?;
        findings.keep(name, samples);
    }
    findings.add(&budgets::SCALE_CPU, used.as_secs_f64() * 1e6 / f64::from(SERVICES));
    Ok(())
}

/// Waits until the controller has nothing more to do; the processor time that it has used by then.
fn quiet(lab: &Lab) -> Result<Duration> {
    let pid = lab.pid(CONTROLLER)?;
    wait::until("the controller has done its work", QUIET_MAX, || {
        let before = cpu::used(pid)?;
        wait::during(QUIET, || Ok(()))?;
        let used = cpu::used(pid)?;
        ensure!(used - before <= QUIET_CPU, "it used {:?} in {QUIET:?}", used - before);
        Ok(Some(used))
    })
}

/// Restarts the controller: how long it takes, and that it has nothing to write.
fn restart(lab: &Lab, findings: &mut Findings) -> Result<()> {
    lab.stop(CONTROLLER, Signal::TERM)?;
    let start = wait::now();
    lab.restart(CONTROLLER)?;
    let shows = |name: &str, value: f64| metric(lab, CONTROL_PLANE, name).is_ok_and(|shown| shown == value);
    let stages: [(_, &dyn Fn() -> bool); 3] = [
        (&budgets::RESTART_READY, &|| readyz(lab, CONTROL_PLANE).is_ok_and(|(status, _)| status == 200)),
        (&budgets::RESTART_LEADING, &|| shows("ferrolb_controller_leader", 1.0)),
        // It counts Services by what it has decided about them, so it has done so for all.
        (&budgets::RESTART_DECIDED, &|| shows("ferrolb_controller_services", SERVICES.into())),
    ];
    let mut reached = [None; 3];
    wait::until("the restarted controller knows all Services", RESTART_MAX, || {
        for ((_, is_reached), reached) in stages.iter().zip(&mut reached) {
            if reached.is_none() && is_reached() {
                *reached = Some(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
        let missing: Vec<_> = stages.iter().zip(reached).filter(|(_, reached)| reached.is_none()).collect();
        ensure!(
            missing.is_empty(),
            "not there yet: {}",
            missing.iter().map(|((known, _), _)| known.what).collect::<Vec<_>>().join(", ")
        );
        Ok(Some(()))
    })?;
    for ((known, _), reached) in stages.iter().zip(reached) {
        findings.add(known, reached.unwrap_or(f64::INFINITY));
    }
    quiet(lab)?;
    findings.add(&budgets::RESTART_WRITES, metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")?);
    Ok(())
}

/// Starts the speakers among all the addresses.
fn speak(lab: &Lab, findings: &mut Findings) -> Result<()> {
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
    rest::wait_for(lab)?;
    rest::wait_for_owners(lab, SERVICES.into(), QUIET_MAX)?;
    let names: Vec<String> = nodes.iter().map(|node| speaker_name(node)).collect();
    memory::hold(lab, findings, &SPEAKER_10000, &names)
}
