//! How many labs of one test run stand at a time, of those that may stand together.

use std::sync::{Condvar, Mutex, PoisonError};

/// One for each processor of the machine that the limits of the stories were tried on. A third makes the whole an eighth shorter, and gaps longer.
const PLACES: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// One of the places, given back when it is dropped.
pub(super) struct Place(());

impl Place {
    /// Waits for a place, and takes it.
    pub(super) fn take() -> Self {
        // A count is whole, whoever panicked.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = LEFT.wait_while(taken, |taken| *taken >= PLACES).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}
