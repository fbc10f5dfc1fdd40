//! Planning times of the speakers, from their histograms.

use crate::Lab;
use crate::lab::admin;
use anyhow::{Result, ensure};

const PLAN_METRIC: &str = "ferrolb_speaker_plan_seconds";

/// Histogram of planning times: upper bound of each bucket in seconds, and number of plans up to
/// the bound.
pub(super) type PlanHistogram = Vec<(f64, f64)>;

/// Returns the sum of the planning time histograms of the speakers of `nodes`.
pub(super) fn histogram(lab: &Lab, nodes: &[String]) -> Result<PlanHistogram> {
    let mut all = PlanHistogram::new();
    for node in nodes {
        for (index, (end, count)) in admin::buckets(lab, node, PLAN_METRIC)?.into_iter().enumerate()
        {
            match all.get_mut(index) {
                Some(bucket) => bucket.1 += count,
                None => all.push((end, count)),
            }
        }
    }
    Ok(all)
}

/// Returns a quantile of the planning times between two readings of a histogram, in seconds. It is
/// linearly interpolated within its bucket, like in Prometheus' `histogram_quantile`.
pub(super) fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> Result<f64> {
    let counts: Vec<(f64, f64)> =
        after.iter().zip(before).map(|(after, before)| (after.0, after.1 - before.1)).collect();
    let total = counts.last().map_or(0.0, |last| last.1);
    ensure!(total > 0.0, "the speakers computed no plan between the two readings");
    let (mut start, mut below) = (0.0, 0.0);
    for (end, count) in counts {
        if count >= share * total {
            let part = (share * total - below) / (count - below);
            return Ok(if end.is_finite() { start + (end - start) * part } else { start });
        }
        (start, below) = (end, count);
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let before = [(0.001, 10.0), (0.01, 10.0), (f64::INFINITY, 10.0)];
        let after = [(0.001, 60.0), (0.01, 110.0), (f64::INFINITY, 110.0)];
        for (share, expect) in [(0.5, 0.001), (0.75, 0.0055), (0.99, 0.00982)] {
            assert!((quantile(&before, &after, share).unwrap() - expect).abs() < 1e-9, "{share}");
        }
        assert!(quantile(&after, &after, 0.5).is_err());
    }
}
