//! Faults that look like a failed node, but are none: no pod of a running node is marked as not
//! Ready. The kubelet's port of a node in this lab is closed, so each node refuses connections to
//! it, like a node whose kubelet is stopped.

use crate::node_failure::wait_listened;
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step};
use crate::services::{self, WEB};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::{CONTROLLER, speaker_name};
use ferrolb_lab::lab::admin::metric;
use ferrolb_lab::lab::faults::{datagram_drop, hello_drop};
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

/// The node that seems to fail.
const NODE: &str = "node3";
/// The other nodes.
const OTHERS: [&str; 2] = ["node1", "node2"];
/// Time for which each fault lasts: several times as long as the detection of a failed node.
const FAULT_TIME: Duration = Duration::from_secs(4);
/// Number of times that the interface of the node goes down and up again, once a second.
const FLAPS: usize = 6;
/// Half of the period of these flaps.
const FLAP_TIME: Duration = Duration::from_millis(500);
/// Port of the API server, and maximum time of a request that must fail.
const API_PORT: u16 = 6443;
const API_TIMEOUT: Duration = Duration::from_millis(500);
/// Metric of the controller with the number of marked pods.
const MARKED_METRIC: &str = "ferrolb_controller_pods_marked_total";
/// Metric of the controller with the number of times that too many nodes were silent.
const IGNORED_METRIC: &str = "ferrolb_controller_node_failures_ignored_total";

#[test]
fn no_pod_of_a_running_node_is_marked() {
    run_scenario(&Options::named("falseevidence"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        services::apply_pool_and_pod(lab, NODE)?;
        for node in OTHERS {
            lab.pod(&format!("web{node}"), node, &WEB)?;
        }
        lab.apply_objects(&[services::service("web", json!({}))])?;
        step("a failed node is detected by UDP alone", || without_hellos(lab))?;
        wait_listened(lab)?;
        services::wait_announced(lab, "web", "Announced", "")?;
        step("each node is watched by the two others", || wait_all_watched(lab))?;
        speakers(lab)?;
        packet_filters(lab)?;
        step("the interface goes down and up once a second", || {
            unmarked(lab, "the interface flaps", || flap(lab))
        })?;
        step("a node that is cut off is marked, and its pod is restored", || cut_off(lab))?;
        step("two of three nodes are silent, which an event reports", || {
            let before = metric(lab, CONTROL_PLANE, IGNORED_METRIC)?;
            unmarked(lab, "two of three nodes are cut off", || {
                OTHERS.iter().try_for_each(|node| lab.set_link(node, false))?;
                wait::until("an event reports the silent nodes", STATE_MAX, || {
                    let ignored = metric(lab, CONTROL_PLANE, IGNORED_METRIC)?;
                    Ok((ignored > before).then_some(()))
                })?;
                OTHERS.iter().try_for_each(|node| lab.set_link(node, true))?;
                // Their connections to the API server recover.
                wait::during(FAULT_TIME, || Ok(()))
            })?;
            wait_states(lab, "Replies")
        })
    });
}

/// Starts speakers that have never received hellos of each other, as if they had no common segment,
/// and cuts another node off: the pods of one node are marked at most once a minute.
fn without_hellos(lab: &Lab) -> Result<()> {
    let [_, node] = OTHERS;
    let pod = format!("web{node}");
    lab.set_drops(&[hello_drop()])?;
    lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
    wait_all_watched(lab)?;
    let marked = cut_until_marked(lab, node, &pod)?;
    print_measured(&format!("without hellos: pod marked after {} ms", marked.as_millis()));
    lab.set_link(node, true)?;
    lab.set_drops(&[])?;
    // As its kubelet would.
    lab.set_ready(&pod, true)
}

/// Cuts a node off. Returns the time until its pod is marked.
fn cut_until_marked(lab: &Lab, node: &str, pod: &str) -> Result<Duration> {
    let start = wait::now();
    lab.set_link(node, false)?;
    wait::until("the pod is marked", STATE_MAX, || {
        Ok((ready_reason(lab, pod)? == "False NodeSilent").then_some(()))
    })?;
    Ok(start.elapsed())
}

/// The speaker of the node is killed, stopped and frozen.
fn speakers(lab: &Lab) -> Result<()> {
    let speaker = speaker_name(NODE);
    step("the speaker is killed", || {
        unmarked(lab, "the speaker is killed", || {
            lab.stop(&speaker, Signal::KILL)?;
            wait_states(lab, "SpeakerSilent")?;
            wait::during(FAULT_TIME, || Ok(()))?;
            lab.restart(&speaker)
        })?;
        wait_states(lab, "Replies")
    })?;
    step("the speaker is frozen", || {
        unmarked(lab, "the speaker is frozen", || {
            lab.signal(&speaker, Signal::STOP)?;
            wait_states(lab, "SpeakerSilent")?;
            wait::during(FAULT_TIME, || Ok(()))?;
            lab.signal(&speaker, Signal::CONT)
        })?;
        wait_states(lab, "Replies")
    })?;
    step("the speaker stops, as in a reboot with graceful shutdown, and the node is off", || {
        unmarked(lab, "the speaker stops, then the node is off", || {
            lab.stop(&speaker, Signal::TERM)?;
            wait_states(lab, "Leaving")?;
            lab.set_link(NODE, false)?;
            wait::during(FAULT_TIME, || Ok(()))?;
            lab.set_link(NODE, true)?;
            lab.restart(&speaker)
        })?;
        wait_states(lab, "Replies")
    })
}

/// The switch drops hellos, and UDP too; half of the nodes lose the API server.
fn packet_filters(lab: &Lab) -> Result<()> {
    let cases = [
        ("hellos", vec![hello_drop()], "Replies"),
        ("hellos and UDP", vec![hello_drop(), datagram_drop()], "SpeakerSilent"),
    ];
    for (name, drops, state) in cases {
        step(&format!("the switch drops {name}"), || {
            unmarked(lab, &format!("{name} dropped"), || {
                lab.set_drops(&drops)?;
                wait::during(FAULT_TIME, || Ok(()))?;
                wait_states(lab, state)?;
                lab.set_drops(&[])
            })?;
            wait_states(lab, "Replies")
        })?;
    }
    step("half of the nodes lose the API server", || {
        unmarked(lab, "API server cut off from two of three nodes", || {
            let api = lab.address(CONTROL_PLANE)?;
            let drop = |node: &str| {
                let own = lab.address(node)?;
                Ok::<_, anyhow::Error>(format!("ip saddr {own} ip daddr {api} drop"))
            };
            lab.set_drops(&[drop(NODE)?, drop(OTHERS[0])?])?;
            let server = SocketAddr::new(api, API_PORT);
            let reply = lab.http_get_within(NODE, server, "/livez", API_TIMEOUT);
            ensure!(reply.is_err(), "{NODE} still reaches the API server");
            wait::during(FAULT_TIME, || Ok(()))?;
            lab.set_drops(&[])
        })
    })
}

fn flap(lab: &Lab) -> Result<()> {
    for _ in 0..FLAPS {
        lab.set_link(NODE, false)?;
        wait::during(FLAP_TIME, || Ok(()))?;
        lab.set_link(NODE, true)?;
        wait::during(FLAP_TIME, || Ok(()))?;
    }
    wait_states(lab, "Replies")
}

/// A node without a network is indistinguishable from a failed one, and useless for its clients.
fn cut_off(lab: &Lab) -> Result<()> {
    let marked = cut_until_marked(lab, NODE, "web")?;
    services::wait_announced(lab, "web", "Announced", &format!("{NODE} failed"))?;
    lab.set_link(NODE, true)?;
    let back = wait::now();
    // No kubelet repairs the pod in this lab, so the controller does.
    wait::until("the controller restores the pod", STATE_MAX * 2, || {
        Ok((ready_reason(lab, "web")?.starts_with("True")).then_some(()))
    })?;
    print_measured(&format!(
        "node cut off: pod marked after {} ms, restored {} ms after the return",
        marked.as_millis(),
        back.elapsed().as_millis()
    ));
    Ok(())
}

/// Runs `fault`, and checks that it marks no pod.
fn unmarked(lab: &Lab, name: &str, fault: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = metric(lab, CONTROL_PLANE, MARKED_METRIC)?;
    fault().with_context(|| name.to_owned())?;
    let marked = metric(lab, CONTROL_PLANE, MARKED_METRIC)? - before;
    print_measured(&format!("{name}: {marked} pods marked"));
    let path = "jsonpath={.items[*].status.conditions[*].reason}";
    let reasons = lab.kubectl(&["get", "pods", "-o", path])?;
    ensure!(!reasons.contains("NodeSilent"), "{name}: a pod is marked");
    ensure!(
        marked == 0.0,
        "{name}: {marked} pods of running nodes are marked: {}",
        lab.logs(CONTROLLER)
    );
    Ok(())
}

/// Returns status and reason of the condition `Ready` of a pod.
fn ready_reason(lab: &Lab, pod: &str) -> Result<String> {
    let path = r#"jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.reason}{end}"#;
    Ok(lab.kubectl(&["get", "pod", pod, "-o", path])?.trim().to_owned())
}

/// Waits until each node reports that both others reply.
fn wait_all_watched(lab: &Lab) -> Result<()> {
    wait::until("each node watches both others", STATE_MAX, || {
        for node in lab.nodes() {
            let states = watched_states(lab, &node, "*")?;
            ensure!(states == "Replies Replies", "{node} reports {states:?}");
        }
        Ok(Some(()))
    })
}

/// Waits until both other nodes report this state of the node.
fn wait_states(lab: &Lab, state: &str) -> Result<()> {
    wait::until(&format!("{NODE} is {state} for both others"), STATE_MAX, || {
        for node in OTHERS {
            let found = watched_states(lab, node, &format!(r#"?(@.node=="{NODE}")"#))?;
            ensure!(found == state, "{node} reports {found:?}");
        }
        Ok(Some(()))
    })
}

/// Returns the states of those watched nodes of a node that `selected` selects.
fn watched_states(lab: &Lab, node: &str, selected: &str) -> Result<String> {
    let path = format!("jsonpath={{.status.watchedNodes[{selected}].state}}");
    lab.kubectl(&["-n", "ferrolb-system", "get", "speakerstatus", node, "-o", &path])
}
