//! Counters of the Services by reason and pool, for the metrics. Owned by the state.

use std::collections::BTreeMap;

use super::messages::reason::Reason;
use super::service::{self, CounterLabels, ServiceEntry};
use crate::desired::NOT_WRITTEN;

/// Counters of Services, for the metrics.
#[derive(Debug, Default)]
pub(super) struct ServiceCounters {
    /// Number of Services by the reason of their condition `AddressAssigned`, or by
    /// [`NOT_WRITTEN`] while the API server rejects their status.
    pub(super) reasons: BTreeMap<&'static str, i64>,
    /// Number of Services by the reason of their condition `Announced`.
    pub(super) announced: BTreeMap<Reason, i64>,
    /// Number of Services by the pool of their addresses.
    pub(super) pools: BTreeMap<Box<str>, u64>,
}

impl ServiceCounters {
    /// Removes a Service from the counters of its previous state, and adds it to those of its
    /// current state.
    pub(super) fn count(&mut self, entry: &mut ServiceEntry) {
        let assignment = entry.assignment.as_ref();
        let with_addresses = assignment.filter(|assignment| !assignment.addresses.is_empty());
        let current = CounterLabels {
            reason: service::decided_reason(entry)
                .map(|reason| if entry.attempts.is_refused() { NOT_WRITTEN } else { reason }),
            announced: assignment.and_then(|_| entry.announced_reason()),
            pool: with_addresses.and_then(|assignment| assignment.pool.clone()),
        };
        if entry.counted == current {
            return;
        }
        let previous = std::mem::replace(&mut entry.counted, current.clone());
        if let Some(count) = previous.reason.and_then(|reason| self.reasons.get_mut(reason)) {
            *count -= 1;
        }
        if let Some(count) = previous.announced.and_then(|reason| self.announced.get_mut(&reason)) {
            *count -= 1;
        }
        if let Some(count) = previous.pool.and_then(|pool| self.pools.get_mut(&pool)) {
            *count = count.saturating_sub(1);
        }
        current.reason.into_iter().for_each(|reason| *self.reasons.entry(reason).or_default() += 1);
        current
            .announced
            .into_iter()
            .for_each(|reason| *self.announced.entry(reason).or_default() += 1);
        current.pool.into_iter().for_each(|pool| *self.pools.entry(pool).or_default() += 1);
    }
}
