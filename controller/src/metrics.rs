//! Prometheus metrics of the controller. The main loop and the drivers set them, and the admin
//! thread reads them.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ferrolb_controller_core::desired::MetricValues;
use ferrolb_runtime::metrics::{registered, with_metric};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of a per-pool series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// Labels of a per-reason series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// One number per pool. The numbers are floats, because counts of IPv6 addresses exceed every
/// integer type of Prometheus.
type PerPool = Family<PoolLabels, Gauge<f64, AtomicU64>>;

/// One number per condition reason.
type PerReason = Family<ReasonLabels, Gauge>;

/// Names and help texts of the per-pool series `ferrolb_allocator_…`, which have MetalLB's names
/// and meanings: the total and the assigned addresses, for both families together and for each
/// family.
const POOL_SERIES: [(&str, &str, &str, &str); 3] = [
    (
        "addresses_total",
        "Total assignable addresses of a pool",
        "addresses_in_use_total",
        "Assigned addresses of a pool; a shared address counts once",
    ),
    (
        "ipv4_addresses_total",
        "Total assignable IPv4 addresses of a pool",
        "ipv4_addresses_in_use_total",
        "Assigned IPv4 addresses of a pool",
    ),
    (
        "ipv6_addresses_total",
        "Total assignable IPv6 addresses of a pool",
        "ipv6_addresses_in_use_total",
        "Assigned IPv6 addresses of a pool",
    ),
];

/// All metrics of the controller: `ferrolb_controller_…`, and `ferrolb_allocator_…` for pools.
#[derive(Debug)]
pub struct Metrics {
    leader: Gauge,
    /// Total and assigned addresses, in the order of [`POOL_SERIES`].
    allocator: [(PerPool, PerPool); 3],
    services_allocated: PerPool,
    services: PerReason,
    announced: PerReason,
    allocation_seconds: Histogram,
    /// Values of the latest update, by which the next update finds the series of removed pools.
    latest: Mutex<MetricValues>,
    /// Number of status writes that were sent.
    pub writes: Counter,
    /// Number of status writes that the API server rejected or did not respond to.
    pub write_errors: Counter,
    failed_nodes: Gauge,
    /// Number of times that the pods of a failed node were marked.
    pub node_failures: Counter,
    /// Number of times that too many nodes were silent at the same time.
    pub too_many_silent: Counter,
    /// Number of pods that were marked as not Ready, because their node is silent.
    pub pods_marked: Counter,
    /// Number of marked pods that the controller has restored.
    pub pods_restored: Counter,
    /// Number of Kubernetes Events that were not sent: the object had too many, the queue was
    /// full, or the API server rejected them.
    pub notices_dropped: Counter,
}

impl Metrics {
    /// Creates the metrics and registers them in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let of_pools = registry.sub_registry_with_prefix("allocator");
        let allocator = POOL_SERIES.map(|(total, total_help, used, used_help)| {
            (registered(of_pools, total, total_help), registered(of_pools, used, used_help))
        });
        let services_allocated =
            registered(of_pools, "services_allocated_total", "Services with addresses of a pool");
        Self::with_pools(allocator, services_allocated, registry)
    }

    fn with_pools(
        allocator: [(PerPool, PerPool); 3],
        services_allocated: PerPool,
        registry: &mut Registry,
    ) -> Self {
        let own = registry.sub_registry_with_prefix("controller");
        Self {
            allocator,
            services_allocated,
            latest: Mutex::default(),
            leader: registered(own, "leader", "1 if this replica is the leader"),
            services: registered(
                own,
                "services",
                "Services of FerroLB by the reason of their condition AddressAssigned; NotWritten: the API server rejects the status",
            ),
            announced: registered(
                own,
                "announced",
                "Services of FerroLB by the reason of their condition Announced",
            ),
            allocation_seconds: with_metric(
                own,
                "allocation_seconds",
                "Time from the assignment of a Service's first address to its status in the API server",
                // The buckets range from 1 ms to 16 s.
                Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            ),
            writes: registered(own, "writes", "Status updates sent to the API server"),
            write_errors: registered(
                own,
                "write_errors",
                "Status updates that the API server rejected or did not respond to",
            ),
            notices_dropped: registered(
                own,
                "notices_dropped",
                "Kubernetes events about Services and Nodes that were dropped or rejected",
            ),
            failed_nodes: registered(
                own,
                "failed_nodes",
                "Failed nodes whose pods are marked as not Ready at present",
            ),
            node_failures: registered(
                own,
                "node_failures",
                "Times that the pods of a failed node were marked as not Ready",
            ),
            too_many_silent: registered(
                own,
                "node_failures_ignored",
                "Times that too many nodes were silent at once, so that no pods were marked",
            ),
            pods_marked: registered(
                own,
                "pods_marked",
                "Pods marked as not Ready, because their node failed",
            ),
            pods_restored: registered(
                own,
                "pods_restored",
                "Marked pods that the controller restored, because their kubelet did not",
            ),
        }
    }

    /// Records how long each Service waited from the assignment of its first address until its
    /// status was written.
    pub fn record_latencies(&self, latencies: Vec<Duration>) {
        latencies.iter().for_each(|latency| self.allocation_seconds.observe(latency.as_secs_f64()));
    }

    /// Replaces all exported values by `values`, and removes the series of pools that no longer
    /// exist.
    pub fn update(&self, values: MetricValues) {
        let mut exported = self.latest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *exported == values {
            return;
        }
        self.leader.set(i64::from(values.leading));
        self.failed_nodes.set(values.failed_nodes);
        let series = || {
            let each = self.allocator.iter().flat_map(|(total, used)| [total, used]);
            each.chain([&self.services_allocated])
        };
        for removed in
            exported.pools.iter().filter(|old| !values.pools.iter().any(|new| new.name == old.name))
        {
            let labels = PoolLabels { pool: removed.name.to_string() };
            for series in series() {
                series.remove(&labels);
            }
        }
        for pool in &values.pools {
            let labels = PoolLabels { pool: pool.name.to_string() };
            #[expect(
                clippy::cast_precision_loss,
                reason = "Prometheus has floating point numbers only"
            )]
            let [v4, v6] = pool.usage.map(|usage| (usage.total as f64, usage.used as f64));
            for ((total, used), numbers) in
                self.allocator.iter().zip([(v4.0 + v6.0, v4.1 + v6.1), v4, v6])
            {
                total.get_or_create(&labels).set(numbers.0);
                used.get_or_create(&labels).set(numbers.1);
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "Prometheus has floating point numbers only"
            )]
            self.services_allocated.get_or_create(&labels).set(pool.services as f64);
        }
        update_reasons(&self.services, &exported.services, &values.services);
        update_reasons(&self.announced, &exported.announced, &values.announced);
        *exported = values;
    }
}

/// Exports the number of Services for each reason in `now`. A reason that is only in `before` gets
/// the number 0.
fn update_reasons(series: &PerReason, before: &[(&'static str, i64)], now: &[(&'static str, i64)]) {
    let removed = before.iter().map(|(reason, _)| (*reason, 0));
    for (reason, count) in removed.chain(now.iter().copied()) {
        series.get_or_create(&ReasonLabels { reason }).set(count);
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_controller_core::desired::{PoolMetricValues, Usage};

    use super::*;

    #[test]
    fn metrics_of_a_deleted_pool_are_removed() {
        let mut registry = Registry::with_prefix("ferrolb");
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let usage = [Usage { total: 16, used: 3 }, Usage { total: 1 << 64, used: 1 }];
        let pool = PoolMetricValues { name: "lan".into(), usage, services: 4 };
        let (services, announced) =
            (vec![("Assigned", 3)], vec![("NoEndpoints", 2), ("Announced", 1)]);
        metrics.update(MetricValues {
            leading: true,
            pools: vec![pool],
            services,
            announced,
            failed_nodes: 1,
        });
        metrics.record_latencies(vec![Duration::from_millis(3)]);
        let exported = text();
        for line in [
            "ferrolb_controller_leader 1",
            "ferrolb_allocator_addresses_in_use_total{pool=\"lan\"} 4.0",
            "ferrolb_allocator_ipv4_addresses_total{pool=\"lan\"} 16.0",
            "ferrolb_allocator_ipv4_addresses_in_use_total{pool=\"lan\"} 3.0",
            "ferrolb_allocator_ipv6_addresses_in_use_total{pool=\"lan\"} 1.0",
            "ferrolb_allocator_services_allocated_total{pool=\"lan\"} 4.0",
            "ferrolb_controller_allocation_seconds_bucket{le=\"0.004\"} 1",
            "ferrolb_controller_services{reason=\"Assigned\"} 3",
            "ferrolb_controller_announced{reason=\"NoEndpoints\"} 2",
            "ferrolb_controller_announced{reason=\"Announced\"} 1",
            "ferrolb_controller_writes_total 0",
            "ferrolb_controller_failed_nodes 1",
        ] {
            assert!(
                exported.lines().any(|exported_line| exported_line == line),
                "{line} is not in\n{exported}"
            );
        }
        let total = exported.lines().find_map(|line| {
            line.strip_prefix("ferrolb_allocator_ipv6_addresses_total{pool=\"lan\"} ")
        });
        assert_eq!(
            total.and_then(|total| total.parse().ok()),
            Some(2_f64.powi(64)),
            "a count that exceeds every integer type of Prometheus is exported"
        );
        metrics.update(MetricValues::default());
        let exported = text();
        assert!(!exported.contains("lan"), "{exported}");
        assert!(
            exported.contains("ferrolb_controller_services{reason=\"Assigned\"} 0"),
            "{exported}"
        );
        assert!(
            exported.contains("ferrolb_controller_announced{reason=\"NoEndpoints\"} 0"),
            "{exported}"
        );
    }
}
