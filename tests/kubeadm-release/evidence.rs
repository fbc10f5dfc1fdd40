//! Reports of the speakers about other nodes, and the marks that result: Events of Nodes, and
//! conditions of pods.

use crate::scenario::print_measured;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::Value;
use std::time::Duration;

/// Reason of an Event, and of a condition of a marked pod.
const REASON: &str = "NodeSilent";
/// Number of speakers whose reports about a node are enough.
const REPORTS_MIN: usize = 2;
/// Maximum time until the speakers report a state, on a busy machine.
const STATE_MAX: Duration = Duration::from_secs(180);
/// Interval of the checks that no pod is marked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const SPEAKER_STATUSES: &str = "/apis/ferrolb.io/v1beta1/namespaces/ferrolb-system/speakerstatuses";

/// Waits until the speakers of all nodes receive replies of all others.
pub(crate) fn wait_replies(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes().len();
    wait::until("all speakers reply to all others", STATE_MAX, || {
        let watched = watched(lab)?;
        let replies = watched.iter().filter(|entry| entry["state"] == "Replies").count();
        ensure!(replies == nodes * (nodes - 1), "the speakers report {watched:?}");
        Ok(Some(()))
    })
}

/// Waits until two speakers report that the speaker of a node does not reply, although its kubelet
/// does.
pub(crate) fn wait_silent_speakers(lab: &Lab) -> Result<()> {
    wait_reported(lab, "two speakers report a silent one", |entry| {
        entry["state"] == "SpeakerSilent"
    })
}

/// Waits until two speakers report that the speaker of a node has stated its stop.
pub(crate) fn wait_leaving(lab: &Lab) -> Result<()> {
    wait_reported(lab, "two speakers report a stop", |entry| entry["state"] == "Leaving")
}

/// Waits until two speakers report that nothing replied on a node after its speaker's stop: all
/// other evidence of a failure holds.
pub(crate) fn wait_stopped(lab: &Lab) -> Result<()> {
    let is_stopped = |entry: &Value| entry["state"] == "Leaving" && entry["silent"] == true;
    wait_reported(lab, "two speakers report that a node stopped", is_stopped)
}

/// Waits until two speakers report one node like this.
fn wait_reported(lab: &Lab, goal: &str, is_reported: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(goal, STATE_MAX, || {
        let watched = watched(lab)?;
        let reports = |node: &String| {
            watched.iter().filter(|entry| entry["node"] == *node && is_reported(entry)).count()
        };
        let is_enough = lab.nodes().iter().any(|node| reports(node) >= REPORTS_MIN);
        ensure!(is_enough, "the speakers report {watched:?}");
        Ok(Some(()))
    })
}

/// Returns the watched nodes in all SpeakerStatuses.
fn watched(lab: &Lab) -> Result<Vec<Value>> {
    let statuses = items(lab, SPEAKER_STATUSES)?;
    let lists = statuses.iter().filter_map(|it| it["status"]["watchedNodes"].as_array());
    Ok(lists.flatten().cloned().collect())
}

/// Checks for so long that no pod is marked.
pub(crate) fn observe_unmarked(lab: &Lab, name: &str, time: Duration) -> Result<()> {
    wait::during(time, || {
        check_unmarked(lab)?;
        wait::during(CHECK_INTERVAL, || Ok(()))
    })?;
    print_measured(&format!("{name}: 0 pods marked in {} s", time.as_secs()));
    Ok(())
}

/// Checks that no pod is marked, and that none was.
pub(crate) fn check_unmarked(lab: &Lab) -> Result<()> {
    let (nodes, pods) = (nodes_with_event(lab)?, marked_pods(lab)?);
    ensure!(nodes.is_empty() && pods.is_empty(), "{nodes:?} have an Event, {pods:?} are marked");
    Ok(())
}

/// Returns the Nodes whose pods were marked.
pub(crate) fn nodes_with_event(lab: &Lab) -> Result<Vec<String>> {
    let mut events = items(lab, "/api/v1/namespaces/default/events")?;
    events.retain(|event| event["reason"] == REASON);
    Ok(events.iter().map(|event| name(&event["involvedObject"])).collect())
}

/// Returns the names of the pods that are marked.
fn marked_pods(lab: &Lab) -> Result<Vec<String>> {
    let mut pods = items(lab, "/api/v1/pods")?;
    pods.retain(|pod| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|condition| condition["reason"] == REASON)
    });
    Ok(pods.iter().map(|pod| name(&pod["metadata"])).collect())
}

fn items(lab: &Lab, path: &str) -> Result<Vec<Value>> {
    Ok(lab.get(path)?["items"].as_array().cloned().unwrap_or_default())
}

fn name(object: &Value) -> String {
    object["name"].as_str().unwrap_or_default().to_owned()
}
