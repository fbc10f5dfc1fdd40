//! Creation of a metric together with its registration, so that its name and help text stand beside
//! the field that holds it.

use prometheus_client::registry::{Metric, Registry};

/// Creates a metric, and registers it in `registry` under the registry's prefix.
pub fn registered<M: Metric + Clone + Default>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
) -> M {
    with_metric(registry, name, help, M::default())
}

/// Registers `metric` in `registry` under the registry's prefix, and returns it.
pub fn with_metric<M: Metric + Clone>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}
