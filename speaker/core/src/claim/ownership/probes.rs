//! ARP probes: before this node takes a unit that is not proven, it asks whether another host uses
//! the address (RFC 5227 section 2.1.1). Part of the ownership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;

use super::Ownership;
use super::unit::UnitState;
use crate::claim::Output;

/// Interval of the ARP probes for one address, and the time for replies to the last one.
const PROBE_INTERVAL: Duration = Duration::from_millis(150);
/// Number of ARP probes for one address, which are sent at 0, 150 and 300 ms.
const PROBES: u8 = 3;
/// Minimum interval between the first probes for two units. A node with thousands of new addresses
/// sends up to 6,000 probes per second, each in two forms, which other speakers receive without a
/// block.
const UNIT_PROBE_INTERVAL: Duration = Duration::from_micros(500);
/// Stagger between the candidates for an unproven unit: the time that the probes of one unit take,
/// and a margin for the claim that follows them.
pub(super) const PROBING_STAGGER: Duration = Duration::from_millis(500);

/// Progress of the ARP probes for a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArpProbes {
    sent: u8,
    /// Time of the next probe, or the end of the time for replies.
    pub(super) next: Instant,
}

impl Ownership {
    /// Sends the next ARP probe for a unit, if due. Returns true once all probes were sent, the
    /// time for replies is over, and no host has replied.
    pub(super) fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        let probes = state.pending_claim().probes.get_or_insert_with(|| {
            let next = now.max(self.next_probe);
            self.next_probe = next + UNIT_PROBE_INTERVAL;
            ArpProbes { sent: 0, next }
        });
        if now < probes.next {
            return false;
        }
        if probes.sent < PROBES {
            *probes = ArpProbes { sent: probes.sent + 1, next: now + PROBE_INTERVAL };
            self.output(Output::ArpProbe(state.unit.address));
            return false;
        }
        state.pending_claim().probes = None;
        self.end_left_conflict(state.unit.address);
        true
    }
}

impl UnitState {
    /// Returns whether ARP probes for the unit are in progress. A reply then means that another
    /// host uses the address.
    pub(super) fn is_probed(&self) -> bool {
        self.pending_claim.as_ref().is_some_and(|pending_claim| pending_claim.probes.is_some())
    }
}
