//! Scenarios of stated detection times: frames with another time are lost, only two nodes remain,
//! nodes start while an owner stalls, and a node states more than it needs.

use super::bounds::{ScenarioBounds, TWO_HELLOS_MS};
use super::detection_times::LostFrames;
use super::faulty_machine::{Defect, LONG_DETECTION_TIME};
use super::isolation::silence_other_hosts;
use super::scenario::{Scenario, ms, scenario};
use super::stalls::{SETTLE_TIME, STALLS_TIME, bounds, of_one_node};
use super::world::SimWorld;
use std::time::Duration;

/// Number of changes of a stated time in one run, and the time from one to the next.
const CHANGES: u32 = 12;
const CHANGE_INTERVAL: Duration = ms(5_000);
/// Interval of the checks whether a node states another time, and their maximum number.
const CHECK_INTERVAL: Duration = ms(2);
const CHECKS: u32 = 700;
/// Time after a change in which the node stalls again: that of the first frames with another time.
const STALL_AFTER_CHANGE_MAX: Duration = ms(160);
/// Time by which a stall is shorter than the detection time of its node, so that others wait for
/// the node: the last part of that time, and the interval of its hellos.
const STALL_MARGIN: Duration = ms(90);
/// Number of stalls after which a node states a detection time of 1.8 s, and the time from one to
/// the next.
const STALLS_UNTIL_LATE: u32 = 6;
const STALL_INTERVAL: Duration = ms(1_500);
/// Number of starts of a node in one run, and the time from one to the next.
const STARTS: u32 = 4;
const START_INTERVAL: Duration = ms(14_000);
/// Maximum time from the beginning of a stall to the start of another node.
const START_DELAY_MAX: Duration = ms(200);
/// Time in which the units of killed nodes get other owners.
const FAILOVER_TIME: Duration = ms(3_000);
/// Time until a node that has restarted owns units again.
const RETURN_TIME: Duration = ms(25_000);

/// Bounds if all nodes but two fail at once: the candidates for a unit fail with its owner.
const TWO_OF_MANY: ScenarioBounds = bounds().unowned(590);
/// Bounds if a node restarts while the first candidate for its units stalls: others wait for the
/// time that this candidate states as the owner of other units.
const STARTS_BOUNDS: ScenarioBounds =
    bounds().unowned(370 + 1_810).double_owner_after_fault(TWO_HELLOS_MS);

/// Scenarios of stated detection times.
pub(super) static SCENARIOS: [Scenario; 7] = [
    scenario(
        "stalls_changes",
        "owners state other times, others lose the first frames, and the owners stall again",
        around_changes,
        bounds(),
        None,
    ),
    scenario(
        "stalls_two",
        "only two nodes remain, and an owner stalls again and again",
        of_one_of_two,
        TWO_OF_MANY,
        None,
    ),
    scenario(
        "stalls_silent",
        "the same on a network segment without other hosts",
        of_one_of_two_silent,
        TWO_OF_MANY,
        None,
    ),
    scenario(
        "stalls_start",
        "a node restarts while an owner stalls that has stated a long time",
        starts,
        STARTS_BOUNDS,
        None,
    ),
    scenario(
        "stalls_start_two",
        "the same if only these two nodes remain on a network segment without other hosts",
        starts_of_two,
        STARTS_BOUNDS,
        None,
    ),
    scenario(
        "long_time",
        "a node states a detection time of one minute, and another owner is killed",
        long_detection_time,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "long_time_killed",
        "an owner that states a detection time of one minute is killed",
        failure_of_long_detection_time,
        ScenarioBounds::failure().waits_for_stated_time(),
        None,
    ),
];

impl SimWorld {
    /// Returns a random node other than this one.
    fn other_than(&mut self, node: usize) -> usize {
        (node + 1 + self.rng.below(self.nodes.len() - 1)) % self.nodes.len()
    }

    /// Stalls a node for almost as long as it has stated.
    fn stall_within_lease(&mut self, node: usize) {
        let time = self.nodes[node].detection_time.saturating_sub(STALL_MARGIN);
        self.freeze(node, time);
    }

    /// Lets an owner and another node be the only ones, and returns them.
    fn reduce_to_two(&mut self) -> [usize; 2] {
        let owner = self.owner();
        let two = [owner, self.other_than(owner)];
        (0..self.nodes.len()).filter(|node| !two.contains(node)).for_each(|node| self.crash(node));
        two
    }
}

/// Lets owners state other detection times, because they are late or because a node of an earlier
/// version joins or leaves.
fn around_changes(world: &mut SimWorld) -> Duration {
    // No other frames are lost, so that never two frames in a row are.
    world.segment.loss = 0.0;
    world.segment.lost_frames = Some(LostFrames::default());
    for change in 0..CHANGES {
        world.after(CHANGE_INTERVAL * change, change_detection_time);
    }
    CHANGE_INTERVAL * CHANGES + SETTLE_TIME
}

fn change_detection_time(world: &mut SimWorld) {
    let owner = world.owner();
    let before = world.nodes[owner].detection_time;
    if world.rng.chance(0.5) {
        world.stall_within_lease(owner);
    } else {
        let other = world.other_than(owner);
        let is_earlier = world.nodes[other].defect.is_some();
        let defect = Some(Defect::StatesNoDetectionTime).filter(|_| !is_earlier);
        world.restart_with(other, defect);
    }
    stall_after_change(world, owner, before, CHECKS);
}

/// Stalls a node soon after it has stated another detection time than `before`, for a time between
/// the two.
fn stall_after_change(world: &mut SimWorld, node: usize, before: Duration, checks: u32) {
    let stated = world.nodes[node].detection_time;
    if stated == before && checks > 0 {
        return world.after(CHECK_INTERVAL, move |world| {
            stall_after_change(world, node, before, checks - 1);
        });
    }
    let shortest = stated.min(before).saturating_sub(STALL_MARGIN);
    let time = world.rng.between(shortest, stated.max(before));
    let wait = world.rng.between(Duration::ZERO, STALL_AFTER_CHANGE_MAX);
    world.after(wait, move |world| world.freeze(node, time));
}

fn of_one_of_two(world: &mut SimWorld) -> Duration {
    let [owner, _] = world.reduce_to_two();
    world.after(FAILOVER_TIME, move |world| {
        of_one_node(world, owner);
    });
    FAILOVER_TIME + STALLS_TIME + SETTLE_TIME
}

fn of_one_of_two_silent(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    of_one_of_two(world)
}

fn starts(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let other = world.other_than(owner);
    start_in_stalls(world, [owner, other])
}

fn starts_of_two(world: &mut SimWorld) -> Duration {
    silence_other_hosts(world);
    let two = world.reduce_to_two();
    start_in_stalls(world, two)
}

/// Lets an owner state a long detection time, and then stall for almost as long again and again.
/// Each time, the other node restarts.
fn start_in_stalls(world: &mut SimWorld, [owner, other]: [usize; 2]) -> Duration {
    for stall in 0..STALLS_UNTIL_LATE {
        let at = FAILOVER_TIME + STALL_INTERVAL * stall;
        world.after(at, move |world| world.stall_within_lease(owner));
    }
    let late = FAILOVER_TIME + STALL_INTERVAL * STALLS_UNTIL_LATE;
    for start in 0..STARTS {
        world.after(late + START_INTERVAL * start, move |world| {
            world.stall_within_lease(owner);
            let wait = world.rng.between(Duration::ZERO, START_DELAY_MAX);
            world.after(wait, move |world| world.restart_with(other, None));
        });
    }
    late + START_INTERVAL * STARTS + SETTLE_TIME
}

/// Lets a node state a far too long detection time, and kills another owner.
fn long_detection_time(world: &mut SimWorld) -> Duration {
    let owner = world.owner();
    let liar = world.other_than(owner);
    world.restart_with(liar, Some(Defect::StatesLongDetectionTime));
    world.after(ms(12_000), move |world| world.crash(owner));
    ms(20_000)
}

/// Lets an owner state a far too long detection time, and kills it.
fn failure_of_long_detection_time(world: &mut SimWorld) -> Duration {
    let liar = world.owner();
    world.restart_with(liar, Some(Defect::StatesLongDetectionTime));
    world.after(RETURN_TIME, move |world| world.crash(liar));
    RETURN_TIME + LONG_DETECTION_TIME + ms(6_000)
}
