//! Planner: derives the desired writes from the state. Pure and deterministic: the same state gives
//! the same [`Desired`].

use crate::desired::Desired;
use crate::state::State;

/// Returns the writes and tasks that the drivers execute.
#[must_use]
pub fn plan(state: &State) -> Desired {
    let kubelets = state.kubelets();
    let node_tasks = state.node_tasks().to_vec();
    let Some(term) = state.term() else {
        return Desired { node_tasks, kubelets, ..Desired::default() };
    };
    Desired {
        term: Some(term),
        until: state.lease_expiry(),
        writes: state.writes().cloned().collect(),
        node_tasks,
        kubelets,
    }
}
