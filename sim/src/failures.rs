//! Scenarios of failed, stopped and restarted nodes, and of lost frames.

use super::PREEMPT_DELAY;
use super::scenario::ms;
use super::world::SimWorld;
use std::time::Duration;

pub(super) fn failure(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.crash(owner);
    ms(6_000)
}

pub(super) fn proxy(world: &mut SimWorld) -> Duration {
    world.segment.proxy = true;
    failure(world);
    ms(8_000)
}

pub(super) fn two_failures(world: &mut SimWorld) -> Duration {
    let (owner, other) = (world.owner(), world.rng.below(world.nodes.len()));
    world.crash(owner);
    let wait = world.rng.between(ms(0), ms(300));
    world.after(wait, move |world| world.crash(other));
    ms(6_000)
}

pub(super) fn loss(world: &mut SimWorld, share: f64) -> Duration {
    world.segment.loss = share;
    ms(30_000)
}

pub(super) fn freeze_short(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(80), ms(200)));
    world.freeze(owner, time);
    ms(14_000)
}

pub(super) fn freeze(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(200), ms(5_000)));
    world.freeze(owner, time);
    ms(20_000)
}

pub(super) fn pause(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(100), ms(5_000)));
    world.pause(owner, time);
    ms(20_000)
}

pub(super) fn fast_restart(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(20), ms(140)));
    world.crash(owner);
    world.after(time, move |world| world.start(owner));
    ms(16_000)
}

pub(super) fn repeated_failure(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    for round in 0..5 {
        world.after(ms(13_000 * round), move |world| world.crash(owner));
        world.after(ms(13_000 * round + 1_500), move |world| world.start(owner));
    }
    ms(13_000 * 5 + 8_000)
}

/// Restarts an owner after 20 s: only the preempt delay keeps it from taking units.
pub(super) fn late_return(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.crash(owner);
    world.after(ms(20_000), move |world| {
        world.expect_no_moves(true);
        world.start(owner);
    });
    world.after(ms(20_000) + PREEMPT_DELAY - ms(500), |world| world.expect_no_moves(false));
    ms(60_000)
}
