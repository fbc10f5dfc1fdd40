//! The metrics of health checks of endpoints. Made once by the main loop, written by the probe driver.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What came of one question to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as it should.
    Passed,
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// It cannot be reached.
    Unreachable,
    /// It answered, by a status of HTTP that is no success.
    Status,
    /// What it said is no HTTP.
    NotHttp,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Passed, Self::Refused, Self::Timeout, Self::Unreachable, Self::Status, Self::NotHttp];

    const fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::NotHttp => "not_http",
        }
    }
}

/// The metrics of health checks of endpoints.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    checks: [Counter; Outcome::ALL.len()],
    /// Endpoints that are checked.
    pub targets: Gauge,
    /// Those of them that fail.
    pub failing: Gauge,
    /// Endpoints that are not checked because there are too many.
    pub over_limit: Gauge,
    /// Endpoints that are not checked because of their addresses.
    pub refused: Gauge,
    /// Endpoints that are checked less often than their Services say.
    pub slowed: Gauge,
    /// Changes of endpoints that the log does not name.
    pub unsaid: Counter,
}

impl ProbeMetrics {
    /// Empty metrics, registered under `registry`'s prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let checks = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let all = Self {
            checks: Outcome::ALL.map(|outcome| checks.get_or_create(&[("outcome", outcome.label())]).clone()),
            targets: Gauge::default(),
            failing: Gauge::default(),
            over_limit: Gauge::default(),
            refused: Gauge::default(),
            slowed: Gauge::default(),
            unsaid: Counter::default(),
        };
        registry.register("health_checks", "Questions to endpoints, by outcome", checks);
        registry.register("health_targets", "Endpoints of this node that are checked", all.targets.clone());
        registry.register("health_targets_failing", "Checked endpoints that fail", all.failing.clone());
        registry.register(
            "health_targets_over_limit",
            "Endpoints that are not checked because there are too many",
            all.over_limit.clone(),
        );
        registry.register(
            "health_targets_refused",
            "Endpoints that are not checked because health checks may not connect to their addresses",
            all.refused.clone(),
        );
        registry.register(
            "health_targets_slowed",
            "Endpoints that are checked less often than their Services say, because these have many",
            all.slowed.clone(),
        );
        registry.register(
            "health_changes_unsaid",
            "Changes of endpoints that the log does not name, because there were too many at once",
            all.unsaid.clone(),
        );
        all
    }

    /// The counter of checks that ended so.
    #[must_use]
    pub const fn checks(&self, outcome: Outcome) -> &Counter {
        &self.checks[outcome as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_own_counter_of_its_name() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = ProbeMetrics::new(&mut registry);
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            metrics.checks(outcome).inc_by(i as u64 + 1);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (i, outcome) in Outcome::ALL.into_iter().enumerate() {
            let line = format!("ferrolb_speaker_health_checks_total{{outcome=\"{}\"}} {}\n", outcome.label(), i + 1);
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
