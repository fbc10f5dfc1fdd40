//! Ten thousand Services, each announced by three nodes: time until the router has all routes,
//! memory of the speakers and gobgpds, cost of a restart of either, and time to withdraw the route
//! of one of the Services.

use super::routes::{self, RouteMonitor};
use super::{ROUTER, withdraw};
use crate::bench::report::Findings;
use crate::bench::scale::SERVICES;
use crate::bench::targets::{self, BGP_GOBGPD_10000, BGP_GONE_10000, BGP_SPEAKER_10000};
use crate::bench::{memory, plan_times, services, settle};
use crate::cluster::ferrolb::speaker_name;
use crate::routers::Router;
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// Maximum time until the router has all routes.
const FULL_MAX: Duration = Duration::from_secs(180);
/// Observation time for withdrawals after a restart of the speakers.
const LOOK: Duration = Duration::from_secs(10);

/// Runs in a lab with FerroLB and this router.
///
/// # Errors
/// If the router does not get all routes.
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
    findings.add(&targets::BGP_FULL, full(router, all, start)?);
    memory::measure(lab, &mut findings, &BGP_SPEAKER_10000, &speakers)?;
    memory::measure(lab, &mut findings, &BGP_GOBGPD_10000, &gobgpds)?;
    findings.extend(withdraw::run(lab, &BGP_GONE_10000).context("one of ten thousand")?);

    restarted(lab, router, &mut findings, &speakers, all)?;

    drained(lab, router, &mut findings, nodes.first().context("a node")?, all)?;

    let first = gobgpds.first().context("a node")?;
    lab.stop(first, Signal::KILL)?;
    wait::until("the router has removed routes of the stopped gobgpd", FULL_MAX, || {
        ensure!(routes::received(router)? < all, "it has all routes");
        Ok(Some(()))
    })?;
    let start = wait::now();
    lab.restart(first)?;
    findings.add(&targets::BGP_REFILLED, full(router, all, start)?);
    Ok(findings)
}

/// Waits until the router has all routes and returns the time that this takes, in milliseconds.
fn full(router: &Router<'_>, all: u64, start: Instant) -> Result<f64> {
    wait::until("the router has all routes", FULL_MAX, || {
        let there = routes::received(router)?;
        ensure!(there == all, "{there} of {all}");
        Ok(Some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Kills and restarts all speakers, and records the routes that the router loses and the updates
/// that it receives.
fn restarted(
    lab: &Lab,
    router: &Router<'_>,
    findings: &mut Findings,
    speakers: &[String],
    all: u64,
) -> Result<()> {
    full(router, all, wait::now())?;
    let (watch, start, before) =
        (RouteMonitor::start(lab, ROUTER)?, wait::now(), routes::updates(router)?);
    for speaker in speakers {
        lab.stop(speaker, Signal::KILL)?;
        lab.restart(speaker)?;
    }
    settle::wait_for(lab)?;
    wait::during(LOOK, || Ok(()))?;
    let missing = all - routes::received(router)?.min(all);
    findings.add(&targets::BGP_RESTART_LOST, watch.gone(start) as f64 + missing as f64);
    findings.add(&targets::BGP_RESTART_UPDATES, (routes::updates(router)? - before) as f64);
    Ok(())
}

/// Cordons a node until the router has no route by it, and uncordons it.
fn drained(
    lab: &Lab,
    router: &Router<'_>,
    findings: &mut Findings,
    node: &str,
    all: u64,
) -> Result<()> {
    full(router, all, wait::now())?;
    let (drains, left) = ([node.to_owned()], all - u64::from(SERVICES));
    let (before, start) = (plan_times::of(lab, &drains)?, wait::now());
    lab.kubectl(&["cordon", node])?;
    findings.add(&targets::BGP_DRAINED_10000, full(router, left, start)?);
    let slowest = plan_times::slowest(&before, &plan_times::of(lab, &drains)?, 0.99)?;
    findings.add(&targets::BGP_DRAIN_PLAN, slowest * 1000.0);
    lab.kubectl(&["uncordon", node])?;
    full(router, all, wait::now()).map(drop)
}
