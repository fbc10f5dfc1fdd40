//! Scenarios of lost connectivity: split segments, isolated nodes, and segments without other
//! hosts.

use super::scenario::ms;
use super::world::SimWorld;
use std::time::Duration;

pub(super) fn split(world: &mut SimWorld) -> Duration {
    let parts: Vec<u8> = (0..world.nodes.len()).map(|_| u8::from(world.rng.chance(0.5))).collect();
    world.split(&parts);
    heal_later(world)
}

pub(super) fn isolate(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.isolate(owner);
    heal_later(world)
}

pub(super) fn heal_later(world: &mut SimWorld) -> Duration {
    let time = world.rng.between(ms(100), ms(6_000));
    world.after(time, SimWorld::heal);
    ms(22_000)
}

pub(super) fn receives_nothing(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.set_isolated(owner, true);
    world.after(ms(8_000), move |world| world.set_isolated(owner, false));
    ms(24_000)
}

/// Suppresses all frames of hosts that are not nodes until the end of the run.
pub(super) fn silence_other_hosts(world: &mut SimWorld) {
    (world.segment.no_client_broadcasts, world.segment.no_client_replies) = (true, true);
}

pub(super) fn one_survivor(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    let survivor = world.rng.below(world.nodes.len());
    (0..world.nodes.len()).filter(|index| *index != survivor).for_each(|index| world.crash(index));
    ms(12_000)
}

pub(super) fn one_restarted_survivor(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    let survivor = world.rng.below(world.nodes.len());
    world.crash(survivor);
    world.after(ms(3_000), move |world| world.start(survivor));
    world.after(ms(12_000), move |world| {
        (0..world.nodes.len())
            .filter(|index| *index != survivor)
            .for_each(|index| world.crash(index));
    });
    ms(24_000)
}

pub(super) fn isolate_silent(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    isolate(world)
}

pub(super) fn receives_nothing_silent(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    receives_nothing(world)
}

pub(super) fn receives_nothing_forever(world: &mut SimWorld) -> Duration {
    world.segment.no_client_replies = world.rng.chance(0.5);
    let owner = world.owner();
    world.set_isolated(owner, true);
    ms(24_000)
}

pub(super) fn one_way(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(100), ms(6_000)));
    if world.rng.chance(0.5) {
        world.set_sends_nothing(owner, true);
        world.after(time, move |world| world.set_sends_nothing(owner, false));
    } else {
        let other = (owner + 1 + world.rng.below(world.nodes.len() - 1)) % world.nodes.len();
        world.set_cut(owner, other, true);
        world.after(time, move |world| world.set_cut(owner, other, false));
    }
    ms(22_000)
}

/// Restarts an owner on an interface that receives nothing. The node cannot detect that, and
/// announces every unit when its probes have brought no reply.
pub(super) fn isolated_start(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.crash(owner);
    world.after(ms(3_000), move |world| {
        world.start(owner);
        world.set_isolated(owner, true);
    });
    world.after(ms(20_000), move |world| world.set_isolated(owner, false));
    ms(40_000)
}

/// Isolates an owner six times, 13 s apart: long enough for the previous preempt delay to end.
pub(super) fn repeated_isolation(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    for round in 0..6 {
        world.after(ms(13_000 * round), move |world| world.isolate(owner));
        world.after(ms(13_000 * round + 1_000), SimWorld::heal);
    }
    ms(13_000 * 6 + 8_000)
}

/// Isolates random nodes for a short time. No other frames are lost, because one more missing hello
/// would count as a failure.
pub(super) fn short_isolation(world: &mut SimWorld) -> Duration {
    world.segment.loss = 0.0;
    for round in 0..10 {
        let (node, time) = (world.rng.below(world.nodes.len()), world.rng.between(ms(20), ms(80)));
        world.after(ms(2_000 * round + 500), move |world| world.isolate(node));
        world.after(ms(2_000 * round + 500) + time, SimWorld::heal);
    }
    ms(24_000)
}
