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
        let node_tasks_until = state.node_tasks_until();
        return Desired { node_tasks, node_tasks_until, kubelets, ..Desired::default() };
    };
    Desired {
        term: Some(term),
        until: state.lease_expiry(),
        writes: state.writes().cloned().collect(),
        node_tasks,
        node_tasks_until: state.lease_expiry(),
        kubelets,
    }
}
