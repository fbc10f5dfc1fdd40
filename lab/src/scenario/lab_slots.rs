//! Limit of the shared labs that exist at the same time in one test run.

use crate::Options;
use std::sync::{Condvar, Mutex, PoisonError};

/// Maximum cost of the labs that exist at the same time: three labs with three nodes each, and one
/// with one node, on the machine with two processors on which the scenarios' time limits were
/// determined.
const COST_MAX: u8 = 18;
/// Cost of a control plane, and of container engines: that of routers, or those of kubeadm's nodes.
/// A node costs 1.
const CONTROL_PLANE_COST: u8 = 2;
const CONTAINERS_COST: u8 = 2;

static TAKEN: Mutex<u8> = Mutex::new(0);
static RELEASED: Condvar = Condvar::new();

/// Share of the machine for one lab, released when dropped.
pub(super) struct LabSlot(u8);

impl LabSlot {
    /// Waits until the machine has room for a lab with these options.
    pub(super) fn take(options: &Options) -> Self {
        let cost = cost(options);
        // The sum is consistent even after a panic.
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = RELEASED
            .wait_while(taken, |taken| *taken + cost > COST_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += cost;
        Self(cost)
    }
}

fn cost(options: &Options) -> u8 {
    let containers = if options.containers || options.kubeadm { CONTAINERS_COST } else { 0 };
    (options.nodes + CONTROL_PLANE_COST + containers).min(COST_MAX)
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
    fn so_many_labs_of_a_kind_have_room() {
        let lab = |nodes| Options { nodes, ..Options::named("a") };
        let containers = |nodes| Options { bgp: true, containers: true, ..lab(nodes) };
        for (options, count) in [
            (lab(3), 3),
            (lab(1), 6),
            (containers(1), 3),
            (Options { kubeadm: true, ..lab(3) }, 2),
            (containers(3), 2),
            (containers(NODES_MAX), 1),
        ] {
            assert_eq!(COST_MAX / cost(&options), count, "{options:?}");
        }
    }
}
