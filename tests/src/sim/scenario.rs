//! The scenarios: which faults come when, what they may cost, and what they cost the model. Each begins when all nodes are up
//! and none is fresh any more, and says how long it has to be watched.

use super::FAILBACK;
use super::bounds::{Bounds, Model, model};
use super::chaos;
use super::keys_and_clocks as odd;
use super::planned;
use super::unsound;
use super::world::World;
use std::time::Duration;

/// One kind of trouble.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    /// Puts the faults into the queue; how long the run goes on.
    pub(super) plan: fn(&mut World) -> Duration,
    pub bounds: Bounds,
    pub model: Option<Model>,
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn scenario(
    name: &'static str,
    what: &'static str,
    plan: fn(&mut World) -> Duration,
    bounds: Bounds,
    model: Option<Model>,
) -> Scenario {
    Scenario { name, what, plan, bounds, model }
}

/// The scenario in which a stranger is there before all nodes.
pub(super) const SQUATTER: &str = "squatter";

/// All of them, in the order of the model's table, then those that the model did not have.
pub static ALL: [Scenario; 51] = [
    scenario("death", "the process of an owner is killed", death, Bounds::death(), model(192, 0)),
    scenario(
        "proxy",
        "an owner dies, and something answers ARP for it",
        proxy,
        Bounds::death().orphan(1_250),
        model(1_152, 0),
    ),
    scenario("loss1", "one frame in a hundred is lost", |w| loss(w, 0.01), Bounds::calm(), model(2, 0)),
    scenario("loss10", "one frame in ten is lost", |w| loss(w, 0.10), Bounds::calm().moves(4), model(2, 0)),
    scenario(
        "freeze_short",
        "an owner stands still for 80 to 200 ms",
        freeze_short,
        Bounds::death().heal(5).fences(Some(1)),
        model(182, 0),
    ),
    scenario(
        "freeze",
        "an owner stands still for up to 5 s",
        freeze,
        Bounds::death().heal(5).fences(Some(1)),
        model(192, 0),
    ),
    scenario(
        "pause",
        "an owner's virtual machine stands still, its clock too",
        pause,
        Bounds::death().fences(Some(1)),
        model(192, 0),
    ),
    scenario("split", "the wire is torn in two and mended", split, Bounds::death().orphan(300).torn(1), model(250, 0)),
    scenario("isolate", "an owner is torn off and comes back", isolate, Bounds::death(), model(192, 64)),
    scenario("deaf", "an owner receives nothing for 8 s", deaf, Bounds::death().orphan(1_100), model(1_001, 0)),
    scenario("restart", "an owner leaves and comes back", planned::restart, Bounds::planned(), model(2, 0)),
    scenario(
        "fast_restart",
        "an owner is killed and back in 20 to 140 ms",
        fast_restart,
        Bounds::death(),
        model(137, 0),
    ),
    scenario("roll", "every node is restarted in turn", planned::roll, Bounds::planned(), model(2, 0)),
    scenario("leave2", "two nodes leave at almost the same time", planned::leave2, Bounds::planned(), model(2, 0)),
    scenario(
        "dead_taker",
        "the best successor dies, then the owner leaves",
        planned::dead_taker,
        Bounds::death(),
        model(191, 0),
    ),
    scenario("selector", "the candidates change, views lag 4 s", planned::selector, Bounds::planned(), model(2, 0)),
    scenario(
        "endpoints",
        "the same where an owner can no longer forward",
        planned::endpoints,
        Bounds::planned().orphan(150).torn(0).burst(6),
        model(121, 0),
    ),
    scenario("cordon", "an owner is cordoned, views lag 3 s", planned::cordon, Bounds::planned(), model(2, 0)),
    scenario("stale", "a cordoned owner learns of it 12 s late", planned::stale, Bounds::planned(), model(2, 0)),
    scenario(
        "stale_sel",
        "one node learns 12 s late that an owner is no candidate",
        planned::stale_sel,
        Bounds::planned(),
        model(2, 0),
    ),
    scenario(
        "health",
        "an owner's data path is unhealthy for a while",
        planned::health,
        Bounds::planned(),
        model(2, 0),
    ),
    scenario("cold", "all nodes start within 200 ms", planned::cold, Bounds::planned(), model(2, 0)),
    scenario(
        "chaos",
        "six faults one over another, on a lossy wire",
        chaos::chaos,
        Bounds::death().orphan(1_300).torn(6).hand_over(250).heal(300).burst(10).fences(None),
        model(1_053, 60),
    ),
    scenario(
        "deaf_start",
        "an owner dies, and starts again on a link that hears nothing",
        deaf_start,
        Bounds::death().orphan(2_100).burst(8).hand_over(800).heal(800),
        None,
    ),
    scenario("flap", "an owner is torn off for 1 s, six times", flap, Bounds::death().moves(12), None),
    scenario(
        "comes_and_goes",
        "an owner dies and comes back, five times",
        comes_and_goes,
        Bounds::death().moves(5),
        None,
    ),
    scenario(
        "late_return",
        "an owner dies and comes back after 20 s, and waits until it is fresh no more",
        late_return,
        Bounds::death().moves(4),
        None,
    ),
    scenario("blip", "a link is away for 20 to 80 ms, ten times", blip, Bounds::death().moves(0), None),
    scenario("drain", "a node is drained, and taken back", planned::drain, Bounds::planned().moves(4), None),
    scenario(
        "stuck",
        "the main loop of an owner stands still for 6 s, its link's thread goes on",
        planned::stuck,
        Bounds::planned().moves(4),
        None,
    ),
    scenario(
        "failing",
        "an owner's health checks fail for a while",
        unsound::failing,
        Bounds::planned().moves(2),
        None,
    ),
    scenario("sick", "an owner's health checks of all units fail", unsound::sick, Bounds::planned().moves(2), None),
    scenario(
        "flapping",
        "an owner's health checks fail and pass, six times",
        unsound::flapping,
        Bounds::planned().moves(1),
        None,
    ),
    scenario("checks", "health checks fail and pass anywhere", unsound::checks, Bounds::planned(), None),
    scenario(
        "all_failing",
        "the health checks of all nodes fail one after another",
        unsound::all_failing,
        Bounds::planned().moves(3),
        None,
    ),
    scenario(
        "all_unsound",
        "all nodes are drained, or unhealthy, one after another",
        unsound::all_unsound,
        Bounds::planned().moves(3),
        None,
    ),
    scenario(
        "all_cordoned",
        "all nodes are cordoned one after another, views lag 1 s",
        unsound::all_cordoned,
        Bounds::planned().orphan(100).moves(5),
        None,
    ),
    scenario(
        "mixed",
        "nodes drain, are unhealthy or cordoned, and fail checks, all at once",
        unsound::mixed,
        // Two things change at once, and 16 times: each move has its reason.
        Bounds::planned().burst(7),
        None,
    ),
    scenario("one_way", "one node does not hear another, or nobody hears one", one_way, Bounds::death(), None),
    scenario("drift", "clocks drift by 200 ppm", odd::drift, Bounds::calm(), None),
    scenario("leap", "an owner's clock leaps by up to 60 s", odd::leap, Bounds::death().moves(4).fences(Some(1)), None),
    scenario("keys", "a second key comes, the first goes, nodes learn it 4 s apart", odd::keys, Bounds::calm(), None),
    scenario(
        "stranger",
        "a host that is none of us announces an address that is held",
        odd::stranger,
        Bounds::calm().rival(),
        None,
    ),
    scenario(
        SQUATTER,
        "a host that is none of us has an address first, and goes in the end",
        odd::squatter,
        Bounds::planned().orphan(16_000).moves(12),
        None,
    ),
    scenario(
        "power_cut",
        "all nodes lose power and come back within 3 s",
        odd::power_cut,
        Bounds::death().torn(1),
        None,
    ),
    scenario(
        "two_deaths",
        "an owner and another node are killed within 300 ms",
        two_deaths,
        Bounds::death().orphan(330),
        None,
    ),
    scenario(
        "last",
        "all nodes but one are killed at once, on a wire where no other host says or answers anything",
        last,
        Bounds::death(),
        None,
    ),
    scenario(
        "last_restarted",
        "the same 9 s after a restart of the one that is left",
        last_restarted,
        Bounds::death(),
        None,
    ),
    scenario(
        "isolate_silent",
        "an owner is torn off and comes back, on a wire where no other host says or answers anything",
        isolate_silent,
        Bounds::death(),
        None,
    ),
    scenario(
        "deaf_silent",
        "an owner receives nothing for 8 s, on a wire where no other host says or answers anything",
        deaf_silent,
        Bounds::death().orphan(1_100),
        None,
    ),
    scenario(
        "deaf_for_good",
        "an owner receives nothing any more, and all clients go on to be served by the others",
        deaf_for_good,
        Bounds::death().orphan(1_100),
        None,
    ),
];

fn death(world: &mut World) -> Duration {
    let owner = world.owner();
    world.die(owner);
    ms(6_000)
}

fn proxy(world: &mut World) -> Duration {
    world.wire.proxy = true;
    death(world);
    ms(8_000)
}

fn two_deaths(world: &mut World) -> Duration {
    let (owner, other) = (world.owner(), world.chance.below(world.nodes.len()));
    world.die(owner);
    let wait = world.chance.between(ms(0), ms(300));
    world.after(wait, move |world| world.die(other));
    ms(6_000)
}

fn loss(world: &mut World, share: f64) -> Duration {
    world.wire.loss = share;
    ms(30_000)
}

pub(super) fn freeze_short(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(80), ms(200)));
    world.freeze(owner, time);
    ms(14_000)
}

pub(super) fn freeze(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(200), ms(5_000)));
    world.freeze(owner, time);
    ms(20_000)
}

pub(super) fn pause(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(100), ms(5_000)));
    world.pause(owner, time);
    ms(20_000)
}

pub(super) fn split(world: &mut World) -> Duration {
    let parts: Vec<u8> = (0..world.nodes.len()).map(|_| u8::from(world.chance.happens(0.5))).collect();
    world.split(&parts);
    heal_later(world)
}

pub(super) fn isolate(world: &mut World) -> Duration {
    let owner = world.owner();
    world.isolate(owner);
    heal_later(world)
}

fn heal_later(world: &mut World) -> Duration {
    let time = world.chance.between(ms(100), ms(6_000));
    world.after(time, World::heal);
    ms(22_000)
}

pub(super) fn deaf(world: &mut World) -> Duration {
    let owner = world.owner();
    world.deafen(owner, true);
    world.after(ms(8_000), move |world| world.deafen(owner, false));
    ms(24_000)
}

/// From here on nobody speaks but the nodes.
fn be_silent(world: &mut World) {
    (world.wire.quiet, world.wire.silent) = (true, true);
}

fn last(world: &mut World) -> Duration {
    be_silent(world);
    let survivor = world.chance.below(world.nodes.len());
    (0..world.nodes.len()).filter(|index| *index != survivor).for_each(|index| world.die(index));
    ms(12_000)
}

fn last_restarted(world: &mut World) -> Duration {
    be_silent(world);
    let survivor = world.chance.below(world.nodes.len());
    world.die(survivor);
    world.after(ms(3_000), move |world| world.start(survivor));
    world.after(ms(12_000), move |world| {
        (0..world.nodes.len()).filter(|index| *index != survivor).for_each(|index| world.die(index));
    });
    ms(24_000)
}

fn isolate_silent(world: &mut World) -> Duration {
    be_silent(world);
    isolate(world)
}

fn deaf_silent(world: &mut World) -> Duration {
    be_silent(world);
    deaf(world)
}

fn deaf_for_good(world: &mut World) -> Duration {
    world.wire.silent = world.chance.happens(0.5);
    let owner = world.owner();
    world.deafen(owner, true);
    ms(24_000)
}

pub(super) fn fast_restart(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(20), ms(140)));
    world.die(owner);
    world.after(time, move |world| world.start(owner));
    ms(16_000)
}

/// It cannot know that it hears nothing, and takes everything after a second. Who is told of it leaves
/// what it announces to it for two seconds each time, and the next one takes: it may be they who are not heard.
fn deaf_start(world: &mut World) -> Duration {
    let owner = world.owner();
    world.die(owner);
    world.after(ms(3_000), move |world| {
        world.start(owner);
        world.deafen(owner, true);
    });
    world.after(ms(20_000), move |world| world.deafen(owner, false));
    ms(40_000)
}

/// Six times with 13 s between, each long enough for the freshness of the time before to end.
fn flap(world: &mut World) -> Duration {
    let owner = world.owner();
    for round in 0..6 {
        world.after(ms(13_000 * round), move |world| world.isolate(owner));
        world.after(ms(13_000 * round + 1_000), World::heal);
    }
    ms(13_000 * 6 + 8_000)
}

fn comes_and_goes(world: &mut World) -> Duration {
    let owner = world.owner();
    for round in 0..5 {
        world.after(ms(13_000 * round), move |world| world.die(owner));
        world.after(ms(13_000 * round + 1_500), move |world| world.start(owner));
    }
    ms(13_000 * 5 + 8_000)
}

/// What it had is kept nowhere any more: that it is fresh is all that holds it back.
fn late_return(world: &mut World) -> Duration {
    let owner = world.owner();
    world.die(owner);
    world.after(ms(20_000), move |world| {
        world.expect_stillness(true);
        world.start(owner);
    });
    world.after(ms(20_000) + FAILBACK - ms(500), |world| world.expect_stillness(false));
    ms(60_000)
}

/// Nothing else is lost: with one more hello missing a blip is as long as a death.
fn blip(world: &mut World) -> Duration {
    world.wire.loss = 0.0;
    for round in 0..10 {
        let (node, time) = (world.chance.below(world.nodes.len()), world.chance.between(ms(20), ms(80)));
        world.after(ms(2_000 * round + 500), move |world| world.isolate(node));
        world.after(ms(2_000 * round + 500) + time, World::heal);
    }
    ms(24_000)
}

fn one_way(world: &mut World) -> Duration {
    let (owner, time) = (world.owner(), world.chance.between(ms(100), ms(6_000)));
    if world.chance.happens(0.5) {
        world.silence(owner, true);
        world.after(time, move |world| world.silence(owner, false));
    } else {
        let other = (owner + 1 + world.chance.below(world.nodes.len() - 1)) % world.nodes.len();
        world.cut(owner, other, true);
        world.after(time, move |world| world.cut(owner, other, false));
    }
    ms(22_000)
}
