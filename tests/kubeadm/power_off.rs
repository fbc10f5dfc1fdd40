//! Node failure in a cluster with real kubelets: memory of FerroLB's containers, evidence that is
//! wrong, and a power failure of the owner's machine. Another node soon announces the address, and
//! the pod of the failed machine soon leaves the endpoints.

use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::{memory, three_nodes};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off::{self, PowerFailure};
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::{POWER_OFF_CLUSTER_OWNER, POWER_OFF_GAP};
use ferrolb_lab::cluster::kubeadm::services::KUBELET;
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// Time for which the client connects after the failure: long enough for the failover and the
/// endpoints, but too short for Kubernetes to remove the failed node's pod itself.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(12);
/// Time for which a fault lasts that must not count as a node failure.
const FAULT_TIME: Duration = Duration::from_secs(5);
/// Maximum time until a kubelet sets a pod Ready that is marked wrongly. It synchronizes every 10
/// s.
const KUBELET_SYNC_MAX: Duration = Duration::from_secs(15);
/// Interval and time of the client's connections while a pod is marked wrongly.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

#[test]
fn a_failed_machine_leaves_the_endpoints_and_a_living_one_does_not() {
    run_scenario_alone(&three_nodes("poweroff"), |lab| {
        let server = step("FerroLB is deployed, and a Service has a pod on each machine", || {
            lab.deploy_ferrolb()?;
            power_off::create_service(lab)
        })?;
        step("the memory of FerroLB's containers is within the targets", || memory::check(lab))?;
        step("a kubelet sets a pod Ready again that is marked wrongly", || {
            mark_wrongly(lab, server)
        })?;
        step("a kubelet stops on a running machine: no pod is marked", || stop_kubelet(lab))?;
        step("the leading controller is cut off: another one marks the pods there", || {
            cut_off_leader(lab, server)
        })?;
        step(
            "the owner's machine loses power: another one owns the address, and serves alone",
            || {
                let owner = lab.owner_of(server.ip())?.context("a machine owns the address")?;
                power_off::move_leader_from(lab, &owner)?;
                let after = PROBE_AFTER_FAILURE;
                let (failure, ()) = power_off::power_off_owner(lab, server, after, |_, _| Ok(()))?;
                check(lab, server, &failure)
            },
        )
    });
}

fn check(lab: &Lab, server: SocketAddr, failure: &PowerFailure) -> Result<()> {
    let (report, (good_after, later)) = (&failure.report, failure.good_after_ms());
    let (gap, lost, sent) = (report.longest_gap_ms, report.lost, report.sent);
    print_measured(&format!(
        "{} powered off: longest gap {gap:.0} ms, {lost} of {sent} connections lost, all good \
         again after {good_after:.0} ms, {later} lost later",
        failure.machine
    ));
    let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR;
    ensure!(gap < limit, "the longest gap is above {limit} ms: {report:?}");
    let limit = POWER_OFF_CLUSTER_OWNER[1].target.unwrap_or_default() * CHECK_FACTOR;
    ensure!(good_after < limit, "connections are lost after {limit} ms: {report:?}");
    let now = lab.owner_of(server.ip())?;
    ensure!(now.as_ref().is_some_and(|now| *now != failure.machine), "{now:?} owns the address");
    let events = lab.kubectl(&["get", "events", "--field-selector", "reason=NodeSilent"])?;
    ensure!(events.contains(&failure.machine), "the Node has no event: {events}");
    Ok(())
}

/// Returns the name of the Service's pod on a machine.
fn pod_on(lab: &Lab, machine: &str) -> Result<String> {
    let selector = format!("spec.nodeName={machine}");
    let arguments = ["get", "pods", "-l", "app=power", "--field-selector", &selector, "-o", "name"];
    Ok(lab.kubectl(&arguments)?.trim().to_owned())
}

/// Returns the reasons and states of the condition `Ready` of the Service's pods.
fn ready_conditions(lab: &Lab) -> Result<String> {
    let path = r#"jsonpath={range .items[*]}{.spec.nodeName}{range .status.conditions[?(@.type=="Ready")]} {.status} {.reason}{"\n"}{end}{end}"#;
    lab.kubectl(&["get", "pods", "-l", "app=power", "-o", path])
}

/// Marks the pod of a running machine, as the controller does, while a client connects.
fn mark_wrongly(lab: &Lab, server: SocketAddr) -> Result<()> {
    let machine = lab.nodes().pop().context("the lab has machines")?;
    let pod = pod_on(lab, &machine)?;
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeSilent"}]}});
    let probing = lab.start_probe(server, KUBELET_SYNC_MAX, PROBE_INTERVAL);
    let start = wait::now();
    lab.kubectl(&["patch", &pod, "--subresource", "status", "-p", &patch.to_string()])?;
    wait::until("the kubelet sets the pod Ready", KUBELET_SYNC_MAX, || {
        Ok((!ready_conditions(lab)?.contains("False")).then_some(()))
    })?;
    let took = start.elapsed();
    let report = probing.finish()?;
    print_measured(&format!(
        "pod marked wrongly: Ready again after {:.1} s by its kubelet, {} of {} connections lost",
        took.as_secs_f64(),
        report.lost,
        report.sent
    ));
    ensure!(report.lost == 0, "connections are lost: {report:?}");
    Ok(())
}

/// Stops the kubelet of a machine, which starts again by itself after the fault.
fn stop_kubelet(lab: &Lab) -> Result<()> {
    let machine = lab.nodes().pop().context("the lab has machines")?;
    lab.signal_program(&machine, KUBELET, Signal::STOP)?;
    let observed = wait::during(FAULT_TIME, || check_unmarked(lab));
    lab.signal_program(&machine, KUBELET, Signal::CONT)?;
    observed?;
    lab.signal_program(&machine, KUBELET, Signal::KILL)?;
    wait::during(FAULT_TIME, || check_unmarked(lab))
}

fn check_unmarked(lab: &Lab) -> Result<()> {
    let conditions = ready_conditions(lab)?;
    ensure!(!conditions.contains("NodeSilent"), "a pod is marked: {conditions}");
    Ok(())
}

/// Cuts off the machine of the leading controller for less time than its lease lasts. Another
/// replica marks the pod there, and the kubelet sets it Ready. When the leader reaches the API
/// server again, it first reads that its own machine was silent, and marks nothing.
fn cut_off_leader(lab: &Lab, server: SocketAddr) -> Result<()> {
    let control_plane = lab.nodes().into_iter().next().context("the lab has machines")?;
    power_off::move_leader_from(lab, &control_plane)?;
    let machine = power_off::leader_machine(lab)?.context("a controller leads")?;
    let start = wait::now();
    lab.set_link(&machine, false)?;
    let marked = wait::until("another controller marks the pod", FAULT_TIME, || {
        let conditions = ready_conditions(lab)?;
        let mut marked = conditions.lines().filter(|line| line.ends_with("NodeSilent"));
        Ok(marked.next().map(|line| line.starts_with(&machine) && marked.next().is_none()))
    });
    let after = start.elapsed();
    lab.set_link(&machine, true)?;
    ensure!(marked?, "another pod is marked: {}", ready_conditions(lab)?);
    print_measured(&format!("leader cut off: marked after {:.1} s", after.as_secs_f64()));
    wait::until("the kubelet sets the pod Ready", KUBELET_SYNC_MAX, || {
        Ok(check_unmarked(lab).is_ok().then_some(()))
    })?;
    wait::during(FAULT_TIME, || check_unmarked(lab))?;
    power_off::wait_served(lab, server)
}
