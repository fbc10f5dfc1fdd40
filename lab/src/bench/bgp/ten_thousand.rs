//! Ten thousand Services, each announced by three nodes: time until the router has all routes,
//! memory of the speakers and gobgpds, cost of a restart of the speakers and of a gobgpd, and time
//! to withdraw the route of one of the Services.
//!
//! # Method
//!
//! - The Services have policy Cluster. The first time starts with the speakers, and ends when the
//!   router has all 30,000 routes. It includes the sessions.
//! - The memory is that of the largest speaker and of the largest gobgpd, as in
//!   [`crate::bench::memory`].
//! - Then [`withdraw`] runs with one more Service.
//! - The lab has no kube-proxy. The first speakers find a gobgpd without routes, so they de-prefer
//!   all routes for a minute. The next step begins after that.
//! - The three speakers are killed one after another, and restart. The lost routes are those that
//!   the router's kernel removed meanwhile, and those that are missing 10 s after all speakers are
//!   ready. The UPDATEs are the announcements and withdrawals that the router has processed.
//! - A node is cordoned, until the router has received all of its routes as de-preferred ones.
//! - A gobgpd is killed. The time starts with its restart, and ends when the router has all routes.

use super::routes::{self, RouteMonitor};
use super::{ROUTER, withdraw};
use crate::bench::report::Findings;
use crate::bench::scale::SERVICES;
use crate::bench::targets::{self, BGP_ENDPOINT_CHANGE_10000, BGP_GOBGPD_10000, BGP_SPEAKER_10000};
use crate::bench::{memory, plan_times, services, settle};
use crate::cluster::ferrolb::speaker_name;
use crate::routers::Router;
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Maximum time until the router has all routes.
const ALL_ROUTES_MAX: Duration = Duration::from_secs(180);
/// Time after which a speaker that found a gobgpd without routes, on a node without a kube-proxy,
/// no longer de-prefers its routes.
const PREFERRED_AFTER: Duration = Duration::from_secs(65);
/// Observation time for withdrawals after a restart of the speakers.
const OBSERVATION_TIME: Duration = Duration::from_secs(10);

/// Runs these measurements in a lab with FerroLB and `router`.
///
/// # Errors
/// If the router does not receive all routes.
pub(super) fn run(lab: &Lab, router: &Router<'_>) -> Result<Findings> {
    let nodes = lab.nodes();
    let speakers: Vec<String> = nodes.iter().map(|node| speaker_name(node)).collect();
    let gobgpds: Vec<String> = nodes.iter().map(|node| format!("gobgpd-{node}")).collect();
    let mut findings = Findings::default();
    speakers.iter().try_for_each(|speaker| lab.stop(speaker, Signal::TERM))?;
    lab.api(async |client| {
        services::create(&client, "bgp", SERVICES as usize, &services::V4).await.map(drop)
    })?;
    let all = u64::from(SERVICES) * nodes.len() as u64;

    let start = wait::now();
    speakers.iter().try_for_each(|speaker| lab.restart(speaker))?;
    findings.add(&targets::BGP_ALL_ROUTES, wait_routes(router, all, start)?);
    memory::measure(lab, &mut findings, &BGP_SPEAKER_10000, &speakers)?;
    memory::measure(lab, &mut findings, &BGP_GOBGPD_10000, &gobgpds)?;
    findings.extend(
        withdraw::run(lab, &BGP_ENDPOINT_CHANGE_10000)
            .context("cannot measure the withdrawal of one of ten thousand routes")?,
    );

    wait::during(PREFERRED_AFTER.saturating_sub(start.elapsed()), || Ok(()))?;
    measure_restart(lab, router, &mut findings, &speakers, all)?;

    measure_drain(lab, router, &mut findings, nodes.first().context("the lab has no node")?, all)?;

    let first = gobgpds.first().context("the lab has no node")?;
    lab.stop(first, Signal::KILL)?;
    wait::until("the router has removed routes of the stopped gobgpd", ALL_ROUTES_MAX, || {
        ensure!(routes::received_routes(router)? < all, "the router still has all routes");
        Ok(Some(()))
    })?;
    let start = wait::now();
    lab.restart(first)?;
    findings.add(&targets::BGP_ROUTES_RESTORED, wait_routes(router, all, start)?);
    Ok(findings)
}

/// Waits until the router has the expected number of routes, and returns the time since `start` in
/// milliseconds.
fn wait_routes(router: &Router<'_>, expected: u64, start: Instant) -> Result<f64> {
    wait::until("the router has the expected number of routes", ALL_ROUTES_MAX, || {
        let received = routes::received_routes(router)?;
        ensure!(received == expected, "the router has {received} of {expected} routes");
        Ok(Some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Kills and restarts all speakers, and records the routes that the router loses and the updates
/// that it receives.
fn measure_restart(
    lab: &Lab,
    router: &Router<'_>,
    findings: &mut Findings,
    speakers: &[String],
    all: u64,
) -> Result<()> {
    wait_routes(router, all, wait::now())?;
    let (monitor, start, before) =
        (RouteMonitor::start(lab, ROUTER)?, wait::now(), routes::processed_updates(router)?);
    for speaker in speakers {
        lab.stop(speaker, Signal::KILL)?;
        lab.restart(speaker)?;
    }
    settle::wait_settled(lab)?;
    wait::during(OBSERVATION_TIME, || Ok(()))?;
    let missing = all - routes::received_routes(router)?.min(all);
    findings.add(&targets::BGP_RESTART_LOST, monitor.removed_count(start) as f64 + missing as f64);
    findings
        .add(&targets::BGP_RESTART_UPDATES, (routes::processed_updates(router)? - before) as f64);
    Ok(())
}

/// Cordons a node until the router has received all its routes as de-preferred ones, uncordons it,
/// and records the time.
fn measure_drain(
    lab: &Lab,
    router: &Router<'_>,
    findings: &mut Findings,
    node: &str,
    all: u64,
) -> Result<()> {
    wait_routes(router, all, wait::now())?;
    let (draining, expected) = ([node.to_owned()], u64::from(SERVICES));
    let (before, start) = (plan_times::histogram(lab, &draining)?, wait::now());
    lab.kubectl(&["cordon", node])?;
    let elapsed = wait::until("the router has the de-preferred routes", ALL_ROUTES_MAX, || {
        let received = routes::de_preferred_routes(router)?;
        ensure!(received == expected, "the router has {received} of {expected} routes");
        Ok(Some(start.elapsed().as_secs_f64() * 1000.0))
    })?;
    findings.add(&targets::BGP_DRAINED_10000, elapsed);
    let p99 = plan_times::quantile(&before, &plan_times::histogram(lab, &draining)?, 0.99)?;
    findings.add(&targets::BGP_DRAIN_PLAN, p99 * 1000.0);
    lab.kubectl(&["uncordon", node])?;
    wait::until("the router has no de-preferred routes", ALL_ROUTES_MAX, || {
        Ok((routes::de_preferred_routes(router)? == 0).then_some(()))
    })
}
