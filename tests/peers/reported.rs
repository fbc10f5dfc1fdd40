//! BGP state that FerroLB reports: the conditions of its objects, and the sessions in the
//! SpeakerStatus.

use crate::objects::{self, BGP_MAX};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::Value;

/// Type of the condition that reports whether FerroLB can use an object.
pub(crate) const VALID: &str = "Valid";
/// Type of the condition that reports whether the sessions of a BGPPeer are established. A session
/// in the SpeakerStatus has a state of the same name.
pub(crate) const ESTABLISHED: &str = "Established";

/// Returns the status of an object of a FerroLB custom resource, such as `bgppeers`.
fn status(lab: &Lab, resource: &str, name: &str) -> Result<Value> {
    Ok(lab.get(&format!("{}/{name}", objects::path(resource)))?["status"].take())
}

/// Waits until a condition of an object has this reason, and its message contains `word`.
pub(crate) fn wait_condition(
    lab: &Lab,
    (resource, name): (&str, &str),
    condition: &str,
    (reason, word): (&str, &str),
) -> Result<()> {
    wait::until(
        &format!(
            "condition {condition} of {resource} {name} has the reason {reason} and the text {word:?}"
        ),
        BGP_MAX,
        || {
            let status = status(lab, resource, name)?;
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            let found = conditions
                .find(|found| found["type"] == condition)
                .with_context(|| format!("the object has no condition {condition}: {status}"))?;
            let message = found["message"].as_str().unwrap_or_default();
            ensure!(
                found["reason"] == reason && message.contains(word),
                "the condition is {found}"
            );
            Ok(Some(()))
        },
    )
}

/// Waits until the status of a BGPPeer has this number of sessions: with `1/2`, one of two selected
/// nodes has an established session.
pub(crate) fn wait_count(lab: &Lab, peer: &str, count: &str) -> Result<()> {
    wait::until(&format!("{peer} has {count} sessions"), BGP_MAX, || {
        let status = status(lab, "bgppeers", peer)?;
        ensure!(status["sessions"] == count, "the status is {status}");
        Ok(Some(()))
    })
}

/// Waits until a node's speaker reports an issue of its gobgpd that contains `word`. If `word` is
/// empty, waits until there is no issue.
pub(crate) fn wait_gobgpd_issue(lab: &Lab, node: &str, word: &str) -> Result<()> {
    wait::until(&format!("the speaker of {node} reports {word:?} about gobgpd"), BGP_MAX, || {
        let status = status(lab, "speakerstatuses", node)?;
        let message = messages(&status["bgp"]);
        ensure!(
            message.contains(word) && word.is_empty() == message.is_empty(),
            "the message is {message:?}"
        );
        Ok(Some(()))
    })
}

/// Waits until a node's speaker reports the session of a BGPPeer as not established, with an issue
/// that contains one of `texts`.
pub(crate) fn wait_no_session(lab: &Lab, node: &str, peer: &str, texts: &[&str]) -> Result<()> {
    wait::until(
        &format!("{node} reports no session with {peer} and one of the issues {texts:?}"),
        BGP_MAX,
        || {
            let sessions = objects::sessions(lab, node)?;
            let session = sessions
                .iter()
                .find(|session| session["peer"] == peer)
                .context("the speaker does not list the session")?;
            let issues = messages(session);
            let matches =
                session["state"] != ESTABLISHED && texts.iter().any(|text| issues.contains(text));
            ensure!(matches, "the session is {session}");
            Ok(Some(()))
        },
    )
}

/// Returns the joined messages of the issues of a session or of gobgpd.
pub(crate) fn messages(status: &Value) -> String {
    let issues = status["issues"].as_array().into_iter().flatten();
    issues.filter_map(|issue| issue["message"].as_str()).collect::<Vec<_>>().join("; ")
}

/// Start times of sessions that must stay established.
#[derive(Debug)]
pub(crate) struct SessionSnapshot {
    node: String,
    /// Start of each session, by the name of the BGPPeer.
    since: Vec<(String, Value)>,
}

impl SessionSnapshot {
    /// Waits until the sessions of a node with these BGPPeers are established, and returns their
    /// start times.
    pub(crate) fn take(lab: &Lab, node: &str, peers: &[String]) -> Result<Self> {
        wait::until(&format!("the sessions of {node} are established"), BGP_MAX, || {
            let since = peers
                .iter()
                .map(|peer| Ok((peer.clone(), since(lab, node, peer)?)))
                .collect::<Result<_>>()?;
            Ok(Some(Self { node: node.to_owned(), since }))
        })
    }

    /// Checks that no session has ended or been established again.
    pub(crate) fn check_unchanged(&self, lab: &Lab) -> Result<()> {
        self.since.iter().try_for_each(|(peer, before)| {
            let now = since(lab, &self.node, peer)?;
            ensure!(
                now == *before,
                "the start time of the session of {} with {peer} was {before}, and is now {now}",
                self.node
            );
            Ok(())
        })
    }
}

/// Returns the start time of an established session.
fn since(lab: &Lab, node: &str, peer: &str) -> Result<Value> {
    let sessions = objects::sessions(lab, node)?;
    let is_established =
        |session: &&Value| session["peer"] == peer && session["state"] == ESTABLISHED;
    let session = sessions
        .iter()
        .find(is_established)
        .with_context(|| format!("the session of {peer} is not established: {sessions:#?}"))?;
    ensure!(session["since"].is_string(), "the session has no start time: {session}");
    Ok(session["since"].clone())
}
