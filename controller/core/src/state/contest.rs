//! Other clients that change the addresses in the statuses of FerroLB's Services. Part of the
//! state, which the main loop owns.
//!
//! The controller restores such a status. If this happens repeatedly, the condition
//! `AddressAssigned` names the other client. It is `False` if that client writes other addresses:
//! they remain in the status until the controller restores it, and no node announces them.

pub(super) mod changes;

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Key, Service};

use super::State;
use super::service::{Role, ServiceEntry};

/// Number of changes by other clients within [`CONTEST_TIME`] after which the status of a Service
/// counts as contested.
pub(super) const CONTEST_CHANGES_MIN: usize = 3;
/// Time within which the changes count.
const CONTEST_TIME: Duration = Duration::from_secs(600);
/// Time without a change by another client after which the status is not contested any more.
/// Longer than the pause between two changes of a client that reacts to each restored status.
pub(super) const CONTEST_END: Duration = Duration::from_secs(25);

impl State {
    /// Records that another client has changed the addresses in a Service's status, if it has.
    /// `before` is the Service before the change.
    pub(super) fn record_contest(&mut self, key: &Key, before: &Service, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let role = self.config.role(&entry.service, |it| self.allocator.is_own(it));
        if role != Role::ServedByFerroLb || !shows_assignment(entry, before) {
            return;
        }
        let service = &entry.service;
        if service.deleting || shows_assignment(entry, service) {
            return;
        }
        let is_cleared = service.assigned.is_empty() && !service.has_foreign_ingress;
        let contest = entry.contest.get_or_insert_default();
        contest.record(&entry.service, is_cleared, now);
        if is_cleared && contest.is_active() {
            entry.attempts.limit_rate();
        } else if is_cleared {
            entry.attempts.reset_delay();
        }
    }
}

/// Returns whether the status of a version of the Service has exactly the assigned addresses.
pub(super) fn shows_assignment(entry: &ServiceEntry, service: &Service) -> bool {
    let Some(assignment) = &entry.assignment else { return false };
    let shown = service.assigned.iter().map(|assigned| assigned.address);
    !assignment.addresses.is_empty()
        && !service.has_foreign_ingress
        && shown.eq(assignment.addresses.iter().copied())
}
