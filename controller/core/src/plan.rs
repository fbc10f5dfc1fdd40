//! Planner: derives the desired writes from the state. Pure and deterministic: the same state and
//! time give the same [`Desired`].

use ferrolb_proto::Instant;

use crate::desired::Desired;
use crate::state::State;

/// Maximum number of writes in one [`Desired`]; further due writes follow as these finish. The
/// maximum exceeds the number of concurrent writes, so that the writer always has a next write.
pub const PLANNED_WRITES_MAX: usize = 64;

/// Returns the writes that are due at `now`.
#[must_use]
pub fn plan(state: &State, now: Instant) -> Desired {
    let kubelets = state.kubelets();
    let Some(term) = state.term() else { return Desired { kubelets, ..Desired::default() } };
    Desired {
        term: Some(term),
        until: state.lease_expiry(),
        writes: state.due(now).take(PLANNED_WRITES_MAX).collect(),
        node_tasks: state.node_tasks().to_vec(),
        kubelets,
    }
}
