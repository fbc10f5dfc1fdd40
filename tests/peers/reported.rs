//! BGP state that FerroLB reports: the conditions of its objects, and the sessions in the
//! SpeakerStatus.

use crate::objects::{self, BGP_MAX, NAMESPACE};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::Value;

/// Condition of an object: whether it can be used.
pub(crate) const VALID: &str = "Valid";
/// Condition of a BGPPeer: whether its sessions are established.
pub(crate) const ESTABLISHED: &str = "Established";

/// Returns the status of a custom resource of FerroLB.
pub(crate) fn status(lab: &Lab, kind: &str, name: &str) -> Result<Value> {
    let object = lab.kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"])?;
    Ok(serde_json::from_str::<Value>(&object)?["status"].take())
}

/// Waits until a condition of an object has this reason, and a message that contains `word`.
pub(crate) fn wait_condition(
    lab: &Lab,
    (kind, name): (&str, &str),
    condition: &str,
    (reason, word): (&str, &str),
) -> Result<()> {
    wait::until(&format!("{condition} of {kind} {name}: {reason}, {word:?}"), BGP_MAX, || {
        let status = status(lab, kind, name)?;
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is = conditions
            .find(|is| is["type"] == condition)
            .with_context(|| format!("no such condition: {status}"))?;
        let message = is["message"].as_str().unwrap_or_default();
        ensure!(is["reason"] == reason && message.contains(word), "the condition is {is}");
        Ok(Some(()))
    })
}

/// Waits until a BGPPeer has this count of sessions: `1/2`.
pub(crate) fn wait_count(lab: &Lab, peer: &str, count: &str) -> Result<()> {
    wait::until(&format!("{peer} has {count} sessions"), BGP_MAX, || {
        let status = status(lab, "bgppeer", peer)?;
        ensure!(status["sessions"] == count, "the status is {status}");
        Ok(Some(()))
    })
}

/// Waits until a node's speaker reports an issue of its gobgpd that contains `word`. If it is
/// empty, waits until there is no issue.
pub(crate) fn wait_daemon(lab: &Lab, node: &str, word: &str) -> Result<()> {
    wait::until(&format!("the speaker of {node} says {word:?}"), BGP_MAX, || {
        let status = status(lab, "speakerstatus", node)?;
        let message = messages(&status["bgp"]);
        ensure!(
            message.contains(word) && word.is_empty() == message.is_empty(),
            "the message is {message:?}"
        );
        Ok(Some(()))
    })
}

/// Waits until a node's speaker reports a session that is not established, with a reason that
/// contains all of `words`.
pub(crate) fn wait_no_session(lab: &Lab, node: &str, peer: &str, words: &[&str]) -> Result<()> {
    wait::until(&format!("why {node} has no session with {peer}: {words:?}"), BGP_MAX, || {
        let sessions = objects::sessions(lab, node)?;
        let session =
            sessions.iter().find(|session| session["peer"] == peer).context("no such session")?;
        let why = messages(session);
        let good = session["state"] != ESTABLISHED && words.iter().all(|word| why.contains(word));
        ensure!(good, "the session is {session}");
        Ok(Some(()))
    })
}

/// Returns the joined messages of the issues of a session or of gobgpd.
pub(crate) fn messages(status: &Value) -> String {
    let issues = status["issues"].as_array().into_iter().flatten();
    issues.filter_map(|issue| issue["message"].as_str()).collect::<Vec<_>>().join("; ")
}

/// Sessions that must stay established.
#[derive(Debug)]
pub(crate) struct SessionSnapshot {
    node: String,
    /// Start of each session, by the name of the BGPPeer.
    since: Vec<(String, Value)>,
}

impl SessionSnapshot {
    /// Waits until the sessions of a node with these BGPPeers are established.
    pub(crate) fn take(lab: &Lab, node: &str, peers: &[String]) -> Result<Self> {
        wait::until(&format!("the sessions of {node}"), BGP_MAX, || {
            let since = peers
                .iter()
                .map(|peer| Ok((peer.clone(), since(lab, node, peer)?)))
                .collect::<Result<_>>()?;
            Ok(Some(Self { node: node.to_owned(), since }))
        })
    }

    /// Checks that no session was established again.
    pub(crate) fn check_unchanged(&self, lab: &Lab) -> Result<()> {
        self.since.iter().try_for_each(|(peer, was)| {
            let is = since(lab, &self.node, peer)?;
            ensure!(
                is == *was,
                "the session of {} with {peer} was established since {was}, and now since {is}",
                self.node
            );
            Ok(())
        })
    }
}

fn since(lab: &Lab, node: &str, peer: &str) -> Result<Value> {
    let sessions = objects::sessions(lab, node)?;
    let stands = |session: &&Value| session["peer"] == peer && session["state"] == ESTABLISHED;
    let session = sessions
        .iter()
        .find(stands)
        .with_context(|| format!("{peer} is not established: {sessions:#?}"))?;
    ensure!(session["since"].is_string(), "no start time: {session}");
    Ok(session["since"].clone())
}
