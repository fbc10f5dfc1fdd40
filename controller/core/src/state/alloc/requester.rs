//! A Service that requests addresses. Pure; the allocator reads it.

use std::collections::BTreeMap;

use ferrolb_proto::facts::Service;

use crate::state::pool_addresses::PoolAddresses;
use crate::state::sharing::SharingParameters;

/// A Service that requests addresses, with all facts that decide which ones it may have.
#[derive(Debug)]
pub(in crate::state) struct Requester<'a> {
    pub(in crate::state) service: &'a Service,
    pub(in crate::state) sharing: SharingParameters,
    /// Labels of the Service's Namespace; `None` if the controller has not received the Namespace
    /// yet.
    pub(in crate::state) namespace_labels: Option<&'a BTreeMap<String, String>>,
}

impl Requester<'_> {
    /// Returns whether the pool's `serviceAllocation` allows this Service to use the pool. If that
    /// depends on a Namespace that the controller has not received yet, returns true, so that no
    /// address is released too early.
    pub(in crate::state) fn may_use(&self, pool_addresses: &PoolAddresses) -> bool {
        let labels = || {
            let labels = self.service.demand.labels.iter();
            labels.map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let no_labels = BTreeMap::new();
        let Some(allocation) = &pool_addresses.allocation else { return true };
        let namespace_unknown = self.namespace_labels.is_none() && allocation.selects_namespaces();
        let namespace_labels = self.namespace_labels.unwrap_or(&no_labels);
        namespace_unknown
            || allocation.allows(self.service.key.namespace(), namespace_labels, labels)
    }
}
