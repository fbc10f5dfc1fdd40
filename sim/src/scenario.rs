//! Scenarios: faults, their bounds, and the prototype's results. Each scenario function begins when
//! all nodes are up and no preempt delay is running, schedules the faults, and returns the time for
//! which the run continues.

use super::bounds::{PrototypeResult, ScenarioBounds, prototype_result};
use super::world::SimWorld;
use super::{
    chaos, failures, filters, foreign_hosts, isolation, keys_and_clocks, planned, soft_rules,
    stalls, stated_times,
};
use std::time::Duration;

/// A scenario that `cargo sim` can run.
pub struct Scenario {
    pub name: &'static str,
    pub description: &'static str,
    /// Schedules the faults and returns the length of the run.
    pub(super) plan: fn(&mut SimWorld) -> Duration,
    pub bounds: ScenarioBounds,
    /// Results of the prototype; None if the prototype did not have the scenario.
    pub prototype: Option<PrototypeResult>,
}

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) const fn scenario(
    name: &'static str,
    description: &'static str,
    plan: fn(&mut SimWorld) -> Duration,
    bounds: ScenarioBounds,
    prototype: Option<PrototypeResult>,
) -> Scenario {
    Scenario { name, description, plan, bounds, prototype }
}

/// Name of the scenario in which a foreign host uses an address before the nodes start.
pub(super) const ADDRESS_IN_USE: &str = "squatter";

/// Returns all scenarios.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    let calm = CALM.iter().chain(&filters::SCENARIOS);
    calm.chain(&stalls::SCENARIOS).chain(&stated_times::SCENARIOS)
}

/// Scenarios of nodes that are not busy: first those of the prototype in the order of its table,
/// then the others.
static CALM: [Scenario; 56] = [
    scenario(
        "death",
        "the process of an owner is killed",
        failures::failure,
        ScenarioBounds::failure(),
        prototype_result(192, 0),
    ),
    scenario(
        "proxy",
        "an owner fails, and a proxy replies to ARP for it",
        failures::proxy,
        ScenarioBounds::failure(),
        prototype_result(1_152, 0),
    ),
    scenario(
        "loss1",
        "one frame in a hundred is lost",
        |w| failures::loss(w, 0.01),
        ScenarioBounds::calm(),
        prototype_result(2, 0),
    ),
    scenario(
        "loss10",
        "one frame in ten is lost",
        |w| failures::loss(w, 0.10),
        ScenarioBounds::calm().moves(4),
        prototype_result(2, 0),
    ),
    scenario(
        "freeze_short",
        "an owner's process is stopped for 80 to 200 ms",
        failures::freeze_short,
        ScenarioBounds::failure().double_owner_after_fault(5).fences(Some(1)),
        prototype_result(182, 0),
    ),
    scenario(
        "freeze",
        "an owner's process is stopped for up to 5 s",
        failures::freeze,
        ScenarioBounds::failure().double_owner_after_fault(5).fences(Some(1)),
        prototype_result(192, 0),
    ),
    scenario(
        "pause",
        "an owner's virtual machine is paused, including its clock",
        failures::pause,
        ScenarioBounds::failure().fences(Some(1)),
        prototype_result(192, 0),
    ),
    scenario(
        "split",
        "the network segment is split in two and rejoined",
        isolation::split,
        ScenarioBounds::failure().unowned(300).reunions(1),
        prototype_result(250, 0),
    ),
    scenario(
        "isolate",
        "an owner is isolated and returns",
        isolation::isolate,
        ScenarioBounds::failure(),
        prototype_result(192, 64),
    ),
    scenario(
        "deaf",
        "an owner receives nothing for 8 s",
        isolation::receives_nothing,
        ScenarioBounds::failure().unowned(500),
        prototype_result(1_001, 0),
    ),
    scenario(
        "restart",
        "an owner shuts down gracefully and restarts",
        planned::restart,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "fast_restart",
        "an owner is killed and restarts after 20 to 140 ms",
        failures::fast_restart,
        ScenarioBounds::failure(),
        prototype_result(137, 0),
    ),
    scenario(
        "roll",
        "all nodes restart one after another",
        planned::rolling_restart,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "leave2",
        "two nodes leave at almost the same time",
        planned::two_shutdowns,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "dead_taker",
        "the best successor fails, then the owner shuts down",
        planned::failed_successor,
        ScenarioBounds::failure(),
        prototype_result(191, 0),
    ),
    scenario(
        "selector",
        "the candidates change, views lag 4 s",
        planned::selector,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "endpoints",
        "the candidates change, and former candidates cannot forward",
        planned::endpoints,
        ScenarioBounds::planned().unowned(150).reunions(0).burst(6),
        prototype_result(121, 0),
    ),
    scenario(
        "cordon",
        "an owner is cordoned, views lag 3 s",
        planned::cordon,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "stale",
        "an owner is cordoned, and receives that change 12 s late",
        planned::late_cordon,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "stale_sel",
        "an owner is no longer a candidate, and one node receives that change 12 s late",
        planned::late_selector,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "health",
        "an owner's kube-proxy is unhealthy temporarily",
        planned::health,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "cold",
        "all nodes start at almost the same time",
        planned::cold,
        ScenarioBounds::planned(),
        prototype_result(2, 0),
    ),
    scenario(
        "chaos",
        "six overlapping faults on a lossy network segment",
        chaos::chaos,
        ScenarioBounds::failure()
            .unowned(1_300)
            .waits_for_stated_time()
            .reunions(6)
            .double_owner_after_take(250)
            .double_owner_after_fault(300)
            .burst(10)
            .fences(None),
        prototype_result(1_053, 60),
    ),
    scenario(
        "deaf_start",
        "an owner fails, and restarts on an interface that receives nothing",
        isolation::isolated_start,
        ScenarioBounds::failure()
            .burst(8)
            .double_owner_after_take(300)
            .double_owner_after_fault(300),
        None,
    ),
    scenario(
        "flap",
        "an owner is isolated for 1 s, six times",
        isolation::repeated_isolation,
        ScenarioBounds::failure().moves(12),
        None,
    ),
    scenario(
        "comes_and_goes",
        "an owner fails and returns, five times",
        failures::repeated_failure,
        ScenarioBounds::failure().moves(5),
        None,
    ),
    scenario(
        "late_return",
        "an owner fails, returns after 20 s, and waits for its preempt delay",
        failures::late_return,
        ScenarioBounds::failure().moves(4),
        None,
    ),
    scenario(
        "blip",
        "an interface is down for 20 to 80 ms, ten times",
        isolation::short_isolation,
        ScenarioBounds::failure().moves(0),
        None,
    ),
    scenario(
        "drain",
        "a node is drained and undrained",
        planned::drain,
        ScenarioBounds::planned().moves(4),
        None,
    ),
    scenario(
        "stuck",
        "the main loop of an owner stalls for 6 s, its interface's thread continues",
        planned::stalled_main_loop,
        ScenarioBounds::planned().moves(4),
        None,
    ),
    scenario(
        "failing",
        "an owner's health checks fail temporarily",
        soft_rules::failing,
        // A node that misses the first frames about a change takes a unit although a better node
        // has taken it.
        ScenarioBounds::planned().moves(3),
        None,
    ),
    scenario(
        "sick",
        "an owner's health checks of all units fail",
        soft_rules::all_checks_failing,
        ScenarioBounds::planned().moves(2),
        None,
    ),
    scenario(
        "flapping",
        "an owner's health checks alternate between failing and passing",
        soft_rules::flapping,
        ScenarioBounds::planned().moves(1),
        None,
    ),
    scenario(
        "checks",
        "health checks fail and pass on random nodes",
        soft_rules::checks,
        ScenarioBounds::planned(),
        None,
    ),
    scenario(
        "all_failing",
        "the health checks of all nodes fail one after another",
        soft_rules::all_failing,
        // As in the scenario "failing".
        ScenarioBounds::planned().moves(4),
        None,
    ),
    scenario(
        "all_unsound",
        "all nodes are drained, or unhealthy, one after another",
        soft_rules::all_unhealthy,
        ScenarioBounds::planned().moves(3),
        None,
    ),
    scenario(
        "all_cordoned",
        "all nodes are cordoned one after another, views lag 1 s",
        soft_rules::all_cordoned,
        ScenarioBounds::planned().unowned(100).moves(5),
        None,
    ),
    scenario(
        "mixed",
        "nodes are drained, unhealthy, cordoned and fail health checks at the same time",
        soft_rules::mixed,
        // Several properties of nodes change at once, and each change justifies a move, so more
        // moves than usual follow each other within five seconds.
        ScenarioBounds::planned().burst(12),
        None,
    ),
    scenario(
        "one_way",
        "one node does not receive another's frames, or all frames of one node are lost",
        isolation::one_way,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "drift",
        "clocks drift by 200 ppm",
        keys_and_clocks::drift,
        ScenarioBounds::calm(),
        None,
    ),
    scenario(
        "leap",
        "an owner's clock leaps by up to 60 s",
        keys_and_clocks::leap,
        ScenarioBounds::failure().moves(4).fences(Some(1)),
        None,
    ),
    scenario(
        "keys",
        "a second key is added, the first is removed, each node receives a change within 4 s",
        keys_and_clocks::key_rotation,
        ScenarioBounds::calm(),
        None,
    ),
    scenario(
        "stranger",
        "a foreign host announces an owned address",
        foreign_hosts::announces,
        ScenarioBounds::calm().checks_defenses(),
        None,
    ),
    scenario(
        ADDRESS_IN_USE,
        "a foreign host uses an address before the nodes start, and stops later",
        foreign_hosts::stops,
        ScenarioBounds::planned().unowned(16_000).moves(12),
        None,
    ),
    scenario(
        "new_in_use",
        "a new unit whose address a foreign host uses, views lag up to 2 s, no frame is lost",
        |w| foreign_hosts::new_address(w, 0.0),
        ScenarioBounds::failure().unowned(2_500),
        None,
    ),
    scenario(
        "new_in_use_loss10",
        "the same, and one frame in ten is lost",
        |w| foreign_hosts::new_address(w, 0.10),
        ScenarioBounds::failure().unowned(2_500),
        None,
    ),
    scenario(
        "power_cut",
        "all nodes lose power and restart within 3 s",
        keys_and_clocks::power_cut,
        // No node knows that the units are proven. A candidate waits up to five times 500 ms for
        // better ones that still listen, and probes for 450 ms.
        ScenarioBounds::failure().reunions(1).unowned(3_000),
        None,
    ),
    scenario(
        "two_deaths",
        "an owner and another node are killed within 300 ms",
        failures::two_failures,
        ScenarioBounds::failure().unowned(330),
        None,
    ),
    scenario(
        "last",
        "all nodes but one are killed at once, on a network segment without other hosts",
        isolation::one_survivor,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "last_restarted",
        "one node restarts, and 9 s later all other nodes are killed, on a segment without other hosts",
        isolation::one_restarted_survivor,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "isolate_silent",
        "an owner is isolated and returns, on a network segment without other hosts",
        isolation::isolate_silent,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "deaf_silent",
        "an owner receives nothing for 8 s, on a network segment without other hosts",
        isolation::receives_nothing_silent,
        ScenarioBounds::failure().unowned(500),
        None,
    ),
    scenario(
        "deaf_for_good",
        "an owner permanently receives nothing, and the other nodes serve all clients",
        isolation::receives_nothing_forever,
        ScenarioBounds::failure().unowned(500),
        None,
    ),
    scenario(
        "api_outage",
        "the API server is away while an owner fails, and reports all Nodes NotReady afterwards",
        planned::api_outage,
        ScenarioBounds::failure().moves(12),
        None,
    ),
    scenario(
        "cut_proxy",
        "an owner is cut off, a proxy replies to ARP for it, and UDP works",
        filters::cut_off_with_proxy,
        ScenarioBounds::failure(),
        None,
    ),
    scenario(
        "forgery",
        "an owner fails, and a foreign host announces its addresses with its MAC",
        filters::forgery,
        ScenarioBounds::failure().moves(2),
        None,
    ),
];
