//! Pure library of FerroLB, shared by the speaker, the controller, the lab and the simulator.
//!
//! - [`api`]: custom resources, annotations and conditions of FerroLB.
//! - [`facts`]: the few fields of Services, EndpointSlices, Nodes, Namespaces and custom resources
//!   that decisions need.
//! - [`duration`]: the text formats of durations.
//! - [`rate`]: delays that double, and token buckets.
//! - [`random`]: pseudo-random numbers of a machine.
//! - [`range`]: address ranges and sets of free addresses.
//! - [`store`]: the watched objects of one kind.
//! - [`shared_map`]: sorted map whose clones share memory.
//! - [`wire`]: frames on the network segment: Ethernet, ARP, NDP, and the hello protocol.
//! - [`eligibility`], [`announce`], [`bgp`] and [`election`]: decisions that more than one
//!   component makes.
//! - [`node_failure`]: numbers of node failure that speakers and the controller share.
//!
//! No code in this crate does I/O, reads a clock, starts a task or thread, takes a lock, or awaits.
//! A test in the `tests` crate checks that no dependency of this crate does I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod announce;
pub mod api;
pub mod bgp;
pub mod duration;
pub mod election;
pub mod eligibility;
pub mod facts;
pub mod node_failure;
pub mod random;
pub mod range;
pub mod rate;
pub mod shared_map;
pub mod store;
mod time;
pub mod wire;

pub use time::Instant;

/// Contract of every state machine: ownership protocol, leader lease, node failure, health checks
/// and kube-proxy health.
///
/// The driver calls [`handle`](Machine::handle) with one input and the time at which the input
/// happened. Then it calls [`poll`](Machine::poll) until the result is `None`. Then it waits for
/// the next input or until [`deadline`](Machine::deadline), whichever comes first; at the deadline
/// it calls [`tick`](Machine::tick). A state machine does nothing by itself and never fails:
/// invalid input is counted and dropped.
pub trait Machine {
    /// Enum of all events that the state machine handles.
    type Input;
    /// Enum of all actions and reports that the state machine passes to its driver.
    type Output;

    /// Handles one input that happened at `now`, which is never earlier than in a previous call.
    fn handle(&mut self, input: Self::Input, now: Instant);

    /// Performs the actions of every timer that is due at or before `now`. A call before the
    /// deadline changes nothing.
    fn tick(&mut self, now: Instant);

    /// Removes and returns the oldest pending output. If there is none, returns `None` until
    /// `handle` or `tick` makes one.
    #[must_use]
    fn poll(&mut self) -> Option<Self::Output>;

    /// Returns the time at which [`tick`](Machine::tick) must be called next, or `None` if no timer
    /// is set. The result changes only after `handle` or `tick`.
    #[must_use]
    fn deadline(&self) -> Option<Instant>;
}
