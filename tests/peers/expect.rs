//! What the stories wait for: on a router, and in what FerroLB says.

use crate::objects::{self, BGP_MAX, NAMESPACE};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::routers::{Route, Router};
use ferrolb_tests::{Lab, wait};
use serde_json::Value;
use std::net::IpAddr;

/// Waits until a router has sessions with these neighbours, and with no other.
pub(crate) fn standing(router: &Router, neighbours: &[IpAddr]) -> Result<()> {
    wait::until("the sessions", BGP_MAX, || {
        let sessions = router.sessions()?;
        let up = sessions.iter().filter(|session| session.established).map(|session| session.neighbour);
        ensure!(up.collect::<Vec<_>>() == neighbours, "{router} has {sessions:?}, and should have {neighbours:?}");
        Ok(Some(()))
    })
}

/// Waits until a router has exactly these paths.
pub(crate) fn sees(router: &Router, mut paths: Vec<Route>) -> Result<()> {
    paths.sort();
    wait::until("the paths", BGP_MAX, || {
        let routes = router.routes()?;
        ensure!(routes == paths, "{router} sees {routes:#?}, not {paths:#?}");
        Ok(Some(()))
    })
}

/// Waits until the speaker of a node tells of a BGPPeer's session that it is in this state, and in words that have all of these in them why.
pub(crate) fn told(lab: &Lab, node: &str, peer: &str, established: bool, why: &[&str]) -> Result<()> {
    wait::until("the speaker's word", BGP_MAX, || {
        let sessions = objects::sessions(lab, node)?;
        let session = sessions.iter().find(|session| session["peer"] == peer).context("no such session")?;
        let message = session["message"].as_str().unwrap_or_default();
        let good = (session["state"] == "Established") == established && why.iter().all(|word| message.contains(word));
        ensure!(good, "{session}");
        Ok(Some(()))
    })
}

/// Waits until a condition of an object of ours says this: its status, its reason, and words in its message.
pub(crate) fn says(lab: &Lab, object: [&str; 2], kind: &str, [status, reason, words]: [&str; 3]) -> Result<()> {
    wait::until("the condition", BGP_MAX, || {
        let is = lab.kubectl(&[&["get"], &object[..], &["-n", NAMESPACE, "-o", "json"]].concat())?;
        let is: Value = serde_json::from_str(&is)?;
        let conditions = is["status"]["conditions"].as_array().context("no conditions")?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind).context("no such condition")?;
        let message = condition["message"].as_str().unwrap_or_default();
        let good = condition["status"] == status && condition["reason"] == reason && message.contains(words);
        ensure!(good, "{object:?}: {condition}");
        Ok(Some(()))
    })
}
