//! Ten thousand Services, each announced by three nodes: until the router has them all, what speakers and gobgpds hold in memory for them, what
//! a restart of either costs, and whether one endpoint among them is still noticed at once.

use super::routes::{self, Watch};
use super::{ROUTER, gone};
use crate::bench::budgets::{self, BGP_GOBGPD_10000, BGP_GONE_10000, BGP_SPEAKER_10000};
use crate::bench::report::Findings;
use crate::bench::scale::SERVICES;
use crate::bench::{memory, plans, rest, services};
use crate::cluster::ferrolb::speaker_name;
use crate::routers::Router;
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// How long the router may take until it has all routes.
const FULL_MAX: Duration = Duration::from_secs(180);
/// How long is looked whether a speaker that has started anew takes anything back.
const LOOK: Duration = Duration::from_secs(10);

/// Runs in a lab with FerroLB and this router.
///
/// # Errors
/// When the router does not get all routes.
pub(super) fn run(lab: &Lab, router: &Router<'_>) -> Result<Findings> {
    let nodes = lab.nodes();
    let speakers: Vec<String> = nodes.iter().map(|node| speaker_name(node)).collect();
    let gobgpds: Vec<String> = nodes.iter().map(|node| format!("gobgpd-{node}")).collect();
    let mut findings = Findings::default();
    speakers.iter().try_for_each(|speaker| lab.stop(speaker, Signal::TERM))?;
    lab.api(async |client| services::create(&client, "bgp", SERVICES as usize, &services::V4).await.map(drop))?;
    let all = u64::from(SERVICES) * nodes.len() as u64;

    let start = wait::now();
    speakers.iter().try_for_each(|speaker| lab.restart(speaker))?;
    findings.add(&budgets::BGP_FULL, full(router, all, start)?);
    memory::hold(lab, &mut findings, &BGP_SPEAKER_10000, &speakers)?;
    memory::hold(lab, &mut findings, &BGP_GOBGPD_10000, &gobgpds)?;
    findings.extend(gone::run(lab, &BGP_GONE_10000).context("one of ten thousand")?);

    restarted(lab, router, &mut findings, &speakers, all)?;

    drained(lab, router, &mut findings, nodes.first().context("a node")?, all)?;

    let first = gobgpds.first().context("a node")?;
    lab.stop(first, Signal::KILL)?;
    wait::until("the router has noticed", FULL_MAX, || {
        ensure!(routes::received(router)? < all, "it has all routes");
        Ok(Some(()))
    })?;
    let start = wait::now();
    lab.restart(first)?;
    findings.add(&budgets::BGP_REFILLED, full(router, all, start)?);
    Ok(findings)
}

/// Waits until the router has all routes; how long that took, in milliseconds.
fn full(router: &Router<'_>, all: u64, start: Instant) -> Result<f64> {
    wait::until("the router has all routes", FULL_MAX, || {
        let there = routes::received(router)?;
        ensure!(there == all, "{there} of {all}");
        Ok(Some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// All speakers are killed and start anew: what the router loses, and what it is told.
fn restarted(lab: &Lab, router: &Router<'_>, findings: &mut Findings, speakers: &[String], all: u64) -> Result<()> {
    full(router, all, wait::now())?;
    let (watch, start, before) = (Watch::start(lab, ROUTER)?, wait::now(), routes::updates(router)?);
    for speaker in speakers {
        lab.stop(speaker, Signal::KILL)?;
        lab.restart(speaker)?;
    }
    rest::wait_for(lab)?;
    wait::during(LOOK, || Ok(()))?;
    let missing = all - routes::received(router)?.min(all);
    findings.add(&budgets::BGP_RESTART_LOST, watch.gone(start) as f64 + missing as f64);
    findings.add(&budgets::BGP_RESTART_UPDATES, (routes::updates(router)? - before) as f64);
    Ok(())
}

/// A node is cordoned until the router has none of its routes any more, and comes back.
fn drained(lab: &Lab, router: &Router<'_>, findings: &mut Findings, node: &str, all: u64) -> Result<()> {
    full(router, all, wait::now())?;
    let (drains, left) = ([node.to_owned()], all - u64::from(SERVICES));
    let (before, start) = (plans::of(lab, &drains)?, wait::now());
    lab.kubectl(&["cordon", node])?;
    findings.add(&budgets::BGP_DRAINED_10000, full(router, left, start)?);
    let slowest = plans::slowest(&before, &plans::of(lab, &drains)?, 0.99)?;
    findings.add(&budgets::BGP_DRAIN_PLAN, slowest * 1000.0);
    lab.kubectl(&["uncordon", node])?;
    full(router, all, wait::now()).map(drop)
}
