//! ARP probes: before or after this node takes an address, it asks whether another host uses the
//! address (RFC 5227 section 2.1.1). Part of the ownership of one interface.

use std::time::Duration;

use super::Ownership;
use super::unit::UnitState;
use crate::Instant;
use crate::claim::Output;

/// Interval of the ARP probes for one address.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);
/// Number of ARP probes for one address, which are sent at 0, 300 and 600 ms.
const PROBES: u8 = 3;
/// Minimum interval between the probes for two units, because 10,000 new addresses must not flood
/// the segment.
const UNIT_PROBE_INTERVAL: Duration = Duration::from_millis(1);

/// Progress of the ARP probes for a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArpProbes {
    sent: u8,
    pub(super) next: Instant,
    /// True if the time `next` is reserved for this unit, because the probes of other units have
    /// delayed its probe.
    slot_reserved: bool,
}

impl Ownership {
    /// Probes a unit that a foreign host used; returns true once all probes were sent and no host
    /// has replied.
    pub(super) fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        if state.pending_claim().probes.is_none() {
            self.start_probing(state, now);
        }
        let is_free = self.continue_probing(state, now);
        if is_free {
            state.contested = false;
            self.address_conflicts.remove(&state.unit.address);
        }
        is_free
    }

    /// Sends the next ARP probe for an address, if due. Returns true if all probes were
    /// sent and the time for replies is over.
    pub(super) fn continue_probing(&mut self, state: &mut UnitState, now: Instant) -> bool {
        let Some(probes) = state
            .pending_claim
            .as_ref()
            .and_then(|pending_claim| pending_claim.probes)
            .filter(|probes| now >= probes.next)
        else {
            return false;
        };
        if probes.sent == PROBES {
            state.pending_claim().probes = None;
            return true;
        }
        if !probes.slot_reserved {
            let next = now.max(self.next_probe);
            self.next_probe = next + UNIT_PROBE_INTERVAL;
            if next > now {
                state.pending_claim().probes =
                    Some(ArpProbes { next, slot_reserved: true, ..probes });
                return false;
            }
        }
        self.output(Output::ArpProbe(state.unit.address));
        state.pending_claim().probes = Some(ArpProbes {
            sent: probes.sent + 1,
            next: now + PROBE_INTERVAL,
            slot_reserved: false,
        });
        false
    }

    /// Starts to probe an address.
    pub(super) fn start_probing(&mut self, state: &mut UnitState, now: Instant) {
        state.pending_claim().probes = Some(ArpProbes { sent: 0, next: now, slot_reserved: false });
        self.continue_probing(state, now);
    }
}

impl UnitState {
    /// Returns whether ARP probes for the unit are in progress. A reply then means that another
    /// host uses the address.
    pub(super) fn is_probed(&self) -> bool {
        self.pending_claim.as_ref().is_some_and(|pending_claim| pending_claim.probes.is_some())
    }
}
