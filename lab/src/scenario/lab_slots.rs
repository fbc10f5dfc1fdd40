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

static SLOTS: Mutex<Slots> = Mutex::new(Slots { taken: 0, first: 0 });
static CHANGED: Condvar = Condvar::new();

/// Use of the machine.
struct Slots {
    /// Cost of the labs that exist.
    taken: u8,
    /// Number of labs that wait and start before all others ([`Options::starts_first`]).
    first: u8,
}

impl Slots {
    fn have_room(&self, cost: u8, is_first: bool) -> bool {
        self.taken + cost <= COST_MAX && (is_first || self.first == 0)
    }
}

/// Share of the machine for one lab, released when dropped.
pub(super) struct LabSlot(u8);

impl LabSlot {
    /// Waits until the machine has room for a lab with these options.
    pub(super) fn take(options: &Options) -> Self {
        let (cost, is_first) = (cost(options), options.starts_first);
        // The sum is consistent even after a panic.
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        slots.first += u8::from(is_first);
        let mut slots = CHANGED
            .wait_while(slots, |slots| !slots.have_room(cost, is_first))
            .unwrap_or_else(PoisonError::into_inner);
        slots.taken += cost;
        slots.first -= u8::from(is_first);
        CHANGED.notify_all();
        Self(cost)
    }
}

fn cost(options: &Options) -> u8 {
    let containers = if options.containers || options.kubeadm { CONTAINERS_COST } else { 0 };
    (options.nodes + CONTROL_PLANE_COST + containers).min(COST_MAX)
}

impl Drop for LabSlot {
    fn drop(&mut self) {
        SLOTS.lock().unwrap_or_else(PoisonError::into_inner).taken -= self.0;
        CHANGED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::NODES_MAX;

    #[test]
    fn a_lab_waits_for_room_and_for_the_first_one() {
        for (taken, first, cost, is_first, expect) in [
            (13, 0, 5, false, true),
            (14, 0, 5, false, false),
            (0, 1, 5, false, false),
            (0, 1, 5, true, true),
            (14, 1, 5, true, false),
        ] {
            let slots = Slots { taken, first };
            assert_eq!(slots.have_room(cost, is_first), expect, "{taken} {first} {is_first}");
        }
    }

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
