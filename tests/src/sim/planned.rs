//! Scenarios in which nothing breaks: restarts, drains, cordons, changes of the API that some learn late. They may cost nothing.

use super::scenario::ms;
use super::view::{Change, only};
use super::world::World;
use std::time::Duration;

/// How many nodes a rolling restart takes in turn at most: with a hundred of them it would last for minutes.
const ROLLED_MAX: usize = 10;

pub(super) fn restart(world: &mut World) -> Duration {
    let owner = world.owner();
    world.leave(owner);
    world.after(ms(3_000), move |world| world.start(owner));
    ms(20_000)
}

pub(super) fn roll(world: &mut World) -> Duration {
    let count = world.nodes.len().min(ROLLED_MAX);
    for (round, index) in (0..).zip(0..count) {
        world.after(ms(4_000 * round), move |world| world.leave(index));
        world.after(ms(4_000 * round + 2_600), move |world| world.start(index));
    }
    ms(4_000 * count as u64 + 12_000)
}

pub(super) fn leave2(world: &mut World) -> Duration {
    let (owner, wait) = (world.owner(), world.chance.between(ms(0), ms(300)));
    let next = (owner + 1) % world.nodes.len();
    world.leave(owner);
    world.after(wait, move |world| world.leave(next));
    ms(8_000)
}

/// The best successor says hello every second only, so its death is not known yet when it is waited for.
pub(super) fn dead_taker(world: &mut World) -> Duration {
    let owner = world.owner();
    let unit = world.nodes[owner].holds.iter().position(|holds| *holds).unwrap_or(0);
    let taker = world.catalogue.ranked(unit, owner)[0];
    world.die(taker);
    let wait = world.chance.between(ms(10), ms(300));
    world.after(wait, move |world| world.leave(owner));
    ms(8_000)
}

pub(super) fn selector(world: &mut World) -> Duration {
    let change = world.some_candidates();
    world.api(ms(4_000), change, None);
    ms(16_000)
}

pub(super) fn endpoints(world: &mut World) -> Duration {
    world.serves = false;
    selector(world)
}

fn cordoned(world: &World, node: usize) -> Change {
    Change { cordoned: Some(only(world.nodes.len(), &[node])), ..Change::default() }
}

pub(super) fn cordon(world: &mut World) -> Duration {
    let owner = world.owner();
    let change = cordoned(world, owner);
    world.api(ms(3_000), change, None);
    ms(14_000)
}

pub(super) fn stale(world: &mut World) -> Duration {
    let owner = world.owner();
    let change = cordoned(world, owner);
    world.api(ms(500), change, Some((owner, ms(12_000))));
    ms(25_000)
}

pub(super) fn stale_sel(world: &mut World) -> Duration {
    let (owner, nodes) = (world.owner(), world.nodes.len());
    let late = world.chance.below(nodes);
    let others: Vec<usize> = (0..nodes).filter(|node| *node != owner).collect();
    let candidates = vec![only(nodes, &others); world.units()];
    let change = Change { candidates: Some(candidates), ..Change::default() };
    world.api(ms(500), change, Some((late, ms(12_000))));
    ms(25_000)
}

pub(super) fn health(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(100), ms(3_000)));
    world.says(owner, false, true);
    world.after(time, move |world| world.says(owner, false, false));
    ms(14_000)
}

pub(super) fn drain(world: &mut World) -> Duration {
    let owner = world.owner();
    world.says(owner, true, false);
    world.after(ms(8_000), move |world| world.says(owner, false, false));
    ms(20_000)
}

pub(super) fn stuck(world: &mut World) -> Duration {
    let owner = world.owner();
    world.wedge(owner, true);
    world.after(ms(6_000), move |world| world.wedge(owner, false));
    ms(20_000)
}

/// The start is all there is to it: see [`super::run`].
pub(super) fn cold(_: &mut World) -> Duration {
    ms(12_000)
}
