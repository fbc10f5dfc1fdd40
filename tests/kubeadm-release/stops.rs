//! The speakers' DaemonSet is updated, deleted, and taken off one node by its node selector: no pod
//! is marked, also if kubelets restart, or no node reaches their ports, so that all other evidence
//! of a failure holds. Then the real failure of another node still counts.

use crate::evidence::{
    nodes_with_event, observe_unmarked, wait_leaving, wait_replies, wait_stopped,
};
use crate::failures::{self, FAILED_TARGET_MS, PROBE_AFTER};
use crate::scenario::{run_scenario, step};
use crate::{CONTROL_PLANE, install, workers};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off;
use ferrolb_lab::cluster::kubeadm::services::KUBELET;
use ferrolb_lab::topology::Host;
use ferrolb_lab::{Lab, Signal};
use std::net::SocketAddr;
use std::time::Duration;

/// Time for which no pod may be marked after each stop.
const OBSERVED: Duration = Duration::from_secs(60);
/// The same after the last stop of a lab. Events outlive it, so the time counts for each earlier
/// stop, too.
const OBSERVED_LAST: Duration = Duration::from_secs(600);
const RESTART: &str = "kubectl -n ferrolb-system rollout restart daemonset/speaker";
/// Commands of an update that stops at its first node, because no speaker starts, and of the next
/// one.
pub(crate) const BREAK: &str =
    "kubectl -n ferrolb-system set env daemonset/speaker FERROLB_CHALLENGE_PORT=none";
pub(crate) const REPAIR: &str =
    "kubectl -n ferrolb-system set env daemonset/speaker FERROLB_CHALLENGE_PORT-";
const DELETE: &str = "kubectl -n ferrolb-system delete daemonset speaker";
pub(crate) const STATUS: &str =
    "kubectl -n ferrolb-system rollout status daemonset/speaker --timeout=180s";
/// Command after which the control plane may announce, as the last node with a speaker.
pub(crate) const INCLUDE: &str =
    "kubectl label nodes node1 node.kubernetes.io/exclude-from-external-load-balancers-";
/// Commands that give the DaemonSet a node selector, and all nodes its label.
const SELECTOR: &str = r#"kubectl -n ferrolb-system patch daemonset speaker -p '{"spec":{"template":{"spec":{"nodeSelector":{"example.com/speaker":"run"}}}}}'"#;
const SELECT_ALL: &str = "kubectl label nodes --all --overwrite example.com/speaker=run";

/// A fault that begins with a stop, on each node that it concerns.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    KubeletRestarts,
    /// No other node reaches the kubelet's port. The filter remains after [`check_stop`].
    PortFiltered,
}

#[test]
fn no_pod_is_marked_if_speakers_are_updated_with_two_workers() {
    run_updated("updated2", 2);
}

#[test]
fn no_pod_is_marked_if_speakers_are_updated_with_three_workers() {
    run_updated("updated3", 3);
}

fn run_updated(name: &str, count: u8) {
    run_scenario(&workers(name, count), |lab| {
        install(lab)?;
        let nodes = lab.nodes();
        for fault in [Fault::None, Fault::KubeletRestarts] {
            check_stop(lab, ("updated", RESTART), &nodes, fault)?;
            lab.shell(STATUS)?;
        }
        check_stop(lab, ("updated without success", BREAK), &nodes, Fault::PortFiltered)?;
        step("the next update of all speakers succeeds: no pod is marked", || {
            lab.shell(&format!("{REPAIR} && {RESTART}"))?;
            observe_unmarked(lab, "next update", OBSERVED_LAST)?;
            lab.shell(STATUS).map(drop)
        })
    });
}

#[test]
fn no_pod_is_marked_if_speakers_are_deleted_with_two_workers() {
    run_deleted("deleted2", 2);
}

#[test]
fn no_pod_is_marked_if_speakers_are_deleted_with_three_workers() {
    run_deleted("deleted3", 3);
}

/// Deletes the speakers. The last time, all kubelets but one stand still, so that the speakers of
/// their nodes run on, and report the stop of the other speaker.
fn run_deleted(name: &str, count: u8) {
    run_scenario(&workers(name, count), |lab| {
        install(lab)?;
        let nodes = lab.nodes();
        for fault in [Fault::None, Fault::KubeletRestarts] {
            check_stop(lab, ("deleted", DELETE), &nodes, fault)?;
            lab.deploy_ferrolb()?;
        }
        wait_replies(lab)?;
        let (_, others) = nodes.split_last().context("the lab has nodes")?;
        let signal_others =
            |signal| others.iter().try_for_each(|node| lab.signal_program(node, KUBELET, signal));
        signal_others(Signal::STOP)?;
        check_stop(lab, ("deleted one by one", DELETE), &nodes, Fault::PortFiltered)?;
        step("the other speakers end, too: no pod is marked", || {
            signal_others(Signal::CONT)?;
            observe_unmarked(lab, "the other speakers end", OBSERVED_LAST)
        })
    });
}

#[test]
fn only_a_failed_node_is_marked_beside_one_of_two_workers_without_a_speaker() {
    run_unselected("unselected2", 2);
}

#[test]
fn only_a_failed_node_is_marked_beside_one_of_three_workers_without_a_speaker() {
    run_unselected("unselected3", 3);
}

fn run_unselected(name: &str, count: u8) {
    run_scenario(&workers(name, count), |lab| {
        let server = install(lab)?;
        lab.shell(&format!("{INCLUDE} && {SELECT_ALL} && {SELECTOR} && {STATUS}"))?;
        let node = lab.nodes().pop().context("the lab has nodes")?;
        let (unselect, nodes) = (
            format!("kubectl label nodes {node} --overwrite example.com/speaker=none"),
            [node.clone()],
        );
        for fault in [Fault::None, Fault::KubeletRestarts, Fault::PortFiltered] {
            lab.shell(&format!("{SELECT_ALL} && {STATUS}"))?;
            check_stop(lab, ("not selected", &unselect), &nodes, fault)?;
        }
        step("the node remains without a speaker: no pod is marked", || {
            observe_unmarked(lab, "no speaker on a node", OBSERVED_LAST)
        })?;
        step("another node loses power, and leaves the endpoints", || {
            fail_other(lab, server, &node)
        })
    });
}

/// Stops the speakers of these nodes by a command, with a fault, and checks that no pod is marked.
fn check_stop(
    lab: &Lab,
    (name, command): (&str, &str),
    nodes: &[String],
    fault: Fault,
) -> Result<()> {
    let name = format!("speakers {name}, {fault:?}");
    step(&format!("{name}: no pod is marked"), || {
        wait_replies(lab)?;
        lab.shell(command)?;
        match fault {
            Fault::None => {}
            Fault::KubeletRestarts => {
                nodes.iter().try_for_each(|node| lab.signal_program(node, KUBELET, Signal::KILL))?
            }
            Fault::PortFiltered => filter_ports(lab, nodes)?,
        }
        observe_unmarked(lab, &name, OBSERVED)
    })
}

/// After a stop, prevents that other nodes reach the kubelets' ports of these nodes, and waits
/// until all other evidence of a failure holds. A speaker counts the port only if it was open
/// before.
pub(crate) fn filter_ports(lab: &Lab, nodes: &[String]) -> Result<()> {
    wait_leaving(lab)?;
    lab.set_drops(&nodes.iter().map(|node| port_drop(node)).collect::<Result<Vec<_>>>()?)?;
    wait_stopped(lab)
}

fn port_drop(node: &str) -> Result<String> {
    let host = Host::named(node).with_context(|| format!("{node} is no node"))?;
    Ok(format!("ether daddr {} tcp dport 10250 drop", host.mac()))
}

/// Powers off a worker that runs neither the leader nor the stopped speaker.
fn fail_other(lab: &Lab, server: SocketAddr, stopped: &str) -> Result<()> {
    let mut workers = lab.nodes().into_iter().filter(|it| it != CONTROL_PLANE && it != stopped);
    let machine = workers.next().context("the lab has another worker")?;
    power_off::move_leader_from(lab, &machine)?;
    let (failure, ()) = power_off::power_off(lab, &machine, server, PROBE_AFTER, |_, _| Ok(()))?;
    failures::check(lab, "powered off", &failure, FAILED_TARGET_MS)?;
    let nodes = nodes_with_event(lab)?;
    ensure!(nodes == [machine], "{nodes:?} have the Event NodeSilent");
    Ok(())
}
