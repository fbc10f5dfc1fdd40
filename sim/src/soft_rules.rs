//! Scenarios in which soft rules apply to nodes, such as a drain or failing health checks. A unit
//! may move to a better node, without an outage, and must stay if no node is better.

use super::scenario::ms;
use super::view::{ApiChange, node_flags};
use super::world::SimWorld;
use std::time::Duration;

/// Time from the change of one node to the change of the next node.
const NODE_INTERVAL: Duration = ms(1_500);
/// Time within which all nodes have received the final change and reacted to it.
const REACTION_MAX: Duration = ms(1_500);
/// Length of the time after [`REACTION_MAX`] in which no unit may move: longer than any preempt
/// delay.
const NO_MOVES_TIME: Duration = ms(100_000);
/// Number of random changes. [`CHANGES_TIME`] is the time in which they happen.
const CHANGES: usize = 16;
const CHANGES_TIME: Duration = ms(20_000);
/// Time after the last change in which all doubts end.
const SETTLE_TIME: Duration = ms(20_000);

fn owned_units(world: &SimWorld, owner: usize) -> Vec<usize> {
    (0..world.units()).filter(|unit| world.nodes[owner].owns[*unit]).collect()
}

/// Makes an owner's health checks of all its units fail temporarily.
pub(super) fn failing(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(100), ms(3_000)));
    for unit in owned_units(world, owner) {
        world.set_failing(owner, unit, true);
        world.after(time, move |world| world.set_failing(owner, unit, false));
    }
    ms(24_000)
}

/// Makes a node's health checks of all units fail permanently. At the end of the run the node must
/// own no unit, whatever the number of units is.
pub(super) fn all_checks_failing(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    (0..world.units()).for_each(|unit| world.set_failing(owner, unit, true));
    ms(24_000)
}

/// Makes an owner's health checks fail and pass alternately.
pub(super) fn flapping(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    for unit in owned_units(world, owner) {
        for round in 0..6 {
            world.after(ms(1_000 * round), move |world| {
                world.set_failing(owner, unit, round % 2 == 0)
            });
        }
    }
    ms(7_500)
}

/// Makes the health checks of random units on random nodes fail or pass at random times.
pub(super) fn checks(world: &mut SimWorld) -> Duration {
    for _ in 0..CHANGES {
        let (node, unit) = (world.rng.below(world.nodes.len()), world.rng.below(world.units()));
        let wait = world.rng.between(Duration::ZERO, CHANGES_TIME);
        world.after(wait, move |world| {
            world.set_failing(node, unit, !world.nodes[node].failing[unit])
        });
    }
    CHANGES_TIME + SETTLE_TIME
}

/// Returns all nodes in a random order.
fn shuffled(world: &mut SimWorld) -> Vec<usize> {
    let mut remaining: Vec<usize> = (0..world.nodes.len()).collect();
    (0..remaining.len()).map(|_| remaining.swap_remove(world.rng.below(remaining.len()))).collect()
}

/// Calls `apply` repeatedly, each time with one more node in a random order, up to all nodes. After
/// [`REACTION_MAX`], no unit may move.
fn apply_to_all_nodes(
    world: &mut SimWorld,
    apply: impl Fn(&mut SimWorld, &[usize]) + Copy + 'static,
) -> Duration {
    let order = shuffled(world);
    let mut at = Duration::ZERO;
    for count in 1..=order.len() {
        let affected = order[..count].to_vec();
        world.after(at, move |world| apply(world, &affected));
        at += NODE_INTERVAL;
    }
    world.after(at + REACTION_MAX, |world| world.expect_no_moves(true));
    at + REACTION_MAX + NO_MOVES_TIME
}

pub(super) fn all_failing(world: &mut SimWorld) -> Duration {
    apply_to_all_nodes(world, |world, affected| {
        let Some(node) = affected.last() else { return };
        (0..world.units()).for_each(|unit| world.set_failing(*node, unit, true));
    })
}

/// Drains all nodes, or makes all nodes unhealthy, one after another. The choice is random.
pub(super) fn all_unhealthy(world: &mut SimWorld) -> Duration {
    let draining = world.rng.chance(0.5);
    apply_to_all_nodes(world, move |world, affected| {
        let Some(node) = affected.last() else { return };
        world.set_node_state(*node, draining, !draining);
    })
}

pub(super) fn all_cordoned(world: &mut SimWorld) -> Duration {
    apply_to_all_nodes(world, |world, affected| {
        let cordoned = Some(node_flags(world.nodes.len(), affected));
        world.change_api(ms(1_000), ApiChange { cordoned, ..ApiChange::default() }, None);
    })
}

/// Cordons some nodes; then random nodes drain, become unhealthy and fail health checks at the same
/// time. At the end of the run, the best node by the soft rules must own each unit.
pub(super) fn mixed(world: &mut SimWorld) -> Duration {
    let cordoned = (0..world.nodes.len()).map(|_| world.rng.chance(0.5)).collect();
    world.change_api(
        ms(1_000),
        ApiChange { cordoned: Some(cordoned), ..ApiChange::default() },
        None,
    );
    for _ in 0..CHANGES {
        let wait = world.rng.between(NODE_INTERVAL, CHANGES_TIME);
        world.after(wait, |world| {
            let (node, unit) = (world.rng.below(world.nodes.len()), world.rng.below(world.units()));
            let (draining, unhealthy) = (world.rng.chance(0.5), world.rng.chance(0.5));
            world.set_node_state(node, draining, unhealthy);
            world.set_failing(node, unit, !world.nodes[node].failing[unit]);
        });
    }
    CHANGES_TIME + SETTLE_TIME + SETTLE_TIME
}
