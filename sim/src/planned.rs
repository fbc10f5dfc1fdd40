//! Scenarios of planned changes: restarts, drains, cordons, and API changes that some nodes receive
//! late. These changes must cause no outage.

use super::scenario::ms;
use super::view::{ApiChange, node_flags};
use super::world::SimWorld;
use std::time::Duration;

/// Maximum number of nodes in a rolling restart: a restart of a hundred nodes would take minutes.
const ROLLING_RESTARTS_MAX: usize = 10;

pub(super) fn restart(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.leave(owner);
    world.after(ms(3_000), move |world| world.start(owner));
    ms(20_000)
}

pub(super) fn rolling_restart(world: &mut SimWorld) -> Duration {
    let count = world.nodes.len().min(ROLLING_RESTARTS_MAX);
    for (round, index) in (0..).zip(0..count) {
        world.after(ms(4_000 * round), move |world| world.leave(index));
        world.after(ms(4_000 * round + 2_600), move |world| world.start(index));
    }
    ms(4_000 * count as u64 + 12_000)
}

pub(super) fn two_shutdowns(world: &mut SimWorld) -> Duration {
    let (owner, wait) = (world.owner(), world.rng.between(ms(0), ms(300)));
    let next = (owner + 1) % world.nodes.len();
    world.leave(owner);
    world.after(wait, move |world| world.leave(next));
    ms(8_000)
}

/// Kills the best successor of an owner, and then shuts the owner down. A node without units sends
/// a hello only every second, so the other nodes have not detected the successor's failure when its
/// turn comes.
pub(super) fn failed_successor(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let unit = world.nodes[owner].owns.iter().position(|owned| *owned).unwrap_or(0);
    let successor = world.catalog.ranked(unit, owner)[0];
    world.crash(successor);
    let wait = world.rng.between(ms(10), ms(300));
    world.after(wait, move |world| world.leave(owner));
    ms(8_000)
}

pub(super) fn selector(world: &mut SimWorld) -> Duration {
    let change = world.random_candidates();
    world.change_api(ms(4_000), change, None);
    ms(16_000)
}

pub(super) fn endpoints(world: &mut SimWorld) -> Duration {
    world.serves = false;
    selector(world)
}

fn cordoned(world: &SimWorld, node: usize) -> ApiChange {
    ApiChange { cordoned: Some(node_flags(world.nodes.len(), &[node])), ..ApiChange::default() }
}

pub(super) fn cordon(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let change = cordoned(world, owner);
    world.change_api(ms(3_000), change, None);
    ms(14_000)
}

pub(super) fn late_cordon(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let change = cordoned(world, owner);
    world.change_api(ms(500), change, Some((owner, ms(12_000))));
    ms(25_000)
}

pub(super) fn late_selector(world: &mut SimWorld) -> Duration {
    let (owner, nodes) = (world.owner(), world.nodes.len());
    let late = world.rng.below(nodes);
    let others: Vec<usize> = (0..nodes).filter(|node| *node != owner).collect();
    let candidates = vec![node_flags(nodes, &others); world.units()];
    let change = ApiChange { candidates: Some(candidates), ..ApiChange::default() };
    world.change_api(ms(500), change, Some((late, ms(12_000))));
    ms(25_000)
}

/// The API server is away for ten seconds, in which an owner fails. When it returns, all Nodes are
/// NotReady, because their leases have expired. Eight seconds later, those that run are Ready
/// again. Then the candidates change. The nodes receive each change up to two seconds apart.
pub(super) fn api_outage(world: &mut SimWorld) -> Duration {
    const LAG: Duration = ms(2_000);
    let (owner, nodes) = (world.owner(), world.nodes.len());
    let failure = world.rng.between(ms(0), ms(10_000));
    world.after(failure, move |world| world.crash(owner));
    let not_ready = move |some: &[usize]| ApiChange {
        cordoned: Some(node_flags(nodes, some)),
        ..ApiChange::default()
    };
    world.after(ms(10_000), move |world| {
        world.change_api(LAG, not_ready(&(0..nodes).collect::<Vec<_>>()), None);
    });
    world.after(ms(18_000), move |world| world.change_api(LAG, not_ready(&[owner]), None));
    world.after(ms(26_000), |world| {
        let change = world.random_candidates();
        world.change_api(LAG, change, None);
    });
    ms(46_000)
}

pub(super) fn health(world: &mut SimWorld) -> Duration {
    let (owner, time) = (world.owner(), world.rng.between(ms(100), ms(3_000)));
    world.set_node_state(owner, false, true);
    world.after(time, move |world| world.set_node_state(owner, false, false));
    ms(14_000)
}

pub(super) fn drain(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.set_node_state(owner, true, false);
    world.after(ms(8_000), move |world| world.set_node_state(owner, false, false));
    ms(20_000)
}

pub(super) fn stalled_main_loop(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    world.set_stalled(owner, true);
    world.after(ms(6_000), move |world| world.set_stalled(owner, false));
    ms(20_000)
}

/// Adds no fault. The scenario only consists of the start of all nodes, which [`super::Run`]
/// schedules.
pub(super) fn cold(_: &mut SimWorld) -> Duration {
    ms(12_000)
}
