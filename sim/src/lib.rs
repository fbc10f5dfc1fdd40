//! Simulator of layer 2: the real claim machines of many nodes on a simulated network segment with
//! one virtual clock. Scenarios cause faults, and a checker verifies invariants. A unit is an
//! election unit. The result of a run depends only on its scenario, seed and size; no code here
//! reads a real clock.
//!
//! - [`scenario`]: faults and their bounds.
//! - `world`, `segment`, `node`, `clients`, `faults`: the simulation. `checker`, `soft_checks`,
//!   `detection_times`: the checker.
//! - [`node_failure`]: another simulation, of the machines that detect the failure of a node.
//! - [`report`]: many runs, and their table next to the prototype's results.

mod bounds;
mod chaos;
mod checker;
mod clients;
mod clock;
mod detection_times;
mod entry;
mod event;
mod failures;
mod faults;
mod faulty_machine;
mod filters;
mod foreign_hosts;
mod isolation;
mod keys_and_clocks;
mod node;
pub mod node_failure;
mod planned;
pub mod report;
mod rng;
pub mod scenario;
mod segment;
mod soft_checks;
mod soft_rules;
mod stalls;
mod stated_leases;
mod stated_times;
mod trace;
mod view;
mod world;

use event::Event;
use std::time::Duration;
use world::SimWorld;

pub use bounds::{PrototypeResult, ScenarioBounds};
pub use checker::{Rule, RunOutcome, Violation};
pub use faulty_machine::Defect;
use scenario::ADDRESS_IN_USE;
pub use scenario::Scenario;

/// Preempt delay of the simulated nodes: shorter than the speaker's default, to keep runs short.
/// The prototype used the same value.
const PREEMPT_DELAY: Duration = Duration::from_secs(8);
/// Time for the nodes to start, to settle, and to end their preempt delay.
const WARM_UP: Duration = Duration::from_secs(10);
/// Warm-up for scenarios in which no unit may move afterwards: a failback after the start may wait
/// for twice the preempt delay.
const LONG_WARM_UP: Duration = Duration::from_secs(30);
/// Time within which all nodes start. A node that starts later would take units from other nodes,
/// and each move lengthens the preempt delay of the unit; other scenarios cover that.
const START_WINDOW: Duration = Duration::from_millis(40);
/// Scenarios in which late starts are part of the fault, and the time within which their nodes
/// start.
const LATE_STARTS: (&[&str], Duration) = (&["chaos", ADDRESS_IN_USE], Duration::from_secs(2));
/// Maximum time between the warm-up and the first fault, so that the fault is not aligned with
/// hellos.
const FIRST_FAULT_DELAY_MAX: Duration = Duration::from_secs(1);
/// Time until a cold start has settled: the nodes have sent hellos, listened, and waited for their
/// turns to claim.
const COLD_START_SETTLE_TIME: Duration = Duration::from_secs(3);
/// Name of the scenario that tests the start of all nodes and adds no fault.
const COLD_START_SCENARIO: &str = "cold";

/// One run of a scenario.
#[derive(Clone, Copy)]
pub struct Run {
    pub scenario: &'static Scenario,
    pub seed: u64,
    pub nodes: usize,
    pub units: usize,
    pub defect: Option<Defect>,
    /// True to print every event.
    pub trace: bool,
}

impl Run {
    /// Executes the run.
    pub fn execute(&self) -> RunOutcome {
        let mut world = SimWorld::new(self, self.scenario.bounds.scaled_to(self.nodes, self.units));
        if self.scenario.bounds.takes_only_after_failure {
            world.record_received_frames();
        }
        let is_cold_start = self.scenario.name == COLD_START_SCENARIO;
        for index in 0..self.nodes {
            let (late, within) = LATE_STARTS;
            let longest = if late.contains(&self.scenario.name) { within } else { START_WINDOW };
            let wait = world.rng.between(Duration::ZERO, longest);
            world.after(wait, move |world| world.start(index));
        }
        if self.scenario.name == ADDRESS_IN_USE {
            world.set_foreign_host(0, true);
        }
        world.queue.push(world.now, Event::ClientBroadcast);
        let no_moves =
            self.scenario.bounds.takes_only_after_failure || self.scenario.bounds.moves == Some(0);
        world.run(if is_cold_start {
            COLD_START_SETTLE_TIME
        } else if no_moves {
            LONG_WARM_UP
        } else {
            WARM_UP
        });
        world.fill_caches();
        let now = world.now;
        world.checker.start_measuring(now);
        let wait = world.rng.between(Duration::ZERO, FIRST_FAULT_DELAY_MAX);
        world.run(wait);
        let time = (self.scenario.plan)(&mut world);
        world.run(time);
        world.conclude()
    }

    /// Returns the shell command that repeats this run and prints every event.
    pub fn replay(&self) -> String {
        let Self { scenario, seed, nodes, units, .. } = self;
        let defect = self.defect.and_then(|defect| clap::ValueEnum::to_possible_value(&defect));
        let defect_flag =
            defect.map_or_else(String::new, |value| format!(" --broken {}", value.get_name()));
        format!(
            "cargo sim {} --seeds 1 --start {seed} --nodes {nodes} --units {units}{defect_flag} --trace",
            scenario.name
        )
    }
}
