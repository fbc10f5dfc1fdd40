//! What the controller tells Prometheus. Set by the main loop and the drivers, read by the admin thread.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::desired::Figures;

/// A pool and a family.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
    family: &'static str,
}

/// A reason of the condition `ferrolb.io/AddressAssigned`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// All metrics of the controller, `ferrolb_controller_…`.
#[derive(Debug)]
pub struct Metrics {
    leader: Gauge,
    pool_addresses: Family<PoolLabels, Gauge>,
    pool_addresses_in_use: Family<PoolLabels, Gauge>,
    services: Family<ReasonLabels, Gauge>,
    /// What is shown now, so that what is gone can be taken out.
    shown: Mutex<Figures>,
    /// Status writes that were sent.
    pub writes: Counter,
    /// Status writes that were refused or not answered.
    pub write_errors: Counter,
    /// Kubernetes events that were not sent, because too many waited or the API server refused them.
    pub notices_dropped: Counter,
}

/// The families in the order of [`Figures::pools`].
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

impl Metrics {
    /// Metrics that are shown by `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            pool_addresses: Family::default(),
            pool_addresses_in_use: Family::default(),
            services: Family::default(),
            shown: Mutex::default(),
            writes: Counter::default(),
            write_errors: Counter::default(),
            notices_dropped: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("controller");
        registry.register("leader", "Whether this replica holds the lease", metrics.leader.clone());
        registry.register(
            "pool_addresses",
            "Addresses that a pool can give, all in all",
            metrics.pool_addresses.clone(),
        );
        registry.register(
            "pool_addresses_in_use",
            "Addresses of a pool that Services have",
            metrics.pool_addresses_in_use.clone(),
        );
        registry.register(
            "services",
            "Our Services by the reason of their condition AddressAssigned",
            metrics.services.clone(),
        );
        registry.register("writes", "Statuses sent to the API server", metrics.writes.clone());
        registry.register(
            "write_errors",
            "Statuses that the API server refused or did not answer",
            metrics.write_errors.clone(),
        );
        registry.register(
            "notices_dropped",
            "Kubernetes events about Services that were not sent",
            metrics.notices_dropped.clone(),
        );
        metrics
    }

    /// Shows these figures and no others.
    pub fn show(&self, figures: Figures) {
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *shown == figures {
            return;
        }
        self.leader.set(i64::from(figures.leading));
        for (pool, _) in &shown.pools {
            if !figures.pools.iter().any(|(name, _)| name == pool) {
                for family in FAMILIES {
                    let labels = PoolLabels { pool: pool.to_string(), family };
                    self.pool_addresses.remove(&labels);
                    self.pool_addresses_in_use.remove(&labels);
                }
            }
        }
        for (pool, usage) in &figures.pools {
            for (family, usage) in FAMILIES.into_iter().zip(usage) {
                let labels = PoolLabels { pool: pool.to_string(), family };
                self.pool_addresses.get_or_create(&labels).set(usage.total);
                self.pool_addresses_in_use.get_or_create(&labels).set(usage.used);
            }
        }
        for (reason, _) in &shown.services {
            self.services.get_or_create(&ReasonLabels { reason }).set(0);
        }
        for (reason, count) in &figures.services {
            self.services.get_or_create(&ReasonLabels { reason }).set(*count);
        }
        *shown = figures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Usage;

    #[test]
    fn a_pool_that_is_gone_is_shown_no_longer() {
        let mut registry = Registry::with_prefix("ferrolb");
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let usage = [Usage { total: 16, used: 3 }, Usage::default()];
        metrics.show(Figures { leading: true, pools: vec![("lan".into(), usage)], services: vec![("Assigned", 3)] });
        let shown = text();
        for line in [
            "ferrolb_controller_leader 1",
            "ferrolb_controller_pool_addresses{pool=\"lan\",family=\"ipv4\"} 16",
            "ferrolb_controller_pool_addresses_in_use{pool=\"lan\",family=\"ipv4\"} 3",
            "ferrolb_controller_services{reason=\"Assigned\"} 3",
            "ferrolb_controller_writes_total 0",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
        metrics.show(Figures::default());
        let shown = text();
        assert!(!shown.contains("lan"), "{shown}");
        assert!(shown.contains("ferrolb_controller_services{reason=\"Assigned\"} 0"), "{shown}");
    }
}
