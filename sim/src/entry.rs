//! Entry of a queue of future events: ordered by time, then by the order of insertion. Both
//! simulations use it in a heap of their own.

use ferrolb_proto::Instant;
use std::cmp::Ordering;

pub(crate) struct Entry<T> {
    pub(crate) at: Instant,
    /// Number in the order of insertion.
    pub(crate) number: u64,
    pub(crate) value: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    /// Orders the earliest entry as the greatest, because the heap returns its greatest entry
    /// first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
