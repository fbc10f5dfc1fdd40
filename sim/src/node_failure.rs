//! Simulation of node failure: the real machines [`Watcher`], [`Evidence`], [`Failures`] and
//! [`LeaderLease`] of all nodes and of two replicas of the controller, in virtual time. Faults
//! happen, and a checker verifies rules.
//!
//! - `node`: the state of one node. `speaker`: the process that watches other nodes.
//! - `controller`: a replica, which marks pods by its `actions`. `processes`: its start and end.
//!   `leadership`: its lease. `pods`: the watch of the speakers' pods.
//! - `kubernetes`: kubelets and the node controller. `world`: the queue of events.
//! - [`faults`]: the faults. `stops`: speakers that are stopped. `checker`: the rules.
//! - [`table`]: the results of many runs.
//!
//! The cost of a run grows with the number of affected nodes. A watcher runs only while it watches
//! an affected node or is itself on one; see `speaker` for the reason why this hides nothing.
//!
//! [`Watcher`]: ferrolb_speaker_core::node_failure::watcher::Watcher
//! [`Evidence`]: ferrolb_controller_core::node_failure::evidence::Evidence
//! [`Failures`]: ferrolb_controller_core::node_failure::failures::Failures
//! [`LeaderLease`]: ferrolb_controller_core::lease::LeaderLease

mod actions;
mod checker;
mod controller;
pub mod faults;
mod kubernetes;
mod leadership;
mod node;
mod pods;
mod processes;
mod queue;
mod speaker;
mod stops;
pub mod table;
mod world;

use crate::rng::Rng;
pub use checker::{Outcome, Rule, Violation};
pub use faults::FaultKind;
use std::time::Duration;
use world::World;

/// Time of a run: the faults begin in the first third.
const RUN_TIME: Duration = Duration::from_secs(150);
/// Time before the first fault.
const WARM_UP: Duration = Duration::from_secs(2);
/// Share of runs in which each fault of a node is on the one of the controller's leader.
const LEADERS_NODE_SHARE: f64 = 0.3;

/// A deliberate defect, to verify that the checker detects it. The machines are the real ones; the
/// defect changes their inputs or outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Defect {
    /// A watcher never learns that a kubelet replies while the speaker of its node does not.
    IgnoresKubelets,
    /// The controller marks the pods of a node that has failed or returned every 2 s.
    MarksAgain,
    /// The controller does not know of other suspected nodes.
    IgnoresLimit,
    /// The controller marks only after a long time.
    MarksLate,
    /// Watchers of an old version report the field `silent`.
    IgnoresVersions,
    /// The kubelets do not set their pods Ready, so that only the controller restores them.
    KubeletsNeverSync,
    /// The controller does not know that the pods of speakers have ended.
    IgnoresPods,
    /// A replica that does not lead marks the pods of all nodes.
    StandbyMarksAll,
    /// A replica that does not lead marks no pods.
    StandbyMarksNone,
    /// A replica that does not lead ignores renewals of the lease.
    IgnoresRenewals,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The only fault, or several random ones.
    pub fault: Option<FaultKind>,
    /// True if each fault of a node is on the one of the controller's leader.
    pub on_leaders_node: bool,
    pub seed: u64,
    pub nodes: usize,
    pub defect: Option<Defect>,
    /// True to print every event.
    pub trace: bool,
}

impl Run {
    /// Returns the run of a seed. Half of all runs have one fault, so that each kind is checked
    /// alone.
    pub fn of_seed(seed: u64, nodes: usize) -> Self {
        let kinds = FaultKind::ALL.len() as u64;
        let fault = (seed % (2 * kinds) < kinds).then(|| FaultKind::ALL[(seed % kinds) as usize]);
        // The runs of each kind have their share.
        let on_leaders_node = Rng::new(!seed).chance(LEADERS_NODE_SHARE);
        Self { fault, on_leaders_node, seed, nodes, defect: None, trace: false }
    }

    /// Executes the run.
    pub fn execute(&self) -> Outcome {
        let mut world = World::new(self);
        world.run(WARM_UP);
        faults::plan(&mut world, self.fault, self.on_leaders_node);
        world.run(RUN_TIME);
        world.conclude()
    }

    /// Returns the name of the run's row in the table.
    pub fn label(&self) -> &'static str {
        self.fault.map_or("several", FaultKind::name)
    }

    /// Returns the shell command that repeats this run and prints every event.
    pub fn replay(&self) -> String {
        let Self { seed, nodes, .. } = self;
        let defect = self.defect.and_then(|defect| clap::ValueEnum::to_possible_value(&defect));
        let defect =
            defect.map_or_else(String::new, |value| format!(" --broken {}", value.get_name()));
        let fault = self.label();
        format!(
            "cargo sim node-failure {fault} --seeds 1 --start {seed} --nodes {nodes}{defect} --trace"
        )
    }
}
