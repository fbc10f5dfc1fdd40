//! What the runs of one row came to.

use super::scene::Seen;
use crate::bench::budgets::Outage;
use crate::bench::report::{Findings, Remark};
use crate::bench::stats::Spread;
use crate::traffic::lasting::{self, Fate};
use crate::traffic::probe::Report;
use anyhow::{Context, Result, ensure};

/// Of each run so far the longest gap, in milliseconds, the connections lost, and what became of the one that lasted.
#[derive(Debug, Default)]
pub(super) struct Runs {
    gaps: Vec<f64>,
    lost: Vec<f64>,
    fates: Vec<Fate>,
}

impl Runs {
    /// Does a row's runs one after another; an error says which run it was.
    pub(super) fn of(runs: usize, mut one: impl FnMut() -> Result<Seen>) -> Result<Self> {
        let mut all = Self::default();
        for number in 1..=runs {
            all.note(&one().with_context(|| format!("run {number} of {runs}"))?)?;
        }
        Ok(all)
    }

    /// Adds a run.
    pub(super) fn note(&mut self, seen: &Seen) -> Result<()> {
        self.add(seen.reports.first().context("nothing was probed")?, Some(seen.fate));
        Ok(())
    }

    /// Adds what was probed in a run; the connection that lasted belongs to one row only.
    pub(super) fn add(&mut self, report: &Report, fate: Option<Fate>) {
        self.gaps.push(report.longest_gap_ms);
        self.lost.push(report.lost as f64);
        self.fates.extend(fate);
    }

    /// Refuses runs in which nobody died: an owner's death costs connections.
    pub(super) fn deadly(self) -> Result<Self> {
        ensure!(self.lost.iter().all(|lost| *lost > 0.0), "a run lost no connection, so nobody died: {self:?}");
        Ok(self)
    }

    /// The best of all runs.
    pub(super) fn best(&self) -> Option<f64> {
        Spread::of(&self.gaps).map(|spread| spread.min)
    }

    /// Adds the row to the findings.
    pub(super) fn conclude(self, findings: &mut Findings, known: &Outage) -> Result<()> {
        let none = "--runs is at least 1";
        let (gaps, lost) = (Spread::of(&self.gaps).context(none)?, Spread::of(&self.lost).context(none)?);
        findings.add(&known.median, gaps.median);
        findings.add(&known.worst, gaps.max);
        findings.add(&known.lost, lost.max);
        if !self.fates.is_empty() {
            let (id, what) = known.fate;
            findings.remarks.push(Remark { id, what, said: lasting::spoken(&self.fates) });
        }
        findings.keep(known.median.id.trim_end_matches(".median"), self.gaps);
        findings.keep(known.lost.id.trim_end_matches(".max"), self.lost);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::budgets;

    #[test]
    fn a_row_has_the_median_and_the_worst_of_its_runs_and_keeps_their_samples() {
        let mut runs = Runs::default();
        for (longest_gap_ms, lost) in [(190.0, 18), (240.0, 23), (170.0, 16)] {
            runs.add(&Report { longest_gap_ms, lost, ..Report::default() }, Some(Fate::Reset { after_ms: 400.0 }));
        }
        let mut findings = Findings::default();
        runs.deadly().unwrap().conclude(&mut findings, &budgets::FAILOVER_LINK).unwrap();
        let values: Vec<_> = findings.measures.iter().map(|measure| (measure.id, measure.value)).collect();
        let expect =
            [("failover.link.gap.median", 190.0), ("failover.link.gap.max", 240.0), ("failover.link.lost.max", 23.0)];
        assert_eq!(values, expect);
        assert_eq!(findings.samples["failover.link.gap"], [190.0, 240.0, 170.0]);
        assert_eq!(findings.remarks[0].said, "3 of 3 reset after 0.40 to 0.40 s");
    }

    #[test]
    fn runs_in_which_nobody_died_are_refused() {
        let mut runs = Runs::default();
        runs.add(&Report::default(), Some(Fate::Survived { silence_ms: 20.0 }));
        assert!(runs.deadly().is_err());
    }
}
