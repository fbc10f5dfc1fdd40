//! The rows in which nobody was warned: the node loses its power.

use super::scene::{Scene, Terms};
use crate::bench::budgets::{self, Death};
use crate::bench::report::Findings;
use crate::bench::rest;
use crate::bench::stats::Spread;
use crate::routers::Kind;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// How long a router may go on to use a dead node: with graceful restart for 120 s, and as long as it takes to notice.
const USED_MAX: Duration = Duration::from_secs(140);

/// Each kind of router, each way to know. With graceful restart some keep the routes for two minutes: that is shown once.
const ROWS: [(Kind, Terms, &Death); 9] = [
    (Kind::Frr, Terms { bfd: Some(100), graceful: false }, &budgets::BGP_DIES_FRR_100),
    (Kind::Frr, Terms { bfd: Some(300), graceful: false }, &budgets::BGP_DIES_FRR_300),
    (Kind::Frr, Terms { bfd: None, graceful: false }, &budgets::BGP_DIES_FRR_HOLD),
    (Kind::Bird, Terms { bfd: Some(100), graceful: false }, &budgets::BGP_DIES_BIRD_100),
    (Kind::Bird, Terms { bfd: Some(300), graceful: false }, &budgets::BGP_DIES_BIRD_300),
    (Kind::Bird, Terms { bfd: None, graceful: false }, &budgets::BGP_DIES_BIRD_HOLD),
    (Kind::Frr, Terms { bfd: Some(100), graceful: true }, &budgets::BGP_DIES_FRR_BOTH),
    (Kind::Bird, Terms { bfd: Some(100), graceful: true }, &budgets::BGP_DIES_BIRD_BOTH),
    (Kind::Gobgp, Terms { bfd: Some(100), graceful: true }, &budgets::BGP_DIES_GOBGP_BOTH),
];

pub(super) fn run(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    for (kind, terms, known) in ROWS {
        let runs = if terms.graceful { 1 } else { runs };
        let (mut unused, mut gaps) = (Vec::new(), Vec::new());
        scene.by(kind, terms, |way| {
            (0..runs).try_for_each(|_| {
                let node = way.rest()?;
                let (report, unused_ms) = way.watch(&node, USED_MAX, || scene.lab.power_off(&node))?;
                rest::return_power(scene.lab, &node)?;
                ensure!(!kind.forwards() || report.lost > 0, "nothing was lost, so nobody died: {report:?}");
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
