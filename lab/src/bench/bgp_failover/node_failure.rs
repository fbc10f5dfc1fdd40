//! Rows of unplanned failures: the node loses power.

use super::setup::{BgpFailoverSetup, SessionParameters};
use crate::bench::report::Findings;
use crate::bench::settle;
use crate::bench::stats::Spread;
use crate::bench::targets::{self, NodeFailureMeasures};
use crate::routers::RouterKind;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Maximum time for which a router may use a failed node: 120 s with graceful restart, and the time
/// to detect the failure.
const USED_MAX: Duration = Duration::from_secs(140);

/// Kinds of router and failure detection methods. Some routers keep the routes for two minutes with
/// graceful restart; one run shows that.
const ROWS: [(RouterKind, SessionParameters, &NodeFailureMeasures); 9] = [
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(100), graceful: false },
        &targets::BGP_DIES_FRR_100,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(300), graceful: false },
        &targets::BGP_DIES_FRR_300,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: None, graceful: false },
        &targets::BGP_DIES_FRR_HOLD,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(100), graceful: false },
        &targets::BGP_DIES_BIRD_100,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(300), graceful: false },
        &targets::BGP_DIES_BIRD_300,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: None, graceful: false },
        &targets::BGP_DIES_BIRD_HOLD,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_DIES_FRR_BOTH,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_DIES_BIRD_BOTH,
    ),
    (
        RouterKind::Gobgp,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_DIES_GOBGP_BOTH,
    ),
];

pub(super) fn run(
    scene: &BgpFailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    for (kind, terms, known) in ROWS {
        let runs = if terms.graceful { 1 } else { runs };
        let (mut unused, mut gaps) = (Vec::new(), Vec::new());
        scene.with_router(kind, terms, |way| {
            (0..runs).try_for_each(|_| {
                let node = way.settle()?;
                let (report, unused_ms) =
                    way.watch(&node, USED_MAX, || scene.lab.power_off(&node))?;
                settle::return_power(scene.lab, &node)?;
                ensure!(
                    !kind.forwards() || report.lost > 0,
                    "no connection was lost, so the node did not fail: {report:?}"
                );
                unused.push(unused_ms);
                gaps.push(report.longest_gap_ms);
                Ok(())
            })
        })?;
        let none = "--runs is at least 1";
        let (times, gap) = (Spread::of(&unused).context(none)?, Spread::of(&gaps).context(none)?);
        findings.add(&known.unused[0], times.median);
        findings.add(&known.unused[1], times.max);
        findings.keep(known.unused[0].id.trim_end_matches(".median"), unused);
        if kind.forwards() {
            findings.add(&known.gap[0], gap.median);
            findings.add(&known.gap[1], gap.max);
            findings.keep(known.gap[0].id.trim_end_matches(".median"), gaps);
        }
    }
    Ok(())
}
