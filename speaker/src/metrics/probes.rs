//! Metrics of the endpoints' health checks. The main loop creates them once, and the probe driver
//! updates them.

use ferrolb_runtime::metrics::registered;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Result of one health check of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The endpoint passed the check.
    Passed,
    /// The endpoint refused the connection.
    Refused,
    /// The endpoint did not reply before the timeout.
    Timeout,
    /// The endpoint is unreachable.
    Unreachable,
    /// The HTTP status of the reply is not a success.
    Status,
    /// The reply is not HTTP, or the path of the check is not valid in a request.
    NotHttp,
}

impl CheckOutcome {
    const ALL: [Self; 6] = [
        Self::Passed,
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::Status,
        Self::NotHttp,
    ];

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

/// Metrics of the endpoints' health checks.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    checks: [Counter; CheckOutcome::ALL.len()],
    /// Number of endpoints that are checked.
    pub targets: Gauge,
    /// Number of checked endpoints that fail.
    pub failing: Gauge,
    /// Number of endpoints that are not checked because this node has too many.
    pub over_limit: Gauge,
    /// Number of endpoints that are not checked because health checks may not connect to their
    /// addresses.
    pub disallowed: Gauge,
    /// Number of endpoints that are checked less often than their Services request.
    pub slowed: Gauge,
    /// Number of endpoints' health changes that were not logged, because too many happened at once.
    pub unlogged: Counter,
}

impl ProbeMetrics {
    /// Creates metrics at zero and registers them in `registry`, under its prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let checks: Family<[(&'static str, &'static str); 1], Counter> =
            registered(registry, "health_checks", "Health checks of endpoints, by outcome");
        Self {
            checks: CheckOutcome::ALL
                .map(|outcome| checks.get_or_create(&[("outcome", outcome.label())]).clone()),
            targets: registered(
                registry,
                "health_targets",
                "Endpoints of this node with health checks",
            ),
            failing: registered(registry, "health_targets_failing", "Checked endpoints that fail"),
            over_limit: registered(
                registry,
                "health_targets_over_limit",
                "Endpoints that are not checked because there are too many",
            ),
            disallowed: registered(
                registry,
                "health_targets_refused",
                "Endpoints that are not checked because health checks may not connect to their addresses",
            ),
            slowed: registered(
                registry,
                "health_targets_slowed",
                "Endpoints that are checked less often than their Services request, because these Services have many endpoints",
            ),
            unlogged: registered(
                registry,
                "health_changes_unsaid",
                "Health changes of endpoints that were not logged, because there were too many at once",
            ),
        }
    }

    /// Returns the counter of checks with this result.
    #[must_use]
    pub const fn checks(&self, outcome: CheckOutcome) -> &Counter {
        &self.checks[outcome as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_counter_with_its_label() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = ProbeMetrics::new(&mut registry);
        for (i, outcome) in CheckOutcome::ALL.into_iter().enumerate() {
            metrics.checks(outcome).inc_by(i as u64 + 1);
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for (i, outcome) in CheckOutcome::ALL.into_iter().enumerate() {
            let line = format!(
                "ferrolb_speaker_health_checks_total{{outcome=\"{}\"}} {}\n",
                outcome.label(),
                i + 1
            );
            assert!(text.contains(&line), "{line}{text}");
        }
    }
}
