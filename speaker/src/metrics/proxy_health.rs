//! Metrics of kube-proxy's health on this node. The main loop creates them, and the driver that
//! checks kube-proxy owns them.

use ferrolb_runtime::metrics::registered;
use ferrolb_speaker_core::health::kube_proxy::RoundOutcome;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of kube-proxy's health.
#[derive(Clone, Debug)]
pub struct ProxyHealthMetrics {
    /// 1 if kube-proxy of this node is healthy or is not checked. Otherwise 0, and this node ranks
    /// behind others.
    pub healthy: Gauge,
    checks: Family<[(&'static str, &'static str); 1], Counter>,
}

impl ProxyHealthMetrics {
    /// Creates metrics at zero and registers them in `registry`, under its prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            healthy: registered(
                registry,
                "data_path_healthy",
                "1 if kube-proxy of this node is healthy, or is not checked",
            ),
            checks: registered(
                registry,
                "data_path_checks",
                "Health checks of kube-proxy, by outcome",
            ),
        }
    }

    /// Counts one round of health checks with this outcome.
    pub fn count(&self, outcome: RoundOutcome) {
        let label = match outcome {
            RoundOutcome::Good => "good",
            RoundOutcome::Bad => "bad",
            RoundOutcome::Starting => "starting",
            RoundOutcome::Refused => "refused",
            RoundOutcome::Timeout => "timeout",
        };
        self.checks.get_or_create(&[("outcome", label)]).inc();
    }
}
