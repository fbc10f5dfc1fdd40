//! Scenarios of filtered frames: a packet filter drops the frames of the ownership protocol, and
//! ARP passes.

use super::bounds::ScenarioBounds;
use super::checker::Cause;
use super::isolation::heal_later;
use super::scenario::{Scenario, ms, scenario};
use super::segment::SecondPath;
use super::world::SimWorld;
use std::time::Duration;

/// Time for which the frames are filtered.
const FILTERED: Duration = ms(10_000);
/// Interval of forged announcements.
const FORGERY_INTERVAL: Duration = ms(40);

/// Maximum time in milliseconds for which a unit has two owners while nodes begin to miss each
/// other's frames: the interval of the hellos by the second path, or the time that a node needs to
/// detect the owner by ARP, for each candidate that takes the unit.
const TWO_OWNERS_MAX_MS: u64 = 500;

/// Scenarios of filtered frames.
pub(super) static SCENARIOS: [Scenario; 7] = [
    scenario(
        "filter",
        "frames to one node, or to every node, are filtered for 10 s",
        filtered,
        bounds().unowned(0).moves(0),
        None,
    ),
    scenario(
        "filter_no_udp",
        "frames are filtered for 10 s, and UDP, too",
        filtered_without_udp,
        bounds().moves(3),
        None,
    ),
    scenario(
        "filter_drain",
        "frames are filtered, then an owner is drained",
        filtered_drain,
        bounds().unowned(30).moves(3),
        None,
    ),
    scenario(
        "filter_death",
        "frames are filtered, then an owner is killed",
        filtered_failure,
        bounds().unowned(1_250).moves(3),
        None,
    ),
    scenario(
        "filter_death_no_udp",
        "frames are filtered, and UDP, too; then an owner is killed",
        filtered_failure_without_udp,
        bounds().unowned(12_500).moves(6),
        None,
    ),
    scenario(
        "filter_restart",
        "frames are filtered, then a node is killed and restarts",
        filtered_restart,
        bounds().unowned(12_500).moves(6),
        None,
    ),
    scenario(
        "filter_start",
        "all frames are filtered before the nodes start",
        filtered_start,
        bounds().unowned(13_500).moves(4),
        None,
    ),
];

/// Returns the bounds of all scenarios of filtered frames.
const fn bounds() -> ScenarioBounds {
    ScenarioBounds::failure().reunions(2).double_owner_after_take(TWO_OWNERS_MAX_MS)
}

impl SimWorld {
    /// Starts or stops to filter the frames that arrive at a node.
    fn set_filter(&mut self, index: usize, filters: bool) {
        self.log(|| format!("===== n{index} filters frames: {filters}"));
        if filters {
            self.segment.filters.insert(index);
        } else {
            self.segment.filters.remove(&index);
        }
        self.update_all_states(Cause::World);
    }

    fn set_filters(&mut self, nodes: &[usize], filters: bool) {
        nodes.iter().for_each(|index| self.set_filter(*index, filters));
    }

    /// Filters the frames that arrive at one node, or at every node, for [`FILTERED`].
    fn filter(&mut self) {
        let nodes: Vec<usize> = if self.rng.chance(0.5) {
            vec![self.rng.below(self.nodes.len())]
        } else {
            (0..self.nodes.len()).collect()
        };
        self.set_filters(&nodes, true);
        self.after(FILTERED, move |world| world.set_filters(&nodes, false));
    }

    /// Gives the nodes a second path that works.
    fn open_second_path(&mut self) {
        let paths = [SecondPath::Segment, SecondPath::OtherNetwork];
        self.segment.second_path = self.rng.pick(&paths);
    }
}

fn filtered(world: &mut SimWorld) -> Duration {
    world.open_second_path();
    world.filter();
    FILTERED + ms(12_000)
}

fn filtered_without_udp(world: &mut SimWorld) -> Duration {
    world.segment.second_path = SecondPath::Blocked;
    world.filter();
    FILTERED + ms(12_000)
}

fn filtered_drain(world: &mut SimWorld) -> Duration {
    world.open_second_path();
    world.filter();
    let owner = world.owner();
    let wait = world.rng.between(ms(100), ms(6_000));
    world.after(wait, move |world| world.set_node_state(owner, true, false));
    FILTERED + ms(12_000)
}

fn filtered_failure(world: &mut SimWorld) -> Duration {
    world.open_second_path();
    world.filter();
    let owner = world.owner();
    let wait = world.rng.between(ms(100), ms(6_000));
    world.after(wait, move |world| world.crash(owner));
    FILTERED + ms(12_000)
}

/// Restarts a node while frames are filtered.
fn filtered_restart(world: &mut SimWorld) -> Duration {
    world.filter();
    let node = world.rng.below(world.nodes.len());
    let wait = world.rng.between(ms(100), ms(4_000));
    world.after(wait, move |world| {
        world.crash(node);
        let wait = world.rng.between(ms(20), ms(2_000));
        world.after(wait, move |world| world.start(node));
    });
    FILTERED + ms(12_000)
}

fn filtered_failure_without_udp(world: &mut SimWorld) -> Duration {
    filtered_failure(world);
    world.segment.second_path = SecondPath::Blocked;
    FILTERED + ms(20_000)
}

/// Filters all frames from before the start of the nodes on. No node ever hears another one.
fn filtered_start(world: &mut SimWorld) -> Duration {
    let nodes: Vec<usize> = (0..world.nodes.len()).collect();
    world.set_filters(&nodes, true);
    for index in nodes {
        world.crash(index);
        let wait = world.rng.between(ms(100), ms(3_000));
        world.after(wait, move |world| world.start(index));
    }
    ms(40_000)
}

/// Cuts an owner off, while a proxy replies to ARP for it, and the second path works.
pub(super) fn cut_off_with_proxy(world: &mut SimWorld) -> Duration {
    world.segment.second_path = SecondPath::OtherNetwork;
    world.segment.proxy = true;
    let owner = world.owner();
    world.isolate(owner);
    heal_later(world)
}

/// Kills an owner. From then on, a foreign host announces its addresses with its MAC.
pub(super) fn forgery(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let mac = world.nodes[owner].mac;
    let units: Vec<usize> =
        (0..world.units()).filter(|unit| world.nodes[owner].owns[*unit]).collect();
    world.crash(owner);
    for round in 0..100 {
        let units = units.clone();
        world.after(ms(500) + FORGERY_INTERVAL * round, move |world| {
            for index in 0..world.nodes.len() {
                units.iter().for_each(|unit| world.send_foreign_arp(index, *unit, mac, true));
            }
        });
    }
    ms(12_000)
}
