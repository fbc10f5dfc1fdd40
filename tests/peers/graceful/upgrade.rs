//! End of gobgpd as in its pod, where the preStop hook sends a request to the speaker before
//! SIGTERM: in an upgrade, on a cordoned node, and without a speaker.

use super::outage::run_without_loss;
use super::{ALTERNATING, wait_all_paths};
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

/// Path of the preStop hook's request to the speaker.
const HANDOVER_PATH: &str = "/gobgp/handover";
/// Community of de-preferred paths (RFC 8326).
const GRACEFUL_SHUTDOWN: &str = "65535:0";

/// Replaces the running gobgpd with the oldest supported version.
pub(super) fn downgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&bgp::process_name(&node.name), Signal::KILL)?;
    bgp::start(lab.state(), &gobgp::build_version(gobgp::OLDEST_VERSION)?, &node.name)?;
    wait_sessions(routers)?;
    wait_all_paths(routers, node, ALTERNATING[0])
}

/// Upgrades gobgpd from the oldest supported version to the current one, without a lost connection.
pub(super) fn upgrade(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    let page = lab.http_get(CLIENT, admin::admin(lab, &node.name)?, HANDOVER_PATH)?;
    ensure!(
        page.status == 403,
        "a request from another host returns {}: {}",
        page.status,
        page.body
    );
    let start = wait::now();
    run_without_loss(lab, "gobgpd upgraded", || {
        let hook = bgp::call_pre_stop_hook(lab, &node.name, bgp::STOP_TIMEOUT)?;
        ensure!(hook.status == 200, "the hook's reply is {hook:?}");
        lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
        print_measured(&format!("hook and end of gobgpd took {:?}", start.elapsed()));
        let start = wait::now();
        bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
        wait_sessions(routers)?;
        print_measured(&format!(
            "all sessions are established {:?} after the start of the new gobgpd",
            start.elapsed()
        ));
        wait_all_paths(routers, node, ALTERNATING[0])
    })
}

/// Ends gobgpd on a cordoned node, which may not return: routers must not wait for its restart.
pub(super) fn end_on_cordoned_node(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.kubectl(&["cordon", &node.name])?;
    // The de-preferred routes show that the speaker has processed the cordon.
    wait::until("the routes are de-preferred", BGP_MAX, || {
        let routes = routers.first().context("no router runs")?.routes()?;
        let depreferred = |route: &BgpRoute| {
            route.communities.iter().any(|community| community == GRACEFUL_SHUTDOWN)
        };
        Ok((!routes.is_empty() && routes.iter().all(depreferred)).then_some(()))
    })?;
    let hook = bgp::call_pre_stop_hook(lab, &node.name, bgp::STOP_TIMEOUT)?;
    ensure!(hook.status == 409, "the hook's reply on a cordoned node is {hook:?}");
    end_and_wait_withdrawn(lab, routers, node, "gobgpd of a cordoned node ended")?;
    lab.kubectl(&["uncordon", &node.name])?;
    bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
    wait_all_paths(routers, node, ALTERNATING[0])
}

/// Ends gobgpd without its speaker: a new gobgpd would get no routes, so routers must not wait for
/// its restart.
pub(super) fn end_without_speaker(lab: &Lab, routers: &[Router], node: &Host) -> Result<()> {
    lab.stop(&speaker_name(&node.name), Signal::KILL)?;
    let hook = bgp::call_pre_stop_hook(lab, &node.name, bgp::STOP_TIMEOUT);
    ensure!(hook.is_err(), "a stopped speaker replied {hook:?}");
    end_and_wait_withdrawn(lab, routers, node, "speaker killed, and gobgpd ended")?;
    lab.restart(&speaker_name(&node.name))?;
    bgp::start(lab.state(), &current_version(lab)?, &node.name)?;
    wait_all_paths(routers, node, ALTERNATING[0])
}

/// Waits until all sessions of the routers are established. The routers have kept the routes, so
/// only sessions prove that the new gobgpd runs.
fn wait_sessions(routers: &[Router]) -> Result<()> {
    routers.iter().try_for_each(|router| {
        wait::until("all sessions of the router are established", BGP_MAX, || {
            Ok(router.sessions()?.iter().all(|session| session.established).then_some(()))
        })
    })
}

/// Returns the program of the current GoBGP version.
fn current_version(lab: &Lab) -> Result<PathBuf> {
    lab.state().facts()?.gobgp.context("the lab has no GoBGP")
}

/// Ends gobgpd by SIGTERM, and waits until the routers have dropped the routes, long before a
/// restart timer would expire.
fn end_and_wait_withdrawn(lab: &Lab, routers: &[Router], node: &Host, what: &str) -> Result<()> {
    let start = wait::now();
    lab.stop(&bgp::process_name(&node.name), Signal::TERM)?;
    for router in routers {
        expect::wait_exact_paths(router, Vec::new())?;
        expect::wait_forwards_all(router, &[])?;
    }
    print_measured(&format!(
        "{what}: three routers have dropped the routes after {:?}",
        start.elapsed()
    ));
    Ok(())
}
