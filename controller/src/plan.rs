//! Planner: derives the desired writes from the state. Pure and deterministic: the same state and
//! time give the same [`Desired`].

use ferrolb_proto::Instant;

use crate::desired::Desired;
use crate::state::State;

/// Maximum number of writes in one [`Desired`]; further due writes follow as these finish. Larger
/// than the number of writes that the writer sends at once, so that the writer never runs empty.
pub const PLANNED_WRITES_MAX: usize = 64;

/// Returns the writes that are due at `now`.
#[must_use]
pub fn plan(state: &State, now: Instant) -> Desired {
    let Some(term) = state.term() else { return Desired::default() };
    Desired {
        term: Some(term),
        until: state.lease_expiry(),
        writes: state.due(now).take(PLANNED_WRITES_MAX).collect(),
    }
}
