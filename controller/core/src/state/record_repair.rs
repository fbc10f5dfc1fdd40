//! The record that a Service should have, and the repair of records that other clients have removed
//! or changed. Part of the state, which the main loop owns.
//!
//! A record is written with the status of its Service. If only the record differs, its repair waits
//! for a time, so that FerroLB and a client that removes annotations do not write in turn.

mod queue;

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::State;

pub(super) use queue::{RecordRepairs, Repair};

/// Time after which a removed or changed record is written again, if nothing else is written
/// earlier.
pub(super) const REPAIR_DELAY: Duration = Duration::from_secs(600);
/// Minimum time between two repairs.
pub(super) const REPAIR_INTERVAL: Duration = Duration::from_millis(100);

impl State {
    /// Queues the repair of a Service's record, or ends it. `is_written` is true if a write of the
    /// Service is pending, which includes the record.
    pub(super) fn update_record_repair(&mut self, key: &Key, is_written: bool, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        match (entry.has_record(), entry.repair) {
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
