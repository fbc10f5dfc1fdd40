//! What FerroLB says of BGP where an operator looks: the conditions of its objects, and the sessions that its speakers tell of.

use crate::objects::{self, BGP_MAX, NAMESPACE};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::{Lab, wait};
use serde_json::Value;

/// The condition that says whether an object can be used.
pub(crate) const VALID: &str = "Valid";
/// The condition that says whether a BGPPeer has its sessions.
pub(crate) const ESTABLISHED: &str = "Established";

/// The status of one of our objects.
pub(crate) fn status(lab: &Lab, kind: &str, name: &str) -> Result<Value> {
    let object = lab.kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"])?;
    Ok(serde_json::from_str::<Value>(&object)?["status"].take())
}

/// Waits until a condition of an object has this reason, and its message holds `word`.
pub(crate) fn wait_condition(
    lab: &Lab,
    (kind, name): (&str, &str),
    condition: &str,
    (reason, word): (&str, &str),
) -> Result<()> {
    wait::until(&format!("{condition} of {kind} {name}: {reason}, {word:?}"), BGP_MAX, || {
        let status = status(lab, kind, name)?;
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is = conditions.find(|is| is["type"] == condition).with_context(|| format!("there is none: {status}"))?;
        let message = is["message"].as_str().unwrap_or_default();
        ensure!(is["reason"] == reason && message.contains(word), "it says {is}");
        Ok(Some(()))
    })
}

/// Waits until a BGPPeer counts its sessions like this: `1/2`.
pub(crate) fn wait_count(lab: &Lab, peer: &str, count: &str) -> Result<()> {
    wait::until(&format!("{peer} has {count} sessions"), BGP_MAX, || {
        let status = status(lab, "bgppeer", peer)?;
        ensure!(status["sessions"] == count, "it says {status}");
        Ok(Some(()))
    })
}

/// Waits until a node's speaker says of its gobgpd what holds `word`; an empty one: nothing.
pub(crate) fn wait_daemon(lab: &Lab, node: &str, word: &str) -> Result<()> {
    wait::until(&format!("the speaker of {node} says {word:?}"), BGP_MAX, || {
        let status = status(lab, "speakerstatus", node)?;
        let message = status["bgp"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains(word) && word.is_empty() == message.is_empty(), "it says {message:?}");
        Ok(Some(()))
    })
}

/// Waits until a node's speaker tells of a session that is not established, and why: in words that have all of these in them.
pub(crate) fn wait_why(lab: &Lab, node: &str, peer: &str, words: &[&str]) -> Result<()> {
    wait::until(&format!("why {node} has no session with {peer}: {words:?}"), BGP_MAX, || {
        let sessions = objects::sessions(lab, node)?;
        let session = sessions.iter().find(|session| session["peer"] == peer).context("no such session")?;
        let why = session["message"].as_str().unwrap_or_default();
        let good = session["state"] != ESTABLISHED && words.iter().all(|word| why.contains(word));
        ensure!(good, "it says {session}");
        Ok(Some(()))
    })
}

/// Sessions that are to stay as they are.
#[derive(Debug)]
pub(crate) struct Witness {
    node: String,
    /// By the name of the BGPPeer since when it stands.
    since: Vec<(String, Value)>,
}

impl Witness {
    /// Waits until the sessions of a node with these BGPPeers stand.
    pub(crate) fn called(lab: &Lab, node: &str, peers: &[String]) -> Result<Self> {
        wait::until(&format!("the sessions of {node}"), BGP_MAX, || {
            let since = peers.iter().map(|peer| Ok((peer.clone(), since(lab, node, peer)?))).collect::<Result<_>>()?;
            Ok(Some(Self { node: node.to_owned(), since }))
        })
    }

    /// None of them has begun anew.
    pub(crate) fn unmoved(&self, lab: &Lab) -> Result<()> {
        self.since.iter().try_for_each(|(peer, was)| {
            let is = since(lab, &self.node, peer)?;
            ensure!(is == *was, "the session of {} with {peer} stood since {was}, and now since {is}", self.node);
            Ok(())
        })
    }
}

fn since(lab: &Lab, node: &str, peer: &str) -> Result<Value> {
    let sessions = objects::sessions(lab, node)?;
    let stands = |session: &&Value| session["peer"] == peer && session["state"] == ESTABLISHED;
    let session = sessions.iter().find(stands).with_context(|| format!("{peer} is not established: {sessions:#?}"))?;
    ensure!(session["since"].is_string(), "since when: {session}");
    Ok(session["since"].clone())
}
