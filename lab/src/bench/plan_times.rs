//! Planning times of the speakers, from their histograms.

use crate::Lab;
use crate::lab::admin;
use anyhow::{Result, ensure};

const PLAN: &str = "ferrolb_speaker_plan_seconds";

/// Upper bound of each bucket in seconds, and the number of plans up to it.
pub(super) type Plans = Vec<(f64, f64)>;

/// Returns the histogram of the plans of these nodes' speakers together.
pub(super) fn of(lab: &Lab, nodes: &[String]) -> Result<Plans> {
    let mut all = Plans::new();
    for node in nodes {
        for (place, (end, count)) in admin::buckets(lab, node, PLAN)?.into_iter().enumerate() {
            match all.get_mut(place) {
                Some(bucket) => bucket.1 += count,
                None => all.push((end, count)),
            }
        }
    }
    Ok(all)
}

/// Returns a quantile of the plans between two readings of a histogram, in seconds. The value is
/// linearly interpolated within its bucket, like in Prometheus' `histogram_quantile`.
pub(super) fn slowest(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> Result<f64> {
    let counts: Vec<(f64, f64)> =
        after.iter().zip(before).map(|(after, before)| (after.0, after.1 - before.1)).collect();
    let total = counts.last().map_or(0.0, |last| last.1);
    ensure!(total > 0.0, "there was no plan");
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
    fn a_quantile_is_on_a_straight_line_within_its_bucket() {
        let before = [(0.001, 10.0), (0.01, 10.0), (f64::INFINITY, 10.0)];
        let after = [(0.001, 60.0), (0.01, 110.0), (f64::INFINITY, 110.0)];
        for (share, expect) in [(0.5, 0.001), (0.75, 0.0055), (0.99, 0.00982)] {
            assert!((slowest(&before, &after, share).unwrap() - expect).abs() < 1e-9, "{share}");
        }
        assert!(slowest(&after, &after, 0.5).is_err());
    }
}
