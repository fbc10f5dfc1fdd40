//! The rows of what an operator does, or a program's crash where graceful restart is on: nothing of it may cost a connection.

use super::scene::{Scene, Terms, Way};
use crate::bench::budgets::{self, Planned};
use crate::bench::report::Findings;
use crate::bench::rest::REST_MAX;
use crate::cluster::bgp;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::routers::Kind;
use crate::traffic::probe::Report;
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use std::time::Duration;

const PLAIN: Terms = Terms { bfd: None, graceful: false };
const GRACEFUL: Terms = Terms { bfd: None, graceful: true };
const BOTH: Terms = Terms { bfd: Some(100), graceful: true };

/// How long gobgpd is away where it is looked whether a router waits for it.
const AWAY: Duration = Duration::from_secs(2);

/// One thing that is done to the node by which the client is served.
type Event = fn(&Lab, &Way<'_>, &str) -> Result<Report>;

const ROWS: [(Terms, Event, &Planned); 6] = [
    (PLAIN, drained, &budgets::BGP_DRAINED),
    (PLAIN, speaker_restarted, &budgets::BGP_SPEAKER_RESTARTED),
    (GRACEFUL, gobgpd_crashed, &budgets::BGP_GOBGPD_CRASHED),
    (GRACEFUL, gobgpd_upgraded, &budgets::BGP_GOBGPD_UPGRADED),
    (BOTH, gobgpd_crashed, &budgets::BGP_GOBGPD_CRASHED_BOTH),
    (BOTH, gobgpd_upgraded, &budgets::BGP_GOBGPD_UPGRADED_BOTH),
];

pub(super) fn run(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    for kind in [Kind::Frr, Kind::Bird] {
        for (terms, event, known) in ROWS {
            let mut lost = Vec::new();
            scene.by(kind, terms, |way| {
                (0..runs).try_for_each(|_| {
                    let node = way.rest()?;
                    let report = event(scene.lab, way, &node)?;
                    ensure!(report.sent > 0, "nobody connected");
                    lost.push(report.lost as f64);
                    Ok(())
                })
            })?;
            let known = if kind == Kind::Frr { &known[0] } else { &known[1] };
            findings.add(known, lost.iter().copied().fold(0.0, f64::max));
            findings.keep(known.id.trim_end_matches(".max"), lost);
        }
        findings.add(&budgets::BGP_KEPT_BOTH[usize::from(kind == Kind::Bird)], kept(scene, kind)?);
    }
    Ok(())
}

/// 1 where a router goes on to use a node whose gobgpd was killed, for longer than BFD takes, though that has a say; or 0.
fn kept(scene: &Scene<'_>, kind: Kind) -> Result<f64> {
    scene.by(kind, BOTH, |way| {
        let node = way.rest()?;
        let gobgpd = bgp::process_name(&node);
        scene.lab.stop(&gobgpd, Signal::KILL)?;
        wait::during(AWAY, || Ok(()))?;
        let kept = way.is_used(&node)?;
        scene.lab.restart(&gobgpd)?;
        way.wait_told(&node)?;
        Ok(f64::from(u8::from(kept)))
    })
}

/// The node is cordoned: it is the last resort for as long as `--drain-delay` says, and then the router has no path by it.
fn drained(lab: &Lab, way: &Way<'_>, node: &str) -> Result<Report> {
    let seen = way.during(|| {
        lab.kubectl(&["cordon", node])?;
        way.wait_unused(node, REST_MAX)?;
        way.wait_withdrawn(node)
    });
    lab.kubectl(&["uncordon", node])?;
    seen
}

/// Its speaker is told to stop, as by an upgrade, and started again.
fn speaker_restarted(lab: &Lab, way: &Way<'_>, node: &str) -> Result<Report> {
    let speaker = speaker_name(node);
    way.during(|| {
        lab.stop(&speaker, Signal::TERM)?;
        lab.restart(&speaker)?;
        lab.wait_healthy(&speaker, node, ADMIN_PORT, "/readyz")
    })
}

/// Its gobgpd is killed, and started again.
fn gobgpd_crashed(lab: &Lab, way: &Way<'_>, node: &str) -> Result<Report> {
    let gobgpd = bgp::process_name(node);
    way.during(|| {
        lab.stop(&gobgpd, Signal::KILL)?;
        lab.restart(&gobgpd)?;
        way.wait_told(node)
    })
}

/// Its gobgpd is stopped as its DaemonSet has it, by the speaker first, and started again.
fn gobgpd_upgraded(lab: &Lab, way: &Way<'_>, node: &str) -> Result<Report> {
    let gobgpd = bgp::process_name(node);
    way.during(|| {
        let page = bgp::before_stop(lab, node, bgp::GRACE)?;
        ensure!(page.status == 200, "the speaker refuses: {}", page.body);
        lab.stop(&gobgpd, Signal::TERM)?;
        lab.restart(&gobgpd)?;
        way.wait_told(node)
    })
}
