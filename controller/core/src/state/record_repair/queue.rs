//! The queued repairs of records. Plain values; owned by the state.

use std::collections::BTreeSet;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

/// State of the repair of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) enum Repair {
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
    pub(in crate::state) fn end_attempt(&mut self) {
        if *self == Self::Due {
            *self = Self::None;
        }
    }
}

/// The queued repairs, by time.
#[derive(Debug, Default)]
pub(in crate::state) struct RecordRepairs {
    pub(super) queued: BTreeSet<(Instant, Key)>,
    /// Time of the next repair at the earliest.
    pub(super) next: Instant,
}

impl RecordRepairs {
    /// Returns the time of the next repair, if one is queued.
    pub(in crate::state) fn deadline(&self) -> Option<Instant> {
        self.queued.first().map(|(at, _)| (*at).max(self.next))
    }

    pub(in crate::state) fn remove(&mut self, key: &Key, repair: &mut Repair) {
        if let Repair::Queued(at) = std::mem::take(repair) {
            self.queued.remove(&(at, key.clone()));
        }
    }

    pub(in crate::state) fn clear(&mut self) {
        self.queued.clear();
    }
}
