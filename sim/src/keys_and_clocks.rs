//! Scenarios in which a shared precondition of all nodes fails: keys, clocks or power.

use super::scenario::ms;
use super::world::{SimWorld, key};
use std::time::Duration;

/// Maximum drift of common clock crystals, in parts per million.
const DRIFT_PPM: usize = 200;

pub(super) fn drift(world: &mut SimWorld) -> Duration {
    for index in 0..world.nodes.len() {
        let drift = world.rng.below(2 * DRIFT_PPM + 1) as i32 - DRIFT_PPM as i32;
        let now = world.now;
        world.nodes[index].clock.set_drift(now, drift);
    }
    ms(90_000)
}

pub(super) fn leap(world: &mut SimWorld) -> Duration {
    let (owner, by) = (world.owner(), world.rng.between(ms(200), ms(60_000)));
    world.leap(owner, by);
    ms(20_000)
}

/// Rotates the hello keys: every node receives the second key at a random time, and later the
/// removal of the first key.
pub(super) fn key_rotation(world: &mut SimWorld) -> Duration {
    for (begin, numbers) in [(0, &[2, 1][..]), (8_000, &[2])] {
        for index in 0..world.nodes.len() {
            let wait = world.rng.between(ms(begin + 20), ms(begin + 4_000));
            world.after(wait, move |world| {
                world.set_keys(index, numbers.iter().map(|number| key(*number)).collect())
            });
        }
    }
    ms(18_000)
}

pub(super) fn power_cut(world: &mut SimWorld) -> Duration {
    for index in 0..world.nodes.len() {
        world.crash(index);
        let wait = world.rng.between(ms(100), ms(3_000));
        world.after(wait, move |world| world.start(index));
    }
    ms(20_000)
}
