//! Scenarios of busy nodes: their processes are stopped again and again, mostly for short times.

use super::bounds::{ScenarioBounds, TWO_HELLOS_MS};
use super::faulty_machine::Defect;
use super::scenario::{Scenario, ms, scenario};
use super::world::SimWorld;
use std::time::Duration;

/// Time in which nodes stall.
pub(super) const STALLS_TIME: Duration = ms(60_000);
/// Time from the last stall to the end of the run.
pub(super) const SETTLE_TIME: Duration = ms(30_000);
const STALL_MIN: Duration = ms(60);
const STALL_MAX: Duration = ms(3_000);
/// Maximum time in milliseconds after a stall until the only healthy node has its units again: it
/// fences itself, and listens until it has received a hello of each other node. Those send one
/// every 200 ms, of which two in a row may be lost.
const TAKEN_BACK_MAX_MS: u64 = 700;
/// Bounds of the time between two stalls.
const BETWEEN: [Duration; 2] = [ms(300), ms(4_000)];

/// Scenarios of busy nodes.
pub(super) static SCENARIOS: [Scenario; 7] = [
    scenario(
        "stalls",
        "an owner stalls again and again, for 60 ms to 3 s",
        of_an_owner,
        bounds(),
        None,
    ),
    scenario("stalls_in_turn", "two nodes stall in turn", of_two_nodes_in_turn, bounds(), None),
    scenario(
        "stalls_all",
        "all nodes stall again and again",
        of_all_nodes,
        bounds().unowned(590),
        None,
    ),
    scenario(
        "stalls_loss10",
        "an owner stalls again and again, and one frame in ten is lost",
        with_loss,
        bounds().double_owner_after_fault(TWO_HELLOS_MS),
        None,
    ),
    scenario(
        "stalls_mixed",
        "an owner stalls again and again, and random nodes run an earlier version for a while",
        with_earlier_versions,
        bounds(),
        None,
    ),
    scenario(
        "stalls_alone",
        "an owner stalls again and again, and kube-proxy of all others is unhealthy",
        beside_unhealthy_nodes,
        // The owner loses its addresses in a stall, and takes them back soon after it.
        bounds().burst(10).unhealthy_owner(TAKEN_BACK_MAX_MS),
        None,
    ),
    scenario(
        "busy_death",
        "an owner that has stalled before is killed",
        then_failure,
        bounds().unowned(250),
        None,
    ),
];

/// Bounds of a scenario in which nodes stall: a unit may have no owner for as long as its owner has
/// stated, and two better candidates may have stalled before, so that they still listen.
pub(super) const fn bounds() -> ScenarioBounds {
    let bounds = ScenarioBounds::failure().unowned(370).waits_for_stated_time();
    bounds.double_owner_after_fault(5).fences(None)
}

/// Returns the length of a stall, by a distribution with a heavy tail: each doubling is half as
/// likely.
fn length(world: &mut SimWorld) -> Duration {
    let mut length = world.rng.between(STALL_MIN, STALL_MIN * 2);
    while length < STALL_MAX && world.rng.chance(0.5) {
        length *= 2;
    }
    length.min(STALL_MAX)
}

/// Stops nodes again and again. `select` returns the node of the stall with this number.
fn stall(world: &mut SimWorld, select: impl Fn(&mut SimWorld, usize) -> usize) {
    let (mut at, mut number) = (Duration::ZERO, 0);
    while at < STALLS_TIME {
        let (node, time) = (select(world, number), length(world));
        world.after(at, move |world| world.freeze(node, time));
        let [shortest, longest] = BETWEEN;
        at += time + world.rng.between(shortest, longest);
        number += 1;
    }
}

fn of_an_owner(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    of_one_node(world, owner)
}

pub(super) fn of_one_node(world: &mut SimWorld, node: usize) -> Duration {
    stall(world, |_, _| node);
    STALLS_TIME + SETTLE_TIME
}

fn of_two_nodes_in_turn(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let other = (owner + 1) % world.nodes.len();
    stall(world, |_, number| if number % 2 == 0 { owner } else { other });
    STALLS_TIME + SETTLE_TIME
}

/// Stops all nodes independently of each other.
fn of_all_nodes(world: &mut SimWorld) -> Duration {
    for node in 0..world.nodes.len() {
        stall(world, |_, _| node);
    }
    STALLS_TIME + SETTLE_TIME
}

/// Loses frames, also the first ones that state another detection time.
fn with_loss(world: &mut SimWorld) -> Duration {
    world.segment.loss = 0.10;
    of_an_owner(world)
}

/// Replaces random nodes by nodes of an earlier version, whose frames state no detection time.
fn with_earlier_versions(world: &mut SimWorld) -> Duration {
    for node in 0..world.nodes.len() {
        if world.rng.chance(0.5) {
            let defect = Defect::StatesNoDetectionTime;
            let at = world.rng.between(ms(0), STALLS_TIME);
            world.after(at, move |world| world.restart_with(node, Some(defect)));
            let until = at + world.rng.between(ms(2_000), STALLS_TIME);
            world.after(until, move |world| world.restart_with(node, None));
        }
    }
    of_an_owner(world);
    STALLS_TIME * 2 + SETTLE_TIME
}

/// Lets an owner stall beside nodes whose kube-proxy is unhealthy.
fn beside_unhealthy_nodes(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    for node in (0..world.nodes.len()).filter(|node| *node != owner) {
        world.set_node_state(node, false, true);
    }
    world.after(ms(3_000), move |world| stall(world, |_, _| owner));
    STALLS_TIME + SETTLE_TIME
}

/// Kills an owner that has stalled before, and in most runs owns units again.
fn then_failure(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(60), ms(1_900)));
    world.freeze(owner, time);
    let wait = world.rng.between(ms(10_000), ms(40_000));
    world.after(time + wait, move |world| world.crash(owner));
    time + wait + ms(6_000)
}
