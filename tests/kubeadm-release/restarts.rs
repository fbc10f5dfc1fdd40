//! A kubelet starts a speaker again that was killed, that stopped by itself, or that its liveness
//! probe found stalled; and the leader's watches are interrupted during a rolling update of the
//! speakers. No pod is marked.

use crate::evidence::{check_unmarked, observe_unmarked, wait_replies};
use crate::scenario::{print_measured, run_scenario, step};
use crate::stops::{RESTART, STATUS, port_drop};
use crate::{CONTROL_PLANE, install, workers};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off;
use ferrolb_lab::topology::{node_index, pod_ranges};
use ferrolb_lab::{Lab, Signal, wait};
use std::time::Duration;

const SPEAKER: &str = "ferrolb-speaker";
/// Maximum time until a kubelet has started a speaker again, on a busy machine: three failed
/// liveness probes, the grace period, and the pause before the third start.
const RESTARTED_MAX: Duration = Duration::from_secs(180);
/// Time for which no pod may be marked after an event.
const OBSERVED: Duration = Duration::from_secs(30);
/// Time for which the leader does not reach the API server: less than its lease lasts.
const CUT: Duration = Duration::from_secs(6);
/// Maximum time until the API server replies after its restart, on a busy machine.
const SERVER_MAX: Duration = Duration::from_secs(120);

#[test]
fn no_pod_is_marked_if_a_speaker_or_the_watch_of_pods_restarts() {
    run_scenario(&workers("restarts", 2), |lab| {
        install(lab)?;
        for (name, signal) in [
            ("is killed", Signal::KILL),
            ("states its stop, and its kubelet starts it again", Signal::TERM),
            ("stalls, and its liveness probe kills it", Signal::STOP),
        ] {
            step(&format!("a speaker {name}: no pod is marked"), || restart(lab, name, signal))?;
        }
        step("the leader runs on a worker", || power_off::move_leader_from(lab, CONTROL_PLANE))?;
        step("the leader loses the API server during a rolling update: no pod is marked", || {
            update(lab, "leader cut off", cut_off_leader)
        })?;
        step("the API server restarts during a rolling update: no pod is marked", || {
            update(lab, "API server restarted", restart_server)
        })
    });
}

/// Sends a signal to the speaker of the last node, and checks that no pod is marked until its
/// kubelet has started it again.
fn restart(lab: &Lab, name: &str, signal: Signal) -> Result<()> {
    let node = lab.nodes().pop().context("the lab has nodes")?;
    let before = restarts(lab, &node)?;
    let start = wait::now();
    lab.signal_program(&node, SPEAKER, signal)?;
    wait::until("the kubelet starts the speaker again", RESTARTED_MAX, || {
        ensure!(restarts(lab, &node)? > before, "the speaker has not started again");
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "a speaker {name}: it runs after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    observe_unmarked(lab, &format!("a speaker {name}"), OBSERVED)?;
    wait_replies(lab)
}

/// Returns how often the speaker of a node has started again.
fn restarts(lab: &Lab, node: &str) -> Result<u32> {
    let path = "jsonpath={.items[0].status.containerStatuses[0].restartCount}";
    let on_node = format!("spec.nodeName={node}");
    let selector = "app.kubernetes.io/component=speaker";
    let pods =
        ["-n", "ferrolb-system", "get", "pods", "-l", selector, "--field-selector", &on_node];
    lab.kubectl(&[&pods[..], &["-o", path]].concat())?.parse().context("there is no count")
}

/// Updates the speakers while the watch of pods is interrupted, and no node reaches the kubelet's
/// port of another: only the watch tells the leader why a speaker stopped.
fn update(lab: &Lab, name: &str, interrupt: fn(&Lab, &[String]) -> Result<()>) -> Result<()> {
    let drops = lab.nodes().iter().map(|node| port_drop(node)).collect::<Result<Vec<_>>>()?;
    lab.set_drops(&drops)?;
    interrupt(lab, &drops)?;
    observe_unmarked(lab, name, OBSERVED)?;
    lab.shell(STATUS)?;
    lab.set_drops(&[])?;
    wait_replies(lab)
}

/// Drops the packets from the pods of the leader's node to the API server.
fn cut_off_leader(lab: &Lab, drops: &[String]) -> Result<()> {
    let leader = power_off::leader_machine(lab)?.context("a controller leads")?;
    let index = node_index(&leader).with_context(|| format!("{leader} is no node"))?;
    let [range, _] = pod_ranges(index);
    let cut = format!("ip saddr {range} tcp dport 6443 drop");
    lab.set_drops(&[drops, &[cut]].concat())?;
    lab.shell(RESTART)?;
    observe_unmarked(lab, "during the cut", CUT)?;
    lab.set_drops(drops)
}

fn restart_server(lab: &Lab, _: &[String]) -> Result<()> {
    lab.shell(RESTART)?;
    lab.signal_program(CONTROL_PLANE, "kube-apiserver", Signal::KILL)?;
    wait::until("the API server replies", SERVER_MAX, || check_unmarked(lab).map(Some))
}
