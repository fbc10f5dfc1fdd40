//! The simulator of layer 2: the real claim machines of many nodes on a simulated wire under one virtual clock, with faults, and a
//! checker of what may never happen. A run is a function of its scenario, seed and size; nothing here reads a clock.
//!
//! - [`scenario`]: which faults there are, and what each may cost.
//! - `world`, `wire`, `node`, `clients`, `faults`: what happens. `truth`, `soft`: whether it may.
//! - [`report`]: many runs, and their table beside the model's figures.

mod bounds;
mod chaos;
mod clients;
mod clock;
mod event;
mod faults;
mod keys_and_clocks;
mod member;
mod node;
mod planned;
pub mod report;
pub mod scenario;
mod soft;
mod truth;
mod unsound;
mod view;
mod wire;
mod world;

use event::Event;
use std::time::Duration;
use world::World;

pub use bounds::{Bounds, Model};
pub use member::Broken;
use scenario::SQUATTER;
pub use scenario::Scenario;
pub use truth::{Outcome, Rule, Violation};

/// How long a node counts as fresh here: shorter than by default, so that runs stay short. The model had the same.
const FAILBACK: Duration = Duration::from_secs(8);
/// How long the nodes have to come up, to settle, and to be fresh no more.
const WARM_UP: Duration = Duration::from_secs(10);
/// The same where nothing may move afterwards: a failback of the start may wait for twice the freshness.
const LONG_WARM_UP: Duration = Duration::from_secs(30);
/// Within this time all nodes start: those that come later take from those that came first, and the failbacks that follow wait
/// longer each time, which is a story of its own.
const STARTS: Duration = Duration::from_millis(40);
/// In these scenarios it is part of the trouble.
const LATE_STARTS: (&[&str], Duration) = (&["chaos", SQUATTER], Duration::from_secs(2));
/// The first fault comes within this time after the warm-up, at no special moment of any hello.
const FIRST_FAULT: Duration = Duration::from_secs(1);
/// A cold start is settled after this time: three nodes have greeted, listened and waited for their turn.
const COLD_SETTLED: Duration = Duration::from_secs(3);
/// The scenario that watches the start itself.
const COLD: &str = "cold";

/// One run.
#[derive(Clone, Copy)]
pub struct Run {
    pub scenario: &'static Scenario,
    pub seed: u64,
    pub nodes: usize,
    pub units: usize,
    pub broken: Option<Broken>,
    /// Print what happens.
    pub trace: bool,
}

impl Run {
    /// Lets it all happen.
    pub fn go(&self) -> Outcome {
        let mut world = World::new(self, self.scenario.bounds.of(self.nodes, self.units));
        if self.scenario.bounds.no_taking {
            world.remember_who_was_heard();
        }
        let cold = self.scenario.name == COLD;
        for index in 0..self.nodes {
            let (late, within) = LATE_STARTS;
            let longest = if late.contains(&self.scenario.name) { within } else { STARTS };
            let wait = world.chance.between(Duration::ZERO, longest);
            world.after(wait, move |world| world.start(index));
        }
        if self.scenario.name == SQUATTER {
            world.squat(0, true);
        }
        world.queue.push(world.now, Event::Chatter);
        let still = self.scenario.bounds.no_taking || self.scenario.bounds.moves == Some(0);
        world.run(if cold {
            COLD_SETTLED
        } else if still {
            LONG_WARM_UP
        } else {
            WARM_UP
        });
        world.clients_ask();
        let now = world.now;
        world.truth.measure(now);
        let wait = world.chance.between(Duration::ZERO, FIRST_FAULT);
        world.run(wait);
        let time = (self.scenario.plan)(&mut world);
        world.run(time);
        world.conclude()
    }

    /// The command that repeats this run with a trace.
    pub fn replay(&self) -> String {
        let Self { scenario, seed, nodes, units, .. } = self;
        let broken = self.broken.and_then(|broken| clap::ValueEnum::to_possible_value(&broken));
        let broken = broken.map_or_else(String::new, |value| format!(" --broken {}", value.get_name()));
        format!(
            "cargo lab sim {} --seeds 1 --start {seed} --nodes {nodes} --units {units}{broken} --trace",
            scenario.name
        )
    }
}
