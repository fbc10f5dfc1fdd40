//! Outage of the API server. Components that start without an API server wait for it, and log the
//! outage once. During a later outage the speakers continue to reply, and another node still
//! announces the address of a failed node.

use crate::metrics::{metric, readyz};
use crate::node_failure::{PROBE_TIME, check_longest_gap, probe_during, serve_from_other_node};
use crate::scenario::{run_scenario, step};
use crate::segment;
use anyhow::{Result, ensure};
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::time::Duration;

/// The log line of each component when the API server is unreachable, written once per outage.
const OUTAGE_LOGGED: &str = "no response from the API server";
/// Number of failed requests after which a component must have logged the outage.
const FAILURES_MIN: f64 = 10.0;
/// Maximum time until a component is ready again: its longest backoff is 20 s.
const READY_MAX: Duration = Duration::from_secs(30);
/// Process that publishes the endpoints. The test stops it together with the API server, because
/// its longest backoff is 30 s.
const ENDPOINT_PUBLISHER: &str = "kube-controller-manager";

#[test]
fn without_an_api_server_speakers_continue_to_reply() {
    run_scenario(&Options::named("noapi"), |lab| {
        lab.install_ferrolb()?;
        let programs = components(lab);
        lab.stop("kube-apiserver", Signal::KILL)?;
        lab.stop(ENDPOINT_PUBLISHER, Signal::KILL)?;
        step("without an API server, all components wait and /readyz names the reason", || {
            lab.start_controller(&[])?;
            lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
            programs.iter().try_for_each(|(_, host)| wait_not_ready(lab, host))
        })?;
        step("each component logs the outage once", || logged_outage(lab, &programs, 1))?;
        step("all components become ready when the API server starts", || {
            lab.restart("kube-apiserver")?;
            wait_ready(lab, &programs)?;
            lab.restart(ENDPOINT_PUBLISHER)
        })?;
        let (address, owner) = step("a Service is served", || serve_from_other_node(lab))?;
        step(
            "the API server stops: the owner still replies, and each component logs the outage once",
            || {
                let failures = metric(lab, &owner, "ferrolb_api_failures_total")?;
                lab.stop("kube-apiserver", Signal::KILL)?;
                wait::until("the owner's requests fail", READY_MAX, || {
                    let now = metric(lab, &owner, "ferrolb_api_failures_total")?;
                    Ok((now >= failures + FAILURES_MIN).then_some(()))
                })?;
                let now = segment::owner(lab, address)?;
                ensure!(now == owner, "the address moved from {owner} to {now}");
                logged_outage(lab, &programs, 2)
            },
        )?;
        step("the owner loses power: another node takes over", || {
            let report =
                probe_during(lab, address, "owner off, no API server", PROBE_TIME, || {
                    lab.power_off(&owner)
                })?;
            check_longest_gap(&report)
        })?;
        let second = segment::owner(lab, address)?;
        ensure!(second != owner, "{owner} is powered off and still owns the address");
        step("the API server returns: running components become ready, and the owner stays", || {
            lab.restart("kube-apiserver")?;
            let running: Vec<_> = programs.into_iter().filter(|(_, host)| *host != owner).collect();
            wait_ready(lab, &running)?;
            let now = segment::owner(lab, address)?;
            ensure!(now == second, "the address moved from {second} to {now}");
            Ok(())
        })
    });
}

/// Returns the process name and the host of each FerroLB component in the lab.
fn components(lab: &Lab) -> Vec<(String, String)> {
    let mut programs = vec![("controller".to_owned(), CONTROL_PLANE.to_owned())];
    programs.extend(lab.nodes().into_iter().map(|node| (format!("speaker-{node}"), node)));
    programs
}

/// Waits until requests of the component on a host have failed, and its `/readyz` reports the
/// reason.
fn wait_not_ready(lab: &Lab, host: &str) -> Result<()> {
    wait::until(&format!("requests of the component on {host} fail"), READY_MAX, || {
        Ok((metric(lab, host, "ferrolb_api_failures_total")? >= FAILURES_MIN).then_some(()))
    })?;
    wait::until(&format!("/readyz on {host} names the reason"), READY_MAX, || {
        let (status, body) = readyz(lab, host)?;
        ensure!(
            status == 503 && body.contains("waiting for"),
            "/readyz returns {status}: {body:?}"
        );
        Ok(Some(()))
    })
}

/// Checks that each component runs and has logged an outage of the API server exactly `times`
/// times.
fn logged_outage(lab: &Lab, programs: &[(String, String)], times: usize) -> Result<()> {
    for (program, _) in programs {
        lab.pid(program)?;
        let count =
            || lab.logs(program).lines().filter(|line| line.contains(OUTAGE_LOGGED)).count();
        wait::until("the component logs the outage", READY_MAX, || {
            Ok((count() >= times).then_some(()))
        })?;
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
    lab.wait_api_ready()?;
    programs.iter().try_for_each(|(program, host)| {
        wait::until(&format!("{program} is ready"), READY_MAX, || {
            let (status, body) = readyz(lab, host)?;
            ensure!(status == 200, "/readyz returns {status}: {body}");
            Ok(Some(()))
        })
    })
}
