//! Limit of the shared labs that exist at the same time in one test run.

use crate::Options;
use std::sync::{Condvar, Mutex, PoisonError};

/// Maximum cost of the labs that exist at the same time: three labs with three nodes each, on the
/// machine with two processors on which the scenarios' time limits were determined.
const COST_MAX: u8 = 15;
/// Cost of a control plane, and of a Docker engine with its routers. A node costs 1.
const CONTROL_PLANE_COST: u8 = 2;
const CONTAINERS_COST: u8 = 2;

static TAKEN: Mutex<u8> = Mutex::new(0);
static RELEASED: Condvar = Condvar::new();

/// Share of the machine for one lab, released when dropped.
pub(super) struct LabSlot(u8);

impl LabSlot {
    /// Waits until the machine has room for a lab with these options.
    pub(super) fn take(options: &Options) -> Self {
        let cost = cost(options.nodes, options.containers);
        // The sum is consistent even after a panic.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = RELEASED
            .wait_while(taken, |taken| *taken + cost > COST_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += cost;
        Self(cost)
    }
}

fn cost(nodes: u8, containers: bool) -> u8 {
    let more = if containers { CONTAINERS_COST } else { 0 };
    (nodes + CONTROL_PLANE_COST + more).min(COST_MAX)
}

impl Drop for LabSlot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        RELEASED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::NODES_MAX;

    #[test]
    fn three_labs_with_three_nodes_or_five_with_one_have_room() {
        assert!(3 * cost(3, false) <= COST_MAX && 4 * cost(3, false) > COST_MAX);
        assert!(5 * cost(1, false) <= COST_MAX && 6 * cost(1, false) > COST_MAX);
        assert!(3 * cost(1, true) <= COST_MAX && 4 * cost(1, true) > COST_MAX);
        assert!(cost(NODES_MAX, true) <= COST_MAX, "the largest lab would wait forever");
    }
}
