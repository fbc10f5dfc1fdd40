//! Results of the runs of one row.

use super::setup::ProbeResult;
use crate::bench::report::{Findings, Remark};
use crate::bench::stats::Spread;
use crate::bench::targets::{MeasureSpec, OutageMeasures};
use crate::traffic::long_lived::{self, ConnectionOutcome};
use anyhow::{Context, Result, ensure};

/// Results of one address over one transport, one value per run: the longest gap in milliseconds,
/// the lost connections, and the outcome of the long-lived connection.
#[derive(Debug, Default)]
struct ProbeResults {
    gaps: Vec<f64>,
    lost: Vec<f64>,
    outcomes: Vec<ConnectionOutcome>,
}

/// Results of a row, one entry per probe of the client. The order is by address, then by transport.
#[derive(Debug, Default)]
pub(super) struct RowResults(Vec<ProbeResults>);

impl RowResults {
    /// Executes a row's runs one after another; an error names the run.
    pub(super) fn of(
        runs: usize,
        mut run: impl FnMut() -> Result<Vec<ProbeResult>>,
    ) -> Result<Self> {
        let mut all = Self::default();
        for number in 1..=runs {
            all.add_run(&run().with_context(|| format!("run {number} of {runs}"))?);
        }
        Ok(all)
    }

    /// Adds a run.
    pub(super) fn add_run(&mut self, results: &[ProbeResult]) {
        self.0.resize_with(results.len(), ProbeResults::default);
        for (probe, (report, outcome)) in self.0.iter_mut().zip(results) {
            probe.gaps.push(report.longest_gap_ms);
            probe.lost.push(report.lost as f64);
            probe.outcomes.extend(outcome);
        }
    }

    /// Rejects runs without lost connections: the failure of an owner always costs connections.
    pub(super) fn require_losses(self) -> Result<Self> {
        let all = self.0.iter().flat_map(|probe| &probe.lost).all(|lost| *lost > 0.0);
        ensure!(all, "a run lost no connection, so the owner did not fail: {self:?}");
        Ok(self)
    }

    /// Returns the best run of each address and transport.
    pub(super) fn best(&self) -> Vec<f64> {
        self.0.iter().filter_map(|probe| Some(Spread::of(&probe.gaps)?.min)).collect()
    }

    /// Adds the row to the findings.
    pub(super) fn conclude(
        self,
        findings: &mut Findings,
        measures: &[OutageMeasures],
    ) -> Result<()> {
        ensure!(
            self.0.len() == measures.len(),
            "{} probe results for {} rows of the table",
            self.0.len(),
            measures.len()
        );
        self.0
            .into_iter()
            .zip(measures)
            .try_for_each(|(probe, measures)| probe.conclude(findings, measures))
    }
}

impl ProbeResults {
    fn conclude(self, findings: &mut Findings, measures: &OutageMeasures) -> Result<()> {
        let no_run = "no run was measured: --runs must be at least 1";
        let (gaps, lost) =
            (Spread::of(&self.gaps).context(no_run)?, Spread::of(&self.lost).context(no_run)?);
        findings.add(&measures.median, gaps.median);
        findings.add(&measures.worst, gaps.max);
        findings.add(&measures.lost, lost.max);
        if !self.outcomes.is_empty() {
            let (id, what) = measures.outcome;
            findings.remarks.push(Remark { id, what, text: long_lived::describe(&self.outcomes) });
        }
        findings.keep_samples(measures.median.id.trim_end_matches(".median"), self.gaps);
        findings.keep_samples(measures.lost.id.trim_end_matches(".max"), self.lost);
        Ok(())
    }
}

/// Adds the median and the maximum of the times of a row's runs, in milliseconds.
pub(super) fn conclude_times(
    findings: &mut Findings,
    measures: &[MeasureSpec; 2],
    times: Vec<f64>,
) -> Result<()> {
    let spread = Spread::of(&times).context("no run was measured: --runs must be at least 1")?;
    findings.add(&measures[0], spread.median);
    findings.add(&measures[1], spread.max);
    findings.keep_samples(&measures[0].id.replace(".median", ""), times);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets;
    use crate::traffic::probe::ProbeReport;

    fn probe_result(longest_gap_ms: f64, lost: usize, after_ms: f64) -> ProbeResult {
        (
            ProbeReport { longest_gap_ms, lost, ..ProbeReport::default() },
            Some(ConnectionOutcome::Reset { after_ms }),
        )
    }

    #[test]
    fn each_family_has_median_maximum_and_samples() {
        let mut runs = RowResults::default();
        for (v4, v6) in
            [((190.0, 18), (90.0, 8)), ((240.0, 23), (140.0, 13)), ((170.0, 16), (70.0, 6))]
        {
            runs.add_run(&[probe_result(v4.0, v4.1, 400.0), probe_result(v6.0, v6.1, 300.0)]);
        }
        assert_eq!(runs.best(), [170.0, 70.0]);
        let mut findings = Findings::default();
        runs.require_losses()
            .unwrap()
            .conclude(&mut findings, &targets::FAILOVER_INTERFACE_DOWN)
            .unwrap();
        let values: Vec<_> =
            findings.measures.iter().map(|measure| (measure.id, measure.value)).collect();
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
        let texts: Vec<_> = findings.remarks.iter().map(|remark| remark.text.as_str()).collect();
        assert_eq!(
            texts,
            ["3 of 3 reset after 0.40 to 0.40 s", "3 of 3 reset after 0.30 to 0.30 s"]
        );
    }

    #[test]
    fn runs_without_losses_in_one_family_are_rejected() {
        let mut runs = RowResults::default();
        runs.add_run(&[probe_result(190.0, 18, 400.0), probe_result(10.0, 0, 400.0)]);
        assert!(runs.require_losses().is_err());
    }

    #[test]
    fn a_probe_without_a_row_is_rejected() {
        let mut runs = RowResults::default();
        runs.add_run(&[probe_result(190.0, 18, 400.0)]);
        assert!(
            runs.conclude(&mut Findings::default(), &targets::FAILOVER_INTERFACE_DOWN).is_err()
        );
    }
}
