//! What the runs of one row came to.

use super::scene::Seen;
use crate::bench::budgets::{Known, Outage};
use crate::bench::report::{Findings, Remark};
use crate::bench::stats::Spread;
use crate::traffic::lasting::{self, Fate};
use anyhow::{Context, Result, ensure};

/// What the client saw of one address by one transport: of each run so far the longest gap, in milliseconds, the connections lost, and what
/// became of the one that lasted.
#[derive(Debug, Default)]
struct View {
    gaps: Vec<f64>,
    lost: Vec<f64>,
    fates: Vec<Fate>,
}

/// The runs of a row, in the order in which the client sees: each address in turn, by each transport.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<View>);

impl Runs {
    /// Does a row's runs one after another; an error says which run it was.
    pub(super) fn of(runs: usize, mut one: impl FnMut() -> Result<Vec<Seen>>) -> Result<Self> {
        let mut all = Self::default();
        for number in 1..=runs {
            all.note(&one().with_context(|| format!("run {number} of {runs}"))?);
        }
        Ok(all)
    }

    /// Adds a run.
    pub(super) fn note(&mut self, seen: &[Seen]) {
        self.0.resize_with(seen.len(), View::default);
        for (view, (report, fate)) in self.0.iter_mut().zip(seen) {
            view.gaps.push(report.longest_gap_ms);
            view.lost.push(report.lost as f64);
            view.fates.extend(fate);
        }
    }

    /// Refuses runs in which nobody died: an owner's death costs connections.
    pub(super) fn deadly(self) -> Result<Self> {
        let all = self.0.iter().flat_map(|view| &view.lost).all(|lost| *lost > 0.0);
        ensure!(all, "a run lost no connection, so nobody died: {self:?}");
        Ok(self)
    }

    /// The best of all runs, of each view.
    pub(super) fn best(&self) -> Vec<f64> {
        self.0.iter().filter_map(|view| Some(Spread::of(&view.gaps)?.min)).collect()
    }

    /// Adds the row to the findings.
    pub(super) fn conclude(self, findings: &mut Findings, known: &[Outage]) -> Result<()> {
        ensure!(self.0.len() == known.len(), "{} views for {} rows of the table", self.0.len(), known.len());
        self.0.into_iter().zip(known).try_for_each(|(view, known)| view.conclude(findings, known))
    }
}

impl View {
    fn conclude(self, findings: &mut Findings, known: &Outage) -> Result<()> {
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

/// Adds the median and the largest of the times of a row's runs, in milliseconds.
pub(super) fn conclude_times(findings: &mut Findings, known: &[Known; 2], times: Vec<f64>) -> Result<()> {
    let spread = Spread::of(&times).context("--runs is at least 1")?;
    findings.add(&known[0], spread.median);
    findings.add(&known[1], spread.max);
    findings.keep(&known[0].id.replace(".median", ""), times);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::budgets;
    use crate::traffic::probe::Report;

    fn seen(longest_gap_ms: f64, lost: usize, after_ms: f64) -> Seen {
        (Report { longest_gap_ms, lost, ..Report::default() }, Some(Fate::Reset { after_ms }))
    }

    #[test]
    fn each_family_has_the_median_and_the_worst_of_its_runs_and_keeps_their_samples() {
        let mut runs = Runs::default();
        for (v4, v6) in [((190.0, 18), (90.0, 8)), ((240.0, 23), (140.0, 13)), ((170.0, 16), (70.0, 6))] {
            runs.note(&[seen(v4.0, v4.1, 400.0), seen(v6.0, v6.1, 300.0)]);
        }
        assert_eq!(runs.best(), [170.0, 70.0]);
        let mut findings = Findings::default();
        runs.deadly().unwrap().conclude(&mut findings, &budgets::FAILOVER_LINK).unwrap();
        let values: Vec<_> = findings.measures.iter().map(|measure| (measure.id, measure.value)).collect();
        let expect = [
            ("failover.link.gap.median", 190.0),
            ("failover.link.gap.max", 240.0),
            ("failover.link.lost.max", 23.0),
            ("failover.v6.link.gap.median", 90.0),
            ("failover.v6.link.gap.max", 140.0),
            ("failover.v6.link.lost.max", 13.0),
        ];
        assert_eq!(values, expect);
        assert_eq!(findings.samples["failover.link.gap"], [190.0, 240.0, 170.0]);
        assert_eq!(findings.samples["failover.v6.link.lost"], [8.0, 13.0, 6.0]);
        let said: Vec<_> = findings.remarks.iter().map(|remark| remark.said.as_str()).collect();
        assert_eq!(said, ["3 of 3 reset after 0.40 to 0.40 s", "3 of 3 reset after 0.30 to 0.30 s"]);
    }

    #[test]
    fn runs_in_which_one_family_lost_nothing_are_refused() {
        let mut runs = Runs::default();
        runs.note(&[seen(190.0, 18, 400.0), seen(10.0, 0, 400.0)]);
        assert!(runs.deadly().is_err());
    }

    #[test]
    fn a_view_without_a_row_is_refused() {
        let mut runs = Runs::default();
        runs.note(&[seen(190.0, 18, 400.0)]);
        assert!(runs.conclude(&mut Findings::default(), &budgets::FAILOVER_LINK).is_err());
    }
}
