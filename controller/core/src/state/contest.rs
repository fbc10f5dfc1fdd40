//! Other clients that change the addresses in the statuses of FerroLB's Services. Part of the
//! state, which the main loop owns.
//!
//! The controller restores such a status. If this happens repeatedly, the condition
//! `AddressAssigned` names the other client.

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
        self.contest_ends.remove(&(contest.end().unwrap_or_default(), key.clone()));
        contest.record(&entry.service, now);
        if is_cleared && contest.is_active() {
            entry.pending_status.limit_rate();
        } else if is_cleared {
            entry.pending_status.reset_delay();
        }
        self.contest_ends.extend(contest.end().map(|end| (end, key.clone())));
    }

    /// Ends the contests in which the other client has changed nothing for [`CONTEST_END`].
    pub(super) fn end_contests(&mut self, now: Instant) {
        while self.contest_ends.first().is_some_and(|(end, _)| now >= *end)
            && let Some((_, key)) = self.contest_ends.pop_first()
        {
            if let Some(entry) = self.services.get_mut(&key) {
                entry.contest = None;
                self.update_pending_status(&key, now);
            }
        }
    }

    /// Forgets the contest of a Service that is deleted.
    pub(super) fn remove_contest(&mut self, key: &Key, entry: &mut ServiceEntry) {
        if let Some(end) = entry.contest.take().and_then(|contest| contest.end()) {
            self.contest_ends.remove(&(end, key.clone()));
        }
    }
}

/// Returns whether the status of a version of the Service has exactly the assigned addresses.
fn shows_assignment(entry: &ServiceEntry, service: &Service) -> bool {
    let Some(assignment) = &entry.assignment else { return false };
    let shown = service.assigned.iter().map(|assigned| assigned.address);
    !assignment.addresses.is_empty()
        && !service.has_foreign_ingress
        && shown.eq(assignment.addresses.iter().copied())
}
