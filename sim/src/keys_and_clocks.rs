//! Scenarios in which a shared precondition of all nodes fails: keys, clocks, power, or the
//! exclusive use of an address.

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

/// Makes a foreign host announce an owned address: five times within 5 s, and once more after the
/// 10 s in which the owner may not defend the address again.
pub(super) fn foreign_host(world: &mut SimWorld) -> Duration {
    let unit = world.rng.below(world.units());
    for at in [0, 1_000, 2_000, 3_000, 4_000, 11_000] {
        world.after(ms(at), move |world| world.announce_as_foreign_host(unit));
    }
    ms(18_000)
}

/// Ends the use of the first unit's address by a foreign host, which began before the nodes
/// started.
pub(super) fn address_in_use(world: &mut SimWorld) -> Duration {
    let time = world.rng.between(ms(5_000), ms(25_000));
    world.after(time, |world| world.set_foreign_host(0, false));
    ms(50_000)
}

pub(super) fn power_cut(world: &mut SimWorld) -> Duration {
    for index in 0..world.nodes.len() {
        world.crash(index);
        let wait = world.rng.between(ms(100), ms(3_000));
        world.after(wait, move |world| world.start(index));
    }
    ms(20_000)
}
