//! Faults on the node of the active leader, about which a standby decides: its kubelet stalls, or
//! starts the speaker again that was killed, that stopped by itself, or that its liveness probe
//! found stalled. The switch drops hellos, and the controllers' watches are interrupted when an
//! update of the speakers stops at its first node. No pod is marked.

use crate::evidence::{check_unmarked, observe_unmarked, wait_replies, wait_silent_speakers};
use crate::failures::{CONTROLLER_STATUS, leader_on_worker};
use crate::scenario::{print_measured, run_scenario, step};
use crate::stops::{BREAK, REPAIR, STATUS, filter_ports};
use crate::{CONTROL_PLANE, install, workers};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off;
use ferrolb_lab::cluster::kubeadm::services::KUBELET;
use ferrolb_lab::lab::faults::{datagram_drop, hello_drop};
use ferrolb_lab::{Lab, Signal, wait};
use std::time::Duration;

const SPEAKER: &str = "ferrolb-speaker";
/// Maximum time until a kubelet has started a speaker again, on a busy machine: three failed
/// liveness probes, the grace period, and the pause before the third start.
const RESTARTED_MAX: Duration = Duration::from_secs(180);
/// Time for which no pod may be marked after an event.
const OBSERVED: Duration = Duration::from_secs(30);
/// Maximum time until the API server replies after its restart, and until it has refused a watch,
/// on a busy machine.
const SERVER_MAX: Duration = Duration::from_secs(120);
/// Command after which the leader leads on if the API server restarts.
const LONG_LEASE: &str = "kubectl -n ferrolb-system set env deployment/controller \
     FERROLB_LEASE_DURATION=300s FERROLB_LEASE_RENEW_DEADLINE=290s";
const LOG: &str =
    "kubectl -n ferrolb-system logs -l app.kubernetes.io/component=controller --tail=-1";
const CONTROLLERS: usize = 2;

#[test]
fn no_pod_is_marked_if_a_speaker_or_the_watch_of_pods_restarts() {
    run_scenario(&workers("restarts", 2), |lab| {
        install(lab)?;
        lab.shell(&format!("{LONG_LEASE} && {CONTROLLER_STATUS}"))?;
        let leader = leader_on_worker(lab)?;
        step("the switch drops frames of the speakers: no pod is marked", || drop_frames(lab))?;
        step("the kubelet of the leader's node stalls: no pod is marked", || {
            lab.signal_program(&leader, KUBELET, Signal::STOP)?;
            observe_unmarked(lab, "kubelet stalled", OBSERVED)?;
            lab.signal_program(&leader, KUBELET, Signal::CONT)
        })?;
        for (name, signal) in [
            ("is killed", Signal::KILL),
            ("states its stop, and its kubelet starts it again", Signal::TERM),
            ("stalls, and its liveness probe kills it", Signal::STOP),
        ] {
            step(&format!("a speaker {name}: no pod is marked"), || {
                restart(lab, &leader, name, signal)
            })?;
        }
        step("the watches of pods are refused before an update: no pod is marked", || {
            refuse_pods(lab)
        })?;
        step("the API server restarts during an update: no pod is marked", || {
            lab.shell(BREAK)?;
            restart_server(lab)?;
            observe_stopped_update(lab, "API server restarted")?;
            repair(lab)
        })
    });
}

/// Drops the hellos of all speakers, and then also their datagrams.
fn drop_frames(lab: &Lab) -> Result<()> {
    lab.set_drops(&[hello_drop()])?;
    observe_unmarked(lab, "hellos dropped", OBSERVED)?;
    lab.set_drops(&[hello_drop(), datagram_drop()])?;
    wait_silent_speakers(lab)?;
    observe_unmarked(lab, "hellos and UDP dropped", OBSERVED)?;
    lab.set_drops(&[])?;
    wait_replies(lab)
}

/// Sends a signal to the speaker of a node, and checks that no pod is marked until its kubelet has
/// started it again.
fn restart(lab: &Lab, node: &str, name: &str, signal: Signal) -> Result<()> {
    let before = restarts(lab, node)?;
    let start = wait::now();
    lab.signal_program(node, SPEAKER, signal)?;
    wait::until("the kubelet starts the speaker again", RESTARTED_MAX, || {
        ensure!(restarts(lab, node)? > before, "the speaker has not started again");
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

/// Interrupts the watches of pods, and nothing else, of both controllers. Then their pods are those
/// before the update.
fn refuse_pods(lab: &Lab) -> Result<()> {
    let leader = power_off::leader_machine(lab)?.context("a controller leads")?;
    lab.shell(&set_verbs(r#"["list"]"#))?;
    // A refusal does not end a watch.
    restart_server(lab)?;
    wait::until("both watches of pods are refused", SERVER_MAX, || {
        let log = lab.shell(LOG)?;
        let is_refusal =
            |line: &&str| line.contains("watch rejected") && line.contains(r#""what":"Pods""#);
        let count = log.lines().filter(is_refusal).count();
        ensure!(count >= CONTROLLERS, "the logs have {count} refusals");
        Ok(Some(()))
    })?;
    lab.shell(BREAK)?;
    observe_stopped_update(lab, "watches of pods refused")?;
    let leads = power_off::leader_machine(lab)?;
    ensure!(leads.as_ref() == Some(&leader), "{leads:?} leads instead of {leader}");
    lab.shell(&set_verbs(r#"["list", "watch"]"#))?;
    observe_unmarked(lab, "watches of pods accepted", OBSERVED)?;
    repair(lab)
}

/// Returns the command that sets the permissions of the controllers for pods.
fn set_verbs(verbs: &str) -> String {
    format!(
        r#"kubectl -n ferrolb-system patch role controller --type json -p '[{{"op": "test", "path": "/rules/2/resources", "value": ["pods"]}}, {{"op": "replace", "path": "/rules/2/verbs", "value": {verbs}}}]'"#
    )
}

fn restart_server(lab: &Lab) -> Result<()> {
    lab.signal_program(CONTROL_PLANE, "kube-apiserver", Signal::KILL)?;
    wait::until("the API server replies", SERVER_MAX, || check_unmarked(lab).map(Some))
}

/// Waits until all other evidence of a failure holds where the update has stopped, and checks that
/// no pod is marked.
fn observe_stopped_update(lab: &Lab, name: &str) -> Result<()> {
    filter_ports(lab, &lab.nodes())?;
    observe_unmarked(lab, name, OBSERVED)
}

fn repair(lab: &Lab) -> Result<()> {
    lab.set_drops(&[])?;
    lab.shell(&format!("{REPAIR} && {STATUS}"))?;
    wait_replies(lab)
}
