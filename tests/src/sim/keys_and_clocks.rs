//! Scenarios about what all nodes share and none can be sure of: keys, clocks, power, whose an address is.

use super::scenario::ms;
use super::world::{World, key};
use std::time::Duration;

/// The worst drift of a crystal that is still sold, in parts per million.
const DRIFT_PPM: usize = 200;

pub(super) fn drift(world: &mut World) -> Duration {
    for index in 0..world.nodes.len() {
        let drift = world.chance.below(2 * DRIFT_PPM + 1) as i32 - DRIFT_PPM as i32;
        let now = world.now;
        world.nodes[index].clock.set_drift(now, drift);
    }
    ms(90_000)
}

pub(super) fn leap(world: &mut World) -> Duration {
    let (owner, by) = (world.owner(), world.chance.between(ms(200), ms(60_000)));
    world.leap(owner, by);
    ms(20_000)
}

/// Every node learns of the second key at a time of its own, and later that the first is gone.
pub(super) fn keys(world: &mut World) -> Duration {
    for (begin, numbers) in [(0, &[2, 1][..]), (8_000, &[2])] {
        for index in 0..world.nodes.len() {
            let wait = world.chance.between(ms(begin + 20), ms(begin + 4_000));
            world
                .after(wait, move |world| world.learn_keys(index, numbers.iter().map(|number| key(*number)).collect()));
        }
    }
    ms(18_000)
}

/// Another host announces an address that is held: five times within 5 s, and once more when it may be defended again.
pub(super) fn stranger(world: &mut World) -> Duration {
    let unit = world.chance.below(world.units());
    for at in [0, 1_000, 2_000, 3_000, 4_000, 11_000] {
        world.after(ms(at), move |world| world.claim_as_stranger(unit));
    }
    ms(18_000)
}

/// Another host has the first unit's address since before anyone of us; in the end it goes.
pub(super) fn squatter(world: &mut World) -> Duration {
    let time = world.chance.between(ms(5_000), ms(25_000));
    world.after(time, |world| world.squat(0, false));
    ms(50_000)
}

pub(super) fn power_cut(world: &mut World) -> Duration {
    for index in 0..world.nodes.len() {
        world.die(index);
        let wait = world.chance.between(ms(100), ms(3_000));
        world.after(wait, move |world| world.start(index));
    }
    ms(20_000)
}
