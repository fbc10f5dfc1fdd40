//! Rows of unplanned failures: the node loses power. Its switch port goes down, and all its
//! processes are killed.
//!
//! The results are the time until the router stops using the node, and the client's longest gap.
//! The variants are BFD every 100 ms and every 300 ms with three missed packets and a hold time of
//! 90 s, and a hold time of 3 s alone. With BFD and graceful restart in one session, each kind of
//! router has one run.

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
const NODE_USED_MAX: Duration = Duration::from_secs(140);

/// Rows: kind of router and failure detection methods. With graceful restart some routers keep the
/// routes for two minutes, so these rows have one run only.
const ROWS: [(RouterKind, SessionParameters, &NodeFailureMeasures); 9] = [
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(100), graceful: false },
        &targets::BGP_NODE_FAILURE_FRR_100,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(300), graceful: false },
        &targets::BGP_NODE_FAILURE_FRR_300,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: None, graceful: false },
        &targets::BGP_NODE_FAILURE_FRR_HOLD,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(100), graceful: false },
        &targets::BGP_NODE_FAILURE_BIRD_100,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(300), graceful: false },
        &targets::BGP_NODE_FAILURE_BIRD_300,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: None, graceful: false },
        &targets::BGP_NODE_FAILURE_BIRD_HOLD,
    ),
    (
        RouterKind::Frr,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_NODE_FAILURE_FRR_BOTH,
    ),
    (
        RouterKind::Bird,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_NODE_FAILURE_BIRD_BOTH,
    ),
    (
        RouterKind::Gobgp,
        SessionParameters { bfd: Some(100), graceful: true },
        &targets::BGP_NODE_FAILURE_GOBGP_BOTH,
    ),
];

pub(super) fn run(
    setup: &BgpFailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    for (kind, parameters, measures) in ROWS {
        let runs = if parameters.graceful { 1 } else { runs };
        let (mut unused, mut gaps) = (Vec::new(), Vec::new());
        setup.with_router(kind, parameters, |path| {
            (0..runs).try_for_each(|_| {
                let node = path.settle()?;
                let (report, unused_ms) =
                    path.observe_failure(&node, NODE_USED_MAX, || setup.lab.power_off(&node))?;
                settle::power_on_and_wait(setup.lab, &node)?;
                ensure!(
                    !kind.forwards() || report.lost > 0,
                    "no connection was lost, so the node did not fail: {report:?}"
                );
                unused.push(unused_ms);
                gaps.push(report.longest_gap_ms);
                Ok(())
            })
        })?;
        let no_run = "no run was measured: --runs must be at least 1";
        let (times, gap) =
            (Spread::of(&unused).context(no_run)?, Spread::of(&gaps).context(no_run)?);
        findings.add(&measures.unused[0], times.median);
        findings.add(&measures.unused[1], times.max);
        findings.keep_samples(measures.unused[0].id.trim_end_matches(".median"), unused);
        if kind.forwards() {
            findings.add(&measures.gap[0], gap.median);
            findings.add(&measures.gap[1], gap.max);
            findings.keep_samples(measures.gap[0].id.trim_end_matches(".median"), gaps);
        }
    }
    Ok(())
}
