//! The selectors that L2Advertisements and BGPAdvertisements have in common: of pools, nodes and
//! Services.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use super::Pool;
use super::selectors::{any_matches, decode};

/// The selectors of an advertisement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdvertisementSelectors {
    /// `spec.ipAddressPools`.
    pub pools: Vec<String>,
    pool_selectors: Vec<Selector>,
    node_selectors: Vec<Selector>,
    service_selectors: Vec<Selector>,
}

impl AdvertisementSelectors {
    /// Decodes the selectors of pools, nodes and Services. A field with an invalid selector counts
    /// as empty. Returns the problem of the last such field, too, if any.
    pub(super) fn decode(
        pools: Vec<String>,
        [pool_selectors, node_selectors, service_selectors]: [Vec<LabelSelector>; 3],
    ) -> (Self, Option<Box<str>>) {
        let mut problem = None;
        let mut decoded = |field, selectors| {
            decode(field, selectors).unwrap_or_else(|why| {
                problem = Some(why);
                Vec::new()
            })
        };
        let selectors = Self {
            pools,
            pool_selectors: decoded("ipAddressPoolSelectors", pool_selectors),
            node_selectors: decoded("nodeSelectors", node_selectors),
            service_selectors: decoded("serviceSelectors", service_selectors),
        };
        (selectors, problem)
    }

    /// Returns whether this pool is selected.
    pub(super) fn select_pool(&self, pool: &Pool) -> bool {
        self.name_pool(&pool.name) || any_matches(&self.pool_selectors, &pool.labels)
    }

    /// Returns whether a pool of this name is selected, whatever its labels are.
    pub(super) fn name_pool(&self, name: &str) -> bool {
        let all = self.pools.is_empty() && self.pool_selectors.is_empty();
        all || self.pools.iter().any(|pool| **pool == *name)
    }

    /// Returns the names in `spec.ipAddressPools` of pools that do not exist.
    pub fn unknown_pools(&self, exists: impl Fn(&str) -> bool) -> Vec<&str> {
        self.pools.iter().map(String::as_str).filter(|name| !exists(name)).collect()
    }

    /// Returns whether a node with these labels is selected.
    #[must_use]
    pub fn select_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.node_selectors.is_empty() || any_matches(&self.node_selectors, labels)
    }

    /// Returns whether a Service with these labels is selected. `labels` is called only if there
    /// are Service selectors.
    #[must_use]
    pub fn select_service(&self, labels: impl FnOnce() -> BTreeMap<String, String>) -> bool {
        self.select_any_service() || any_matches(&self.service_selectors, &labels())
    }

    /// Returns whether every Service is selected, whatever its labels are.
    #[must_use]
    pub const fn select_any_service(&self) -> bool {
        self.service_selectors.is_empty()
    }
}
