//! What the controller tells Prometheus. Set by the main loop and the drivers, read by the admin thread.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::desired::Figures;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// A reason of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// A number for each pool. Numbers of IPv6 addresses are larger than any integer that Prometheus knows.
type PerPool = Family<PoolLabels, Gauge<f64, AtomicU64>>;

/// A number for each reason.
type PerReason = Family<ReasonLabels, Gauge>;

/// The series of pools, `ferrolb_allocator_…`, named and meant as MetalLB's: total and in use, of both families together and of
/// each.
const ALLOCATOR: [(&str, &str, &str, &str); 3] = [
    (
        "addresses_total",
        "Addresses that a pool can give, all in all",
        "addresses_in_use_total",
        "Addresses of a pool that Services have; a shared one counts once",
    ),
    (
        "ipv4_addresses_total",
        "IPv4 addresses that a pool can give, all in all",
        "ipv4_addresses_in_use_total",
        "IPv4 addresses of a pool that Services have",
    ),
    (
        "ipv6_addresses_total",
        "IPv6 addresses that a pool can give, all in all",
        "ipv6_addresses_in_use_total",
        "IPv6 addresses of a pool that Services have",
    ),
];

/// All metrics of the controller: `ferrolb_controller_…`, and `ferrolb_allocator_…` for pools.
#[derive(Debug)]
pub struct Metrics {
    leader: Gauge,
    /// In the order of [`ALLOCATOR`]: total, in use.
    allocator: [(PerPool, PerPool); 3],
    services_allocated: PerPool,
    services: PerReason,
    announced: PerReason,
    allocation_seconds: Histogram,
    /// What is shown now, so that what is gone can be taken out.
    shown: Mutex<Figures>,
    /// Status writes that were sent.
    pub writes: Counter,
    /// Status writes that were refused or not answered.
    pub write_errors: Counter,
    /// Kubernetes events that were not sent: a Service had too many, too many waited, or the API
    /// server refused them.
    pub notices_dropped: Counter,
}

impl Metrics {
    /// Metrics that are shown by `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            allocator: Default::default(),
            services_allocated: Family::default(),
            services: Family::default(),
            announced: Family::default(),
            // From 1 ms to 16 s.
            allocation_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            shown: Mutex::default(),
            writes: Counter::default(),
            write_errors: Counter::default(),
            notices_dropped: Counter::default(),
        };
        let allocator = registry.sub_registry_with_prefix("allocator");
        for ((total_name, total_help, used_name, used_help), (total, used)) in ALLOCATOR.iter().zip(&metrics.allocator)
        {
            allocator.register(*total_name, *total_help, total.clone());
            allocator.register(*used_name, *used_help, used.clone());
        }
        allocator.register(
            "services_allocated_total",
            "Services that have addresses of a pool",
            metrics.services_allocated.clone(),
        );
        metrics.register_own(registry.sub_registry_with_prefix("controller"));
        metrics
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register("leader", "Whether this replica holds the lease", self.leader.clone());
        registry.register(
            "services",
            "Our Services by the reason of their condition AddressAssigned; NotWritten: the API server refuses the status",
            self.services.clone(),
        );
        registry.register(
            "announced",
            "Our Services by the reason of their condition Announced",
            self.announced.clone(),
        );
        registry.register(
            "allocation_seconds",
            "From the decision to give a Service its first address to its status in the API server",
            self.allocation_seconds.clone(),
        );
        registry.register("writes", "Statuses sent to the API server", self.writes.clone());
        registry.register(
            "write_errors",
            "Statuses that the API server refused or did not answer",
            self.write_errors.clone(),
        );
        registry.register(
            "notices_dropped",
            "Kubernetes events about Services that were not sent",
            self.notices_dropped.clone(),
        );
    }

    /// Counts how long Services waited for the statuses with their first addresses.
    pub fn allocated(&self, latencies: Vec<Duration>) {
        latencies.iter().for_each(|latency| self.allocation_seconds.observe(latency.as_secs_f64()));
    }

    /// Shows these figures and no others.
    pub fn show(&self, figures: Figures) {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *shown == figures {
            return;
        }
        self.leader.set(i64::from(figures.leading));
        let series = || {
            let each = self.allocator.iter().flat_map(|(total, used)| [total, used]);
            each.chain([&self.services_allocated])
        };
        for gone in shown.pools.iter().filter(|was| !figures.pools.iter().any(|is| is.name == was.name)) {
            let labels = PoolLabels { pool: gone.name.to_string() };
            for series in series() {
                series.remove(&labels);
            }
        }
        for pool in &figures.pools {
            let labels = PoolLabels { pool: pool.name.to_string() };
            #[expect(clippy::cast_precision_loss, reason = "what Prometheus knows are floating point numbers")]
            let [v4, v6] = pool.usage.map(|usage| (usage.total as f64, usage.used as f64));
            for ((total, used), numbers) in self.allocator.iter().zip([(v4.0 + v6.0, v4.1 + v6.1), v4, v6]) {
                total.get_or_create(&labels).set(numbers.0);
                used.get_or_create(&labels).set(numbers.1);
            }
            #[expect(clippy::cast_precision_loss, reason = "what Prometheus knows are floating point numbers")]
            self.services_allocated.get_or_create(&labels).set(pool.services as f64);
        }
        show_reasons(&self.services, &shown.services, &figures.services);
        show_reasons(&self.announced, &shown.announced, &figures.announced);
        *shown = figures;
    }
}

/// Shows these counts; a reason that nothing has any more has none.
fn show_reasons(series: &PerReason, before: &[(&'static str, i64)], now: &[(&'static str, i64)]) {
    let gone = before.iter().map(|(reason, _)| (*reason, 0));
    for (reason, count) in gone.chain(now.iter().copied()) {
        series.get_or_create(&ReasonLabels { reason }).set(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{PoolFigures, Usage};

    #[test]
    fn a_pool_that_is_gone_is_shown_no_longer() {
        let mut registry = Registry::with_prefix("ferrolb");
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let usage = [Usage { total: 16, used: 3 }, Usage { total: 1 << 64, used: 1 }];
        let pool = PoolFigures { name: "lan".into(), usage, services: 4 };
        let (services, announced) = (vec![("Assigned", 3)], vec![("NoEndpoints", 2), ("Announced", 1)]);
        metrics.show(Figures { leading: true, pools: vec![pool], services, announced });
        metrics.allocated(vec![Duration::from_millis(3)]);
        let shown = text();
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
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
        let total =
            shown.lines().find_map(|line| line.strip_prefix("ferrolb_allocator_ipv6_addresses_total{pool=\"lan\"} "));
        assert_eq!(
            total.and_then(|total| total.parse().ok()),
            Some(2_f64.powi(64)),
            "no integer of Prometheus' holds it"
        );
        metrics.show(Figures::default());
        let shown = text();
        assert!(!shown.contains("lan"), "{shown}");
        assert!(shown.contains("ferrolb_controller_services{reason=\"Assigned\"} 0"), "{shown}");
        assert!(shown.contains("ferrolb_controller_announced{reason=\"NoEndpoints\"} 0"), "{shown}");
    }
}
