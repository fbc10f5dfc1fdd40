//! Faults one over another, none waiting for the end of the last.

use super::planned;
use super::scenario::{deaf, fast_restart, freeze, freeze_short, isolate, ms, pause, split};
use super::unsound;
use super::world::World;
use std::time::Duration;

const FAULTS: usize = 6;
const KINDS: [fn(&mut World) -> Duration; 14] = [
    freeze_short,
    freeze,
    pause,
    split,
    isolate,
    deaf,
    planned::restart,
    fast_restart,
    planned::selector,
    planned::cordon,
    planned::stale,
    planned::health,
    unsound::failing,
    unsound::checks,
];
/// After the last fault: its own end, and the freshness and back-off that follow.
const SETTLE: Duration = ms(30_000);

pub(super) fn chaos(world: &mut World) -> Duration {
    world.wire.loss = world.chance.pick(&[0.0, 0.01, 0.05]);
    world.wire.duplication = 0.02;
    world.wire.quiet = world.chance.happens(0.2);
    let mut at = Duration::ZERO;
    for _ in 0..FAULTS {
        let kind = world.chance.pick(&KINDS);
        world.after(at, move |world| {
            kind(world);
        });
        at += world.chance.between(ms(500), ms(9_000));
    }
    at + SETTLE
}
