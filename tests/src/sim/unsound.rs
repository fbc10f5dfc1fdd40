//! Scenarios in which something speaks softly against nodes, one after another or by turns: it may move what is served better
//! elsewhere, cost nothing, and leave in peace what is served nowhere better.

use super::scenario::ms;
use super::view::{Change, only};
use super::world::World;
use std::time::Duration;

/// Between two nodes that become unsound.
const EACH: Duration = ms(1_500);
/// Within this time what was said last has been heard by all, and acted on.
const ACTED: Duration = ms(1_500);
/// How long nothing may move afterwards: longer than anything is kept where it is.
const STILL: Duration = ms(100_000);
/// How often checks come or go, and how long they have for it.
const CHANGES: usize = 16;
const CHANGES_WITHIN: Duration = ms(20_000);
/// As long as a node may back off, or refuse.
const SETTLE: Duration = ms(20_000);

fn held(world: &World, owner: usize) -> Vec<usize> {
    (0..world.units()).filter(|unit| world.nodes[owner].holds[*unit]).collect()
}

/// An owner's checks of all that it holds fail for a while.
pub(super) fn failing(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(100), ms(3_000)));
    for unit in held(world, owner) {
        world.fail(owner, unit, true);
        world.after(time, move |world| world.fail(owner, unit, false));
    }
    ms(24_000)
}

/// A node's checks of all units fail, and go on to: in the end it holds nothing, however many they are.
pub(super) fn sick(world: &mut World) -> Duration {
    let owner = world.owner();
    (0..world.units()).for_each(|unit| world.fail(owner, unit, true));
    ms(24_000)
}

/// An owner's checks fail and pass by turns; what it lost is kept from it for longer than that.
pub(super) fn flapping(world: &mut World) -> Duration {
    let owner = world.owner();
    for unit in held(world, owner) {
        for round in 0..6 {
            world.after(ms(1_000 * round), move |world| world.fail(owner, unit, round % 2 == 0));
        }
    }
    ms(7_500)
}

/// Checks of any unit on any node, at any time.
pub(super) fn checks(world: &mut World) -> Duration {
    for _ in 0..CHANGES {
        let (node, unit) = (world.chance.below(world.nodes.len()), world.chance.below(world.units()));
        let wait = world.chance.between(Duration::ZERO, CHANGES_WITHIN);
        world.after(wait, move |world| world.fail(node, unit, !world.nodes[node].failing[unit]));
    }
    CHANGES_WITHIN + SETTLE
}

/// All nodes in an order of chance.
fn shuffled(world: &mut World) -> Vec<usize> {
    let mut left: Vec<usize> = (0..world.nodes.len()).collect();
    (0..left.len()).map(|_| left.swap_remove(world.chance.below(left.len()))).collect()
}

/// All nodes become unsound one after another, and from then on nothing moves.
fn all(world: &mut World, become_so: impl Fn(&mut World, &[usize]) + Copy + 'static) -> Duration {
    let order = shuffled(world);
    let mut at = Duration::ZERO;
    for count in 1..=order.len() {
        let so_far = order[..count].to_vec();
        world.after(at, move |world| become_so(world, &so_far));
        at += EACH;
    }
    world.after(at + ACTED, |world| world.expect_stillness(true));
    at + ACTED + STILL
}

pub(super) fn all_failing(world: &mut World) -> Duration {
    all(world, |world, so_far| {
        let Some(node) = so_far.last() else { return };
        (0..world.units()).for_each(|unit| world.fail(*node, unit, true));
    })
}

/// Whether all drain or all are unhealthy, as it happens.
pub(super) fn all_unsound(world: &mut World) -> Duration {
    let draining = world.chance.happens(0.5);
    all(world, move |world, so_far| {
        let Some(node) = so_far.last() else { return };
        world.says(*node, draining, !draining);
    })
}

pub(super) fn all_cordoned(world: &mut World) -> Duration {
    all(world, |world, so_far| {
        let cordoned = Some(only(world.nodes.len(), so_far));
        world.api(ms(1_000), Change { cordoned, ..Change::default() }, None);
    })
}

/// Some nodes are cordoned, and then they drain, are unhealthy and fail checks, by chance and together: in the end each unit is with the
/// one against which the least speaks.
pub(super) fn mixed(world: &mut World) -> Duration {
    let cordoned = (0..world.nodes.len()).map(|_| world.chance.happens(0.5)).collect();
    world.api(ms(1_000), Change { cordoned: Some(cordoned), ..Change::default() }, None);
    for _ in 0..CHANGES {
        let wait = world.chance.between(EACH, CHANGES_WITHIN);
        world.after(wait, |world| {
            let (node, unit) = (world.chance.below(world.nodes.len()), world.chance.below(world.units()));
            let (draining, unhealthy) = (world.chance.happens(0.5), world.chance.happens(0.5));
            world.says(node, draining, unhealthy);
            world.fail(node, unit, !world.nodes[node].failing[unit]);
        });
    }
    CHANGES_WITHIN + SETTLE + SETTLE
}
