//! The repair of records that other clients have removed or changed. Part of the state, which the
//! main loop owns.
//!
//! A record is written with the status of its Service. If only the record differs, its repair waits
//! for a time, so that FerroLB and a client that removes annotations do not write in turn.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::State;
use super::status_queue::Class;
use crate::desired::Target;

/// Time after which a removed or changed record is written again, if nothing else is written
/// earlier.
pub(super) const REPAIR_DELAY: Duration = Duration::from_secs(600);

impl State {
    /// Queues the repair of a Service's record, or ends it. `is_written` is true if a write of the
    /// Service is pending, which includes the record.
    pub(super) fn update_record_repair(&mut self, key: &Key, is_written: bool, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let target = Target::Service(key.clone());
        if entry.has_record() {
            entry.is_record_due = false;
            self.status_queue.remove(&mut entry.attempts, Class::Record, &target);
        } else if !entry.is_record_due && !is_written {
            self.status_queue.queue(&mut entry.attempts, Class::Record, target, now + REPAIR_DELAY);
        }
    }

    /// Writes the record whose repair is due, if any.
    pub(super) fn repair_record(&mut self, now: Instant) {
        let queue = &self.status_queue;
        if queue.records.tokens(now) == 0 || queue.room(Class::Record) == 0 {
            return;
        }
        let due = self.status_queue.due(Class::Record, now).next().cloned();
        if let Some(target @ Target::Service(key)) = &due
            && let Some(entry) = self.services.get_mut(key)
        {
            self.status_queue.records.take(now);
            self.status_queue.remove(&mut entry.attempts, Class::Record, target);
            entry.is_record_due = true;
            self.update_status(key, now);
        }
    }
}
