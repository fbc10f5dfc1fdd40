//! A node stops as by `poweroff`, with the default `shutdownGracePeriod` of 0, and the node of the
//! active leader loses its power, while a client connects to a Service with a pod on each node.

use crate::evidence::{nodes_with_event, wait_replies};
use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::{CONTROL_PLANE, install, workers};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off::{self, PowerFailure};
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::{Lab, wait};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) const CONTROLLER_STATUS: &str =
    "kubectl -n ferrolb-system rollout status deployment/controller --timeout=120s";
/// Targets of the time from the failure until no connection is lost, in milliseconds. The failure
/// of a stopped node begins with the last reply of its kernel.
pub(crate) const FAILED_TARGET_MS: f64 = 2_000.0;
const STOPPED_TARGET_MS: f64 = 4_000.0;
/// Time for which the client connects after the failure: too short for Kubernetes to remove the
/// failed node's pod itself.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(20);
/// Maximum time until a node serves again after its start, on a busy machine.
const BACK_MAX: Duration = Duration::from_secs(240);
/// Time until the next failure: each speaker has probed the kubelet's port of each node again.
pub(crate) const PAUSE: Duration = Duration::from_secs(70);

#[test]
fn the_leaders_node_and_a_stopped_node_leave_the_endpoints_with_two_workers() {
    run("failures2", 2);
}

#[test]
fn the_leaders_node_and_a_stopped_node_leave_the_endpoints_with_three_workers() {
    run("failures3", 3);
}

fn run(name: &str, count: u8) {
    run_scenario_alone(&workers(name, count), |lab| {
        let server = install(lab)?;
        let leader =
            step("the leader runs on a worker, and a standby elsewhere", || leader_on_worker(lab))?;
        let mut others = lab.nodes().into_iter().filter(|it| it != CONTROL_PLANE && *it != leader);
        let stopped = others.next().context("the lab has another worker")?;
        step("a node stops, and leaves the endpoints", || {
            let failure = power_off::shut_down(lab, &stopped, server, PROBE_AFTER)?;
            check(lab, "stopped", &failure, STOPPED_TARGET_MS)
        })?;
        step("the node starts again", || start(lab, &stopped, server))?;
        step("the leader's node loses power, and leaves the endpoints", || {
            let leader = leader_on_worker(lab)?;
            let after = PROBE_AFTER;
            let (failure, ()) = power_off::power_off(lab, &leader, server, after, |_, _| Ok(()))?;
            check(lab, "powered off with the leader", &failure, FAILED_TARGET_MS)
        })
    });
}

/// Moves the leader to a worker, and returns that.
pub(crate) fn leader_on_worker(lab: &Lab) -> Result<String> {
    power_off::move_leader_from(lab, CONTROL_PLANE)?;
    lab.shell(CONTROLLER_STATUS)?;
    power_off::leader_machine(lab)?.context("a controller leads")
}

/// Checks that all connections are good in time, and that the Node has the Event.
pub(crate) fn check(lab: &Lab, event: &str, failure: &PowerFailure, target_ms: f64) -> Result<()> {
    let (machine, report, (good, later)) =
        (&failure.machine, &failure.report, failure.good_after_ms());
    print_measured(&format!(
        "{machine} of {} nodes {event}: {} of {} connections lost, all good again after {good:.0} \
         ms, {later} lost later, per second {:?}",
        lab.nodes().len(),
        report.lost,
        report.sent,
        failure.lost_per_second()
    ));
    let limit = target_ms * CHECK_FACTOR;
    ensure!(good < limit, "connections are lost after {limit} ms: {report:?}");
    let nodes = nodes_with_event(lab)?;
    ensure!(nodes.contains(machine), "{machine} has no Event NodeSilent, {nodes:?} have");
    Ok(())
}

fn start(lab: &Lab, machine: &str, server: SocketAddr) -> Result<()> {
    let start = wait::now();
    lab.power_on(machine)?;
    wait::until("all pods reply", BACK_MAX, || power_off::wait_served(lab, server).map(Some))?;
    print_measured(&format!(
        "{machine} serves {:.1} s after its start",
        start.elapsed().as_secs_f64()
    ));
    wait_replies(lab)?;
    wait::during(PAUSE.saturating_sub(start.elapsed()), || Ok(()))
}
