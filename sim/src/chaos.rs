//! Scenario of overlapping faults: each fault may start before the previous one has ended.

use super::failures::{fast_restart, freeze, freeze_short, pause};
use super::isolation::{isolate, receives_nothing, split};
use super::planned;
use super::scenario::ms;
use super::soft_rules;
use super::world::SimWorld;
use std::time::Duration;

const FAULTS_PER_RUN: usize = 6;
const FAULT_KINDS: [fn(&mut SimWorld) -> Duration; 14] = [
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
/// Time from the start of the last fault to the end of the run: the fault, the preempt delay and
/// the doubts end in this time.
const SETTLE_TIME: Duration = ms(30_000);

pub(super) fn chaos(world: &mut SimWorld) -> Duration {
    world.segment.loss = world.rng.pick(&[0.0, 0.01, 0.05]);
    world.segment.duplication = 0.02;
    world.segment.no_client_broadcasts = world.rng.chance(0.2);
    let mut at = Duration::ZERO;
    for _ in 0..FAULTS_PER_RUN {
        let kind = world.rng.pick(&FAULT_KINDS);
        world.after(at, move |world| {
            kind(world);
        });
        at += world.rng.between(ms(500), ms(9_000));
    }
    at + SETTLE_TIME
}
