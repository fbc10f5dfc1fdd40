//! The changes of one Service's addresses by other clients. Plain values; the state owns one for
//! each Service with such changes.

use std::collections::VecDeque;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Service;

use super::{CONTEST_CHANGES_MIN, CONTEST_END, CONTEST_TIME};

/// Changes of one Service's addresses by other clients.
#[derive(Debug, Default)]
pub(in crate::state) struct Contest {
    /// The latest changes, at most [`CONTEST_CHANGES_MIN`].
    changes: VecDeque<Change>,
    /// Field manager of the other client. `None` if the API server does not name it: a client that
    /// only removes a field does not own it.
    pub(in crate::state) manager: Option<Box<str>>,
    /// Field manager of another part of the status, which may be the other client.
    pub(in crate::state) suspect: Option<Box<str>>,
}

#[derive(Debug)]
struct Change {
    at: Instant,
    /// True if the status had no address afterwards, false if it had those of the other client.
    is_cleared: bool,
}

impl Contest {
    /// Records a change. `is_cleared` is true if the status has no address after it.
    pub(super) fn record(&mut self, service: &Service, is_cleared: bool, now: Instant) {
        self.changes.retain(|it| now.since(it.at) < CONTEST_TIME);
        if self.changes.is_empty() {
            // The client of an earlier contest may be gone.
            self.manager = None;
        }
        self.changes.push_back(Change { at: now, is_cleared });
        if self.changes.len() > CONTEST_CHANGES_MIN {
            self.changes.pop_front();
        }
        self.manager = service.ingress_manager.clone().or(self.manager.take());
        self.suspect.clone_from(&service.status_manager);
    }

    /// Returns whether the other client has written other addresses. Otherwise it has only removed
    /// those of FerroLB.
    pub(in crate::state) fn replaces(&self) -> bool {
        self.changes.iter().any(|it| !it.is_cleared)
    }

    /// Returns whether the status is contested.
    pub(in crate::state) fn is_active(&self) -> bool {
        self.changes.len() >= CONTEST_CHANGES_MIN
    }

    /// Returns the time at which the contest ends if the other client changes nothing more; `None`
    /// if the status is not contested.
    pub(in crate::state) fn end(&self) -> Option<Instant> {
        self.changes.back().filter(|_| self.is_active()).map(|it| it.at + CONTEST_END)
    }
}
