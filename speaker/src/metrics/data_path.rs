//! The metrics of the node's data path. Made by the main loop, kept by the driver that asks kube-proxy.

use ferrolb_proto::health::data_path::Outcome;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct DataPathMetrics {
    /// Whether this node does not tell the others to announce first.
    pub healthy: Gauge,
    checks: Family<[(&'static str, &'static str); 1], Counter>,
}

impl DataPathMetrics {
    /// Metrics at zero, registered under `registry`'s prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register(
            "data_path_healthy",
            "Whether this node's data path works, or is not judged",
            all.healthy.clone(),
        );
        registry.register("data_path_checks", "Rounds of questions to kube-proxy, by outcome", all.checks.clone());
        all
    }

    /// Counts a round.
    pub fn count(&self, outcome: Outcome) {
        let label = match outcome {
            Outcome::Good => "good",
            Outcome::Bad => "bad",
            Outcome::Starting => "starting",
            Outcome::Refused => "refused",
        };
        self.checks.get_or_create(&[("outcome", label)]).inc();
    }
}
