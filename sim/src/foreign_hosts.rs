//! Scenarios in which a foreign host uses an address, and the record of the answers by which the
//! nodes could have detected that.

use super::faults::API_LAG_MIN;
use super::scenario::ms;
use super::view::ApiChange;
use super::world::SimWorld;
use ferrolb_proto::Instant;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Time for which the new unit does not exist before it appears.
const ABSENT: Duration = ms(3_000);
/// Maximum times by which the views of the nodes differ when the new unit appears.
const VIEW_LAGS: [Duration; 4] = [ms(5), ms(60), ms(100), ms(2_000)];
/// Maximum time from an answer until all nodes have received the release of the node that it
/// reached.
const RELEASE_DELAY_MAX: Duration = ms(5);
/// Number of the unit that is new.
const NEW_UNIT: usize = 0;

/// Foreign hosts' answers to ARP probes, each for a unit that no other node owns.
#[derive(Debug, Default)]
pub(super) struct AnsweredProbes {
    /// For each unit and node that received an answer: the time of the first one.
    received: BTreeMap<(usize, usize), Instant>,
}

impl AnsweredProbes {
    pub(super) fn record(&mut self, unit: usize, node: usize, now: Instant) {
        self.received.entry((unit, node)).or_insert(now);
    }

    /// Returns whether a node has received an answer. If no frame is lost, the answers that other
    /// nodes have received count, too, unless their releases may still be on their way.
    pub(super) fn has(&self, unit: usize, node: usize, loses_frames: bool, now: Instant) -> bool {
        self.received.iter().any(|((answered, receiver), at)| {
            let is_known = !loses_frames && now.since(*at) >= RELEASE_DELAY_MAX;
            *answered == unit && (*receiver == node || is_known)
        })
    }

    /// Forgets the answers for a unit: from now on a node owns it, or no foreign host uses it.
    pub(super) fn forget(&mut self, unit: usize) {
        self.received.retain(|(answered, _), _| *answered != unit);
    }

    /// Forgets the answers that a node has received, because its process ends.
    pub(super) fn forget_node(&mut self, node: usize) {
        self.received.retain(|(_, receiver), _| *receiver != node);
    }
}

/// Makes a foreign host announce an owned address: five times within 5 s, and once more after the
/// 10 s in which the owner may not defend the address again.
pub(super) fn announces(world: &mut SimWorld) -> Duration {
    let unit = world.rng.below(world.units());
    for at in [0, 1_000, 2_000, 3_000, 4_000, 11_000] {
        world.after(ms(at), move |world| world.announce_as_foreign_host(unit));
    }
    ms(18_000)
}

/// Ends the use of the first unit's address by a foreign host, which began before the nodes
/// started.
pub(super) fn stops(world: &mut SimWorld) -> Duration {
    let time = world.rng.between(ms(5_000), ms(25_000));
    world.after(time, |world| world.set_foreign_host(0, false));
    ms(50_000)
}

/// Adds a unit whose address a foreign host uses: before, soon after, or not at all. The nodes
/// receive the unit at different times. In some runs, the best candidate fails meanwhile.
pub(super) fn new_address(world: &mut SimWorld, loss: f64) -> Duration {
    world.segment.loss = loss;
    let nodes = world.nodes.len();
    let mut candidates = world.api.candidates.clone();
    candidates[NEW_UNIT] = Rc::new([]);
    let absent = ApiChange { candidates: Some(candidates), ..ApiChange::default() };
    world.change_api(API_LAG_MIN, absent, None);
    let arrival = match world.rng.below(4) {
        0 => None,
        1 => Some(world.rng.between(ABSENT, ABSENT + ms(2_000))),
        _ => Some(ABSENT / 2),
    };
    if let Some(arrival) = arrival {
        world.after(arrival, |world| world.set_foreign_host(NEW_UNIT, true));
    }
    let lag = world.rng.pick(&VIEW_LAGS);
    world.after(ABSENT, move |world| {
        let mut candidates = world.api.candidates.clone();
        candidates[NEW_UNIT] = vec![true; nodes].into();
        let change = ApiChange { candidates: Some(candidates), ..ApiChange::default() };
        world.change_api(API_LAG_MIN + lag, change, None);
    });
    if world.rng.chance(0.5) {
        let best = world.catalog.ranked(NEW_UNIT, usize::MAX)[0];
        let wait = world.rng.between(ABSENT, ABSENT + ms(700));
        world.after(wait, move |world| world.crash(best));
    }
    ABSENT + ms(20_000)
}
