//! End of gobgpd as in its pod: a hook sends a request to the speaker, and SIGTERM follows. In an
//! upgrade, on a cordoned node, and without a speaker.

use super::outage::without_loss;
use super::{TURNS, all_see};
use crate::expect;
use crate::objects::BGP_MAX;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::lab::admin;
use ferrolb_lab::routers::{BgpRoute, Router};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::setup::gobgp;
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Signal, wait};
use std::path::PathBuf;

/// Path of the hook's request to the speaker.
const HANDOVER: &str = "/gobgp/handover";
/// Community of de-preferred paths (RFC 8326).
const GRACEFUL_SHUTDOWN: &str = "65535:0";

/// Replaces the running gobgpd with the oldest supported version.
pub(super) fn downgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&bgp::process_name(&node.name), Signal::KILL)?;
    bgp::start(lab.state(), &gobgp::build_version(gobgp::OLDEST_VERSION)?, &node.name)?;
    wait_sessions(routers)?;
    all_see(routers, node, TURNS[0])
}

/// Upgrades from that version to the current one.
pub(super) fn upgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    let page = lab.http_get(CLIENT, admin::admin(lab, &node.name)?, HANDOVER)?;
    ensure!(
        page.status == 403,
        "a request from another host returns {}: {}",
        page.status,
        page.body
    );
    let start = wait::now();
    without_loss(lab, "gobgpd is upgraded", || {
        let hook = bgp::before_stop(lab, &node.name, bgp::STOP_TIMEOUT)?;
        ensure!(hook.status == 200, "the hook's reply is {hook:?}");
        lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
        print_measured(&format!("hook and end of gobgpd took {:?}", start.elapsed()));
        let start = wait::now();
        bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
        wait_sessions(routers)?;
        print_measured(&format!(
            "all sessions are back {:?} after the start of the new one",
            start.elapsed()
        ));
        all_see(routers, node, TURNS[0])
    })
}

/// Ends gobgpd on a node that may not return: routers must not wait for it.
pub(super) fn on_cordoned_node(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.kubectl(&["cordon", &node.name])?;
    // The de-preferred routes show that the speaker has processed the cordon.
    wait::until("the last resort", BGP_MAX, || {
        let routes = routers.first().context("a router")?.routes()?;
        let last = |route: &BgpRoute| {
            route.communities.iter().any(|community| community == GRACEFUL_SHUTDOWN)
        };
        Ok((!routes.is_empty() && routes.iter().all(last)).then_some(()))
    })?;
    let hook = bgp::before_stop(lab, &node.name, bgp::STOP_TIMEOUT)?;
    ensure!(hook.status == 409, "the hook's reply on a cordoned node is {hook:?}");
    dropped(lab, routers, node, "gobgpd of a cordoned node ends")?;
    lab.kubectl(&["uncordon", &node.name])?;
    bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
    all_see(routers, node, TURNS[0])
}

/// Ends gobgpd without its speaker: nothing would fill the next one with routes, so routers must
/// not wait.
pub(super) fn without_speaker(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&speaker_name(&node.name), Signal::KILL)?;
    let hook = bgp::before_stop(lab, &node.name, bgp::STOP_TIMEOUT);
    ensure!(hook.is_err(), "a stopped speaker replied {hook:?}");
    dropped(lab, routers, node, "the speaker is dead, and gobgpd ends")?;
    lab.restart(&speaker_name(&node.name))?;
    bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
    all_see(routers, node, TURNS[0])
}

/// Waits until all routers have their sessions again. They have kept the routes, so only sessions
/// show that the new gobgpd runs.
fn wait_sessions(routers: &[Router]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("its sessions", BGP_MAX, || {
            Ok(router.sessions()?.iter().all(|is| is.established).then_some(()))
        })
    })
}

fn current_version(lab: &Lab) -> Result<PathBuf> {
    lab.state().facts()?.gobgp.context("GoBGP")
}

/// Ends gobgpd by SIGTERM: routers drop the routes, long before a restart timer would expire.
fn dropped(lab: &Lab, routers: &[Router], node: &Host, what: &str) -> Result<()> {
    let start = wait::now();
    lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
    for router in routers {
        expect::has_paths(router, Vec::new())?;
        expect::forwards_all(router, &[])?;
    }
    print_measured(&format!(
        "{what}: three routers have dropped the routes after {:?}",
        start.elapsed()
    ));
    Ok(())
}
