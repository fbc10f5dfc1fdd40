//! Outage of the API server. Components that start without one wait, and log the reason once. Later
//! the speakers continue to reply, and a failed node is still replaced.

use crate::metrics::{metric, readyz};
use crate::node_failure::{PROBE_LENGTH, probed, serve_elsewhere, within_target};
use crate::scenario::{run_scenario, step};
use crate::segment;
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::api;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::time::Duration;

/// The log line of each component when the API server is unreachable, written once per outage.
const AWAY: &str = "no response from the API server";
/// Number of failed requests after which a missing log line is a result.
const FAILURES: f64 = 10.0;
/// Maximum time until a component works again: its longest backoff is 20 s.
const BACK_MAX: Duration = Duration::from_secs(30);
/// Publisher of the endpoints. It is stopped together with the API server, because its own longest
/// backoff is 30 s.
const PUBLISHER: &str = "kube-controller-manager";

#[test]
fn without_an_api_server_components_wait_and_speakers_continue_to_reply() {
    run_scenario(&Options::named("noapi"), |lab| {
        lab.install_ferrolb()?;
        let programs = components(lab);
        lab.stop("kube-apiserver", Signal::KILL)?;
        lab.stop(PUBLISHER, Signal::KILL)?;
        step("started without an API server, all wait, are not ready, and say why", || {
            lab.start_controller(&[])?;
            lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
            programs.iter().try_for_each(|(_, host)| wait_not_ready(lab, host))
        })?;
        step("once each, however often they try", || logged_outage(lab, &programs, 1))?;
        step("and become ready when it appears", || {
            lab.restart("kube-apiserver")?;
            wait_ready(lab, &programs)?;
            lab.restart(PUBLISHER)
        })?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        step(
            "the API server stops: the owner goes on answering, and all say so once more",
            || {
                let failures = metric(lab, &owner, "ferrolb_api_failures_total")?;
                lab.stop("kube-apiserver", Signal::KILL)?;
                wait::until("some tries", BACK_MAX, || {
                    let now = metric(lab, &owner, "ferrolb_api_failures_total")?;
                    Ok((now >= failures + FAILURES).then_some(()))
                })?;
                let now = segment::owner(lab, address)?;
                ensure!(now == owner, "the address moved from {owner} to {now}");
                logged_outage(lab, &programs, 2)
            },
        )?;
        step("its owner dies: another node answers", || {
            let report = probed(lab, address, "owner off, no API server", PROBE_LENGTH, || {
                lab.power_off(&owner)
            })?;
            within_target(&report)
        })?;
        let second = segment::owner(lab, address)?;
        ensure!(second != owner, "{owner} is powered off and still owns the address");
        step("the API server is back, and so are all that live; the owner stays", || {
            lab.restart("kube-apiserver")?;
            let living: Vec<_> = programs.into_iter().filter(|(_, host)| *host != owner).collect();
            wait_ready(lab, &living)?;
            let now = segment::owner(lab, address)?;
            ensure!(now == second, "the address moved from {second} to {now}");
            Ok(())
        })
    });
}

/// Returns FerroLB's components in a lab: process and host.
fn components(lab: &Lab) -> Vec<(String, String)> {
    let mut programs = vec![("controller".to_owned(), CONTROL_PLANE.to_owned())];
    programs.extend(lab.nodes().into_iter().map(|node| (format!("speaker-{node}"), node)));
    programs
}

/// Waits for many failed attempts, then for a `/readyz` that is not ready and names the reason.
fn wait_not_ready(lab: &Lab, host: &str) -> Result<()> {
    wait::until(&format!("the program on {host} tries"), BACK_MAX, || {
        Ok((metric(lab, host, "ferrolb_api_failures_total")? >= FAILURES).then_some(()))
    })?;
    wait::until(&format!("the program on {host} says what it waits for"), BACK_MAX, || {
        let (status, words) = readyz(lab, host)?;
        ensure!(
            status == 503 && words.contains("waiting for"),
            "/readyz returns {status}: {words:?}"
        );
        Ok(Some(()))
    })
}

/// Checks that each component runs, and that it has logged the outage exactly `times` times.
fn logged_outage(lab: &Lab, programs: &[(String, String)], times: usize) -> Result<()> {
    for (program, _) in programs {
        lab.pid(program)?;
        let count = || lab.logs(program).lines().filter(|line| line.contains(AWAY)).count();
        wait::until("the absence is said", BACK_MAX, || Ok((count() >= times).then_some(())))?;
        ensure!(
            count() == times,
            "{program} logged the outage of the API server {} times, not {times}",
            count()
        );
    }
    Ok(())
}

/// Waits until the API server and all components are ready.
fn wait_ready(lab: &Lab, programs: &[(String, String)]) -> Result<()> {
    lab.api(async |client| api::wait_ready(&client).await)?;
    programs.iter().try_for_each(|(program, host)| {
        wait::until(&format!("{program} is ready"), BACK_MAX, || {
            let (status, words) = readyz(lab, host)?;
            ensure!(status == 200, "{status}: {words}");
            Ok(Some(()))
        })
    })
}
