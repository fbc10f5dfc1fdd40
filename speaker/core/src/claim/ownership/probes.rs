//! ARP probes: before this node takes a unit that is not proven, it asks whether another host uses
//! the address (RFC 5227 section 2.1.1). Part of the ownership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;

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

/// Next step of the ARP probes for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeStep {
    /// Nothing is due.
    Wait,
    /// Send a probe.
    Probe,
    /// All probes were sent, and the time for replies is over.
    Done,
}

/// Progress of the ARP probes for a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArpProbes {
    sent: u8,
    /// Time of the next probe, or the end of the time for replies.
    next: Instant,
}

impl ArpProbes {
    /// Begins the probes for a unit, not before `earliest`, and updates that time for the probes of
    /// the next unit.
    pub(super) fn begin(earliest: &mut Instant, now: Instant) -> Self {
        let next = now.max(*earliest);
        *earliest = next + UNIT_PROBE_INTERVAL;
        Self { sent: 0, next }
    }

    /// Returns the time of the next step.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Returns the next step, and records a probe.
    pub(super) fn step(&mut self, now: Instant) -> ProbeStep {
        if now < self.next {
            ProbeStep::Wait
        } else if self.sent < PROBES {
            (self.sent, self.next) = (self.sent + 1, now + PROBE_INTERVAL);
            ProbeStep::Probe
        } else {
            ProbeStep::Done
        }
    }
}
