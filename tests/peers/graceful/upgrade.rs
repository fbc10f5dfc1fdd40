//! A gobgpd that ends as its pod does, by the hook that asks the speaker and then by SIGTERM: upgraded, on a node that is left, without a speaker.

use super::outage::unharmed;
use super::{TURNS, all_see};
use crate::expect;
use crate::objects::BGP_MAX;
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::bgp;
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::lab::admin;
use ferrolb_tests::routers::{Route, Router};
use ferrolb_tests::setup::gobgp;
use ferrolb_tests::stage::measured;
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Signal, wait};
use std::path::PathBuf;

/// By which path the speaker is asked.
const HANDOVER: &str = "/gobgp/handover";
/// What paths of the last resort carry (RFC 8326).
const GRACEFUL_SHUTDOWN: &str = "65535:0";

/// Puts a gobgpd of the oldest version that there may be in the place of the one that runs.
pub(super) fn downgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&bgp::process_name(&node.name), Signal::KILL)?;
    bgp::start(lab.state(), &gobgp::build_version(gobgp::OLDEST_VERSION)?, &node.name)?;
    back(routers)?;
    all_see(routers, node, TURNS[0])
}

/// From that one to the version of today.
pub(super) fn upgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    let page = lab.http_get(CLIENT, admin::admin(lab, &node.name)?, HANDOVER)?;
    ensure!(page.status == 403, "one from elsewhere is told {}: {}", page.status, page.body);
    let start = wait::now();
    unharmed(lab, "gobgpd is upgraded", || {
        let hook = bgp::before_stop(lab, &node.name, bgp::GRACE)?;
        ensure!(hook.status == 200, "the hook was answered {hook:?}");
        lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
        measured(&format!("hook and end of gobgpd took {:?}", start.elapsed()));
        let start = wait::now();
        bgp::start(lab.state(), &today(lab)?, &node.name)?;
        back(routers)?;
        measured(&format!("all sessions are back {:?} after the start of the new one", start.elapsed()));
        all_see(routers, node, TURNS[0])
    })
}

/// On a node that may not be back routers are not to wait.
pub(super) fn left(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.kubectl(&["cordon", &node.name])?;
    // The speaker knows when it says so.
    wait::until("the last resort", BGP_MAX, || {
        let routes = routers.first().context("a router")?.routes()?;
        let last = |route: &Route| route.communities.iter().any(|community| community == GRACEFUL_SHUTDOWN);
        Ok((!routes.is_empty() && routes.iter().all(last)).then_some(()))
    })?;
    let hook = bgp::before_stop(lab, &node.name, bgp::GRACE)?;
    ensure!(hook.status == 409, "the hook on a cordoned node was answered {hook:?}");
    dropped(lab, routers, node, "gobgpd of a cordoned node ends")?;
    lab.kubectl(&["uncordon", &node.name])?;
    bgp::start(lab.state(), &today(lab)?, &node.name)?;
    all_see(routers, node, TURNS[0])
}

/// Without its speaker nobody fills the next one.
pub(super) fn without_speaker(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&speaker_name(&node.name), Signal::KILL)?;
    let hook = bgp::before_stop(lab, &node.name, bgp::GRACE);
    ensure!(hook.is_err(), "a dead speaker answered {hook:?}");
    dropped(lab, routers, node, "the speaker is dead, and gobgpd ends")?;
    lab.restart(&speaker_name(&node.name))?;
    bgp::start(lab.state(), &today(lab)?, &node.name)?;
    all_see(routers, node, TURNS[0])
}

/// Waits until all have their sessions again: they have kept the routes, so that nothing else tells that the new gobgpd is there.
fn back(routers: &[Router]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("its sessions", BGP_MAX, || Ok(router.sessions()?.iter().all(|is| is.established).then_some(())))
    })
}

fn today(lab: &Lab) -> Result<PathBuf> {
    lab.state().facts()?.gobgp.context("GoBGP")
}

/// Ends gobgpd by SIGTERM: routers drop the routes, long before they would if they waited for it.
fn dropped(lab: &Lab, routers: &[Router], node: &Host, what: &str) -> Result<()> {
    let start = wait::now();
    lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
    for router in routers {
        expect::sees(router, Vec::new())?;
        expect::forwards_all(router, &[])?;
    }
    measured(&format!("{what}: three routers have dropped the routes after {:?}", start.elapsed()));
    Ok(())
}
