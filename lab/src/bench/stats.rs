//! Statistics of a run's samples. Pure functions.

use serde::Serialize;

/// Statistics of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Computes the statistics; `None` without samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, *sorted.get(middle)?)
        } else {
            *sorted.get(middle)?
        };
        Some(Self {
            min: *sorted.first()?,
            median,
            p99: percentile(&sorted, 99)?,
            max: *sorted.last()?,
        })
    }
}

/// Returns the nearest-rank percentile: the smallest sample that is at least as large as `percent`
/// percent of all samples. With fewer than 100 samples the 99th percentile is the maximum.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Returns `value` divided by `base`; `None` if the base is zero.
pub fn ratio(value: f64, base: f64) -> Option<f64> {
    (base > 0.0).then(|| value / base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_median_and_nearest_rank_percentile() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let thousand: Vec<f64> = (1..=1000).map(f64::from).collect();
        for (samples, min, median, p99, max) in [
            (&[7.0][..], 7.0, 7.0, 7.0, 7.0),
            (&[3.0, 1.0, 2.0], 1.0, 2.0, 3.0, 3.0),
            (&[4.0, 1.0, 3.0, 2.0], 1.0, 2.5, 4.0, 4.0),
            (&hundred, 1.0, 50.5, 99.0, 100.0),
            (&thousand, 1.0, 500.5, 990.0, 1000.0),
        ] {
            assert_eq!(
                Spread::of(samples),
                Some(Spread { min, median, p99, max }),
                "{} samples",
                samples.len()
            );
        }
    }

    #[test]
    fn no_samples_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_to_zero_is_none() {
        for (value, base, expect) in
            [(36.0, 20.0, Some(1.8)), (0.0, 5.0, Some(0.0)), (1.0, 0.0, None)]
        {
            assert_eq!(ratio(value, base), expect, "{value} / {base}");
        }
    }
}
