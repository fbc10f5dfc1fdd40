//! The record that a Service should have, and the repair of records that other clients have removed
//! or changed. Part of the state, which the main loop owns.
//!
//! A record is written with the status of its Service. If only the record differs, its repair waits
//! for a time, so that FerroLB and a client that removes annotations do not write in turn.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{AddressRecord, Key, Service};

use super::State;
use super::service::{Role, ServiceEntry};
use super::service_addresses::Assignment;
use super::sharing::SharingParameters;

/// Time after which a removed or changed record is written again, if nothing else is written
/// earlier.
pub(super) const REPAIR_DELAY: Duration = Duration::from_secs(600);
/// Minimum time between two repairs.
pub(super) const REPAIR_INTERVAL: Duration = Duration::from_millis(100);

/// State of the repair of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Repair {
    /// The record needs none.
    #[default]
    None,
    /// The repair begins at this time.
    Queued(Instant),
    /// The status differs because of the record.
    Due,
}

impl Repair {
    /// Records that all writes of the Service have ended. Another repair waits again.
    pub(super) fn end_attempt(&mut self) {
        if *self == Self::Due {
            *self = Self::None;
        }
    }
}

/// The queued repairs, by time.
#[derive(Debug, Default)]
pub(super) struct RecordRepairs {
    queued: BTreeSet<(Instant, Key)>,
    /// Time of the next repair at the earliest.
    next: Instant,
}

impl RecordRepairs {
    /// Returns the time of the next repair, if one is queued.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.queued.first().map(|(at, _)| (*at).max(self.next))
    }

    pub(super) fn remove(&mut self, key: &Key, repair: &mut Repair) {
        if let Repair::Queued(at) = std::mem::take(repair) {
            self.queued.remove(&(at, key.clone()));
        }
    }

    pub(super) fn clear(&mut self) {
        self.queued.clear();
    }
}

impl State {
    /// Queues the repair of a Service's record, or ends it. `is_written` is true if a write of the
    /// Service is pending, which includes the record.
    pub(super) fn update_record_repair(&mut self, key: &Key, is_written: bool, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        match (has_record(entry), entry.repair) {
            (true, Repair::Queued(_) | Repair::Due) => {
                self.record_repairs.remove(key, &mut entry.repair);
            }
            (false, Repair::None) if !is_written => {
                let at = now + REPAIR_DELAY;
                entry.repair = Repair::Queued(at);
                self.record_repairs.queued.insert((at, key.clone()));
            }
            (true, Repair::None) | (false, _) => {}
        }
    }

    /// Writes the record whose repair is due, if any.
    pub(super) fn repair_record(&mut self, now: Instant) {
        if self.record_repairs.deadline().is_none_or(|at| now < at) {
            return;
        }
        let Some((_, key)) = self.record_repairs.queued.pop_first() else { return };
        self.record_repairs.next = now + REPAIR_INTERVAL;
        if let Some(entry) = self.services.get_mut(&key) {
            entry.repair = Repair::Due;
            self.update_pending_status(&key, now);
        }
    }
}

/// Returns the record that a Service should have. A Service without addresses keeps the record of
/// those that it had.
pub(super) fn record(service: &Service, assignment: &Assignment) -> Option<Box<AddressRecord>> {
    if assignment.addresses.is_empty() {
        return service.record.clone();
    }
    let addresses = assignment.addresses.as_slice().into();
    let sharing = SharingParameters::of(service).digest();
    Some(Box::new(AddressRecord { addresses, sharing }))
}

/// Returns whether a Service has the record that it should have.
pub(super) fn has_record(entry: &ServiceEntry) -> bool {
    let service = &entry.service;
    let is_recorded = |assignment| service.record == record(service, assignment);
    let assignment = entry.assignment.as_ref().filter(|_| !service.deleting);
    entry.role != Role::ServedByFerroLb || assignment.is_none_or(is_recorded)
}
