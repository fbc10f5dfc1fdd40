//! Rows of planned changes, and of crashes under graceful restart: none may cost a connection.

use super::setup::{BgpFailoverSetup, RouterPath, SessionParameters};
use crate::bench::report::Findings;
use crate::bench::settle::REST_MAX;
use crate::bench::targets::{self, PlannedMeasures};
use crate::cluster::bgp;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::routers::RouterKind;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

const PLAIN: SessionParameters = SessionParameters { bfd: None, graceful: false };
const GRACEFUL: SessionParameters = SessionParameters { bfd: None, graceful: true };
const BOTH: SessionParameters = SessionParameters { bfd: Some(100), graceful: true };

/// Downtime of gobgpd in the check of whether a router waits for it.
const AWAY: Duration = Duration::from_secs(2);

/// One event on the node that serves the client.
type Event = fn(&Lab, &RouterPath<'_>, &str) -> Result<ProbeReport>;

const ROWS: [(SessionParameters, Event, &PlannedMeasures); 6] = [
    (PLAIN, drained, &targets::BGP_DRAINED),
    (PLAIN, speaker_restarted, &targets::BGP_SPEAKER_RESTARTED),
    (GRACEFUL, gobgpd_crashed, &targets::BGP_GOBGPD_CRASHED),
    (GRACEFUL, gobgpd_upgraded, &targets::BGP_GOBGPD_UPGRADED),
    (BOTH, gobgpd_crashed, &targets::BGP_GOBGPD_CRASHED_BOTH),
    (BOTH, gobgpd_upgraded, &targets::BGP_GOBGPD_UPGRADED_BOTH),
];

pub(super) fn run(
    scene: &BgpFailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    for kind in [RouterKind::Frr, RouterKind::Bird] {
        for (terms, event, known) in ROWS {
            let mut lost = Vec::new();
            scene.with_router(kind, terms, |way| {
                (0..runs).try_for_each(|_| {
                    let node = way.settle()?;
                    let report = event(scene.lab, way, &node)?;
                    ensure!(report.sent > 0, "the client sent no request");
                    lost.push(report.lost as f64);
                    Ok(())
                })
            })?;
            let known = if kind == RouterKind::Frr { &known[0] } else { &known[1] };
            findings.add(known, lost.iter().copied().fold(0.0, f64::max));
            findings.keep(known.id.trim_end_matches(".max"), lost);
        }
        findings.add(
            &targets::BGP_KEPT_BOTH[usize::from(kind == RouterKind::Bird)],
            keeps_using(scene, kind)?,
        );
    }
    Ok(())
}

/// Returns 1 if the router still uses a node whose gobgpd was killed, after more than the BFD
/// detection time, although the session uses BFD; otherwise 0.
fn keeps_using(scene: &BgpFailoverSetup<'_>, kind: RouterKind) -> Result<f64> {
    scene.with_router(kind, BOTH, |way| {
        let node = way.settle()?;
        let gobgpd = bgp::process_name(&node);
        scene.lab.stop(&gobgpd, Signal::KILL)?;
        wait::during(AWAY, || Ok(()))?;
        let kept = way.is_used(&node)?;
        scene.lab.restart(&gobgpd)?;
        way.wait_used(&node)?;
        Ok(f64::from(u8::from(kept)))
    })
}

/// Cordons the node. The node is de-preferred for `--drain-delay`; after that the router has no
/// path by it.
fn drained(lab: &Lab, way: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let seen = way.during(|| {
        lab.kubectl(&["cordon", node])?;
        way.wait_unused(node, REST_MAX)?;
        way.wait_withdrawn(node)
    });
    lab.kubectl(&["uncordon", node])?;
    seen
}

/// Stops the node's speaker like an upgrade does, and restarts it.
fn speaker_restarted(lab: &Lab, way: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let speaker = speaker_name(node);
    way.during(|| {
        lab.stop(&speaker, Signal::TERM)?;
        lab.restart(&speaker)?;
        lab.wait_healthy(&speaker, node, ADMIN_PORT, "/readyz")
    })
}

/// Kills the node's gobgpd and restarts it.
fn gobgpd_crashed(lab: &Lab, way: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let gobgpd = bgp::process_name(node);
    way.during(|| {
        lab.stop(&gobgpd, Signal::KILL)?;
        lab.restart(&gobgpd)?;
        way.wait_used(node)
    })
}

/// Stops the node's gobgpd like its DaemonSet does, with the speaker's pre-stop hook first, and
/// restarts it.
fn gobgpd_upgraded(lab: &Lab, way: &RouterPath<'_>, node: &str) -> Result<ProbeReport> {
    let gobgpd = bgp::process_name(node);
    way.during(|| {
        let page = bgp::before_stop(lab, node, bgp::STOP_TIMEOUT)?;
        ensure!(page.status == 200, "the speaker rejects the stop: {}", page.body);
        lab.stop(&gobgpd, Signal::TERM)?;
        lab.restart(&gobgpd)?;
        way.wait_used(node)
    })
}
