//! Rows of planned changes, and of crashes under graceful restart: no connection may be lost.
//!
//! The node is cordoned; or its speaker is stopped and restarted; or its gobgpd is killed, or
//! replaced like by its DaemonSet, both with graceful restart.

use super::setup::{BgpFailoverSetup, RouterPath, SessionParameters};
use crate::bench::report::Findings;
use crate::bench::settle::SETTLE_MAX;
use crate::bench::targets::{self, PlannedMeasures};
use crate::cluster::bgp;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::routers::RouterKind;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

const NO_GRACEFUL_RESTART: SessionParameters = SessionParameters { bfd: None, graceful: false };
const GRACEFUL_RESTART: SessionParameters = SessionParameters { bfd: None, graceful: true };
const GRACEFUL_RESTART_AND_BFD: SessionParameters =
    SessionParameters { bfd: Some(100), graceful: true };

/// Time for which gobgpd is down in the check whether a router keeps using the node.
const GOBGPD_DOWNTIME: Duration = Duration::from_secs(2);

/// Function that triggers an event on the node that serves the client, and returns the client's
/// report.
type TriggerEvent = fn(&Lab, &RouterPath<'_>, &str) -> Result<ProbeReport>;

const ROWS: [(SessionParameters, TriggerEvent, &PlannedMeasures); 6] = [
    (NO_GRACEFUL_RESTART, drain_node, &targets::BGP_DRAINED),
    (NO_GRACEFUL_RESTART, restart_speaker, &targets::BGP_SPEAKER_RESTARTED),
    (GRACEFUL_RESTART, crash_gobgpd, &targets::BGP_GOBGPD_CRASHED),
    (GRACEFUL_RESTART, upgrade_gobgpd, &targets::BGP_GOBGPD_UPGRADED),
    (GRACEFUL_RESTART_AND_BFD, crash_gobgpd, &targets::BGP_GOBGPD_CRASHED_BOTH),
    (GRACEFUL_RESTART_AND_BFD, upgrade_gobgpd, &targets::BGP_GOBGPD_UPGRADED_BOTH),
];

pub(super) fn run(
    setup: &BgpFailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    for kind in [RouterKind::Frr, RouterKind::Bird] {
        for (parameters, trigger_event, measures) in ROWS {
            let mut lost = Vec::new();
            setup.with_router(kind, parameters, |path| {
                (0..runs).try_for_each(|_| {
                    let node = path.settle()?;
                    let report = trigger_event(setup.lab, path, &node)?;
                    ensure!(report.sent > 0, "the client sent no request");
                    lost.push(report.lost as f64);
                    Ok(())
                })
            })?;
            let measure = if kind == RouterKind::Frr { &measures[0] } else { &measures[1] };
            findings.add(measure, lost.iter().copied().fold(0.0, f64::max));
            findings.keep_samples(measure.id.trim_end_matches(".max"), lost);
        }
        findings.add(
            &targets::BGP_NODE_STILL_USED_BOTH[usize::from(kind == RouterKind::Bird)],
            is_still_used(setup, kind)?,
        );
    }
    Ok(())
}

/// Kills the gobgpd of a node whose session uses BFD and graceful restart. Returns 1 if the router
/// still uses the node after the BFD detection time, otherwise 0.
fn is_still_used(setup: &BgpFailoverSetup<'_>, kind: RouterKind) -> Result<f64> {
    setup.with_router(kind, GRACEFUL_RESTART_AND_BFD, |path| {
        let node = path.settle()?;
        let gobgpd = bgp::process_name(&node);
        setup.lab.stop(&gobgpd, Signal::KILL)?;
        wait::during(GOBGPD_DOWNTIME, || Ok(()))?;
        let still_used = path.is_used(&node)?;
        setup.lab.restart(&gobgpd)?;
        path.wait_used(&node)?;
        Ok(f64::from(u8::from(still_used)))
    })
}

/// Cordons the node, until the router does not use its de-preferred paths.
fn drain_node(lab: &Lab, path: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let report = path.probe_during(|| {
        lab.kubectl(&["cordon", node])?;
        path.wait_unused(node, SETTLE_MAX)
    });
    lab.kubectl(&["uncordon", node])?;
    report
}

/// Stops the node's speaker like an upgrade does, and restarts it.
fn restart_speaker(lab: &Lab, path: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let speaker = speaker_name(node);
    path.probe_during(|| {
        lab.stop(&speaker, Signal::TERM)?;
        lab.restart(&speaker)?;
        lab.wait_healthy(&speaker, node, ADMIN_PORT, "/readyz")
    })
}

/// Kills the node's gobgpd and restarts it.
fn crash_gobgpd(lab: &Lab, path: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let gobgpd = bgp::process_name(node);
    path.probe_during(|| {
        lab.stop(&gobgpd, Signal::KILL)?;
        lab.restart(&gobgpd)?;
        path.wait_used(node)
    })
}

/// Stops the node's gobgpd like its DaemonSet does, with the speaker's pre-stop hook first, and
/// restarts it.
fn upgrade_gobgpd(lab: &Lab, path: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let gobgpd = bgp::process_name(node);
    path.probe_during(|| {
        let page = bgp::call_pre_stop_hook(lab, node, bgp::STOP_TIMEOUT)?;
        ensure!(page.status == 200, "the speaker rejects the pre-stop request: {}", page.body);
        lab.stop(&gobgpd, Signal::TERM)?;
        lab.restart(&gobgpd)?;
        path.wait_used(node)
    })
}
