//! From the state to what is to be done: pure, and the same for the same state and time.

use ferrolb_proto::Instant;

use crate::desired::Desired;
use crate::state::State;

/// Writes in one Desired; what is due beyond that follows as these are done. More than can be under way at once.
pub const PLANNED_WRITES_MAX: usize = 64;

/// What is to be done at `now`.
#[must_use]
pub fn plan(state: &State, now: Instant) -> Desired {
    let Some(term) = state.term() else { return Desired::default() };
    Desired { term: Some(term), until: state.until(), writes: state.due(now).take(PLANNED_WRITES_MAX).collect() }
}
