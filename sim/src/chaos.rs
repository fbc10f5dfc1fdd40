//! Scenario of overlapping faults: each starts without waiting for the end of the previous one.

use super::isolation::{isolate, receives_nothing, split};
use super::planned;
use super::scenario::{fast_restart, freeze, freeze_short, ms, pause};
use super::soft_rules;
use super::world::SimWorld;
use std::time::Duration;

const FAULTS: usize = 6;
const KINDS: [fn(&mut SimWorld) -> Duration; 14] = [
    freeze_short,
    freeze,
    pause,
    split,
    isolate,
    receives_nothing,
    planned::restart,
    fast_restart,
    planned::selector,
    planned::cordon,
    planned::late_cordon,
    planned::health,
    soft_rules::failing,
    soft_rules::checks,
];
/// Time after the start of the last fault in which the fault ends, and then the preempt delay and
/// the hold-down.
const SETTLE: Duration = ms(30_000);

pub(super) fn chaos(world: &mut SimWorld) -> Duration {
    world.wire.loss = world.rng.pick(&[0.0, 0.01, 0.05]);
    world.wire.duplication = 0.02;
    world.wire.no_client_broadcasts = world.rng.chance(0.2);
    let mut at = Duration::ZERO;
    for _ in 0..FAULTS {
        let kind = world.rng.pick(&KINDS);
        world.after(at, move |world| {
            kind(world);
        });
        at += world.rng.between(ms(500), ms(9_000));
    }
    at + SETTLE
}
