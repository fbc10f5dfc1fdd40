//! Limit of labs in one test run that exist at the same time, among those that may run together.

use std::sync::{Condvar, Mutex, PoisonError};

/// One per processor of the machine on which the scenarios' time limits were determined. A third
/// slot shortens the whole run by an eighth, but lengthens gaps.
const SLOTS: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// One of the slots, released when dropped.
pub(super) struct LabSlot(());

impl LabSlot {
    /// Waits for a slot, and takes it.
    pub(super) fn take() -> Self {
        // The count is consistent even after a panic.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            LEFT.wait_while(taken, |taken| *taken >= SLOTS).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for LabSlot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}
