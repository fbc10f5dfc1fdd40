//! Limit of the shared labs that exist at the same time in one test run.

use std::sync::{Condvar, Mutex, PoisonError};

/// Number of slots: one per processor of the machine on which the scenarios' time limits were
/// determined. A third slot shortens the whole run by an eighth, but lengthens the measured
/// outages.
const SLOTS_MAX: usize = 2;

static TAKEN_SLOTS: Mutex<usize> = Mutex::new(0);
static SLOT_RELEASED: Condvar = Condvar::new();

/// A slot for one lab, released when dropped.
pub(super) struct LabSlot(());

impl LabSlot {
    /// Waits for a slot, and takes it.
    pub(super) fn take() -> Self {
        // The count is consistent even after a panic.
        let taken = TAKEN_SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = SLOT_RELEASED
            .wait_while(taken, |taken| *taken >= SLOTS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for LabSlot {
    fn drop(&mut self) {
        *TAKEN_SLOTS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        SLOT_RELEASED.notify_one();
    }
}
