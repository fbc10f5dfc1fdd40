//! Rules that the speaker and the controller both apply, and small tools of their machines. Code of
//! one program only belongs in that program's own core.
//!
//! - [`eligibility`]: why a node may not announce an address.
//! - [`announce`]: which advertisements apply to an address, and what follows for each node.
//! - [`election`]: the order of the nodes that may own an address.
//! - [`bgp`]: sessions, and the routes of a node with their attributes.
//! - [`node_failure`]: numbers of node failure that speakers and the controller share.
//! - [`store`]: the watched objects of one kind.
//! - [`endpoint_slices`]: the watched EndpointSlices by Service.
//! - [`watched`]: the list of the kinds that a program watches.
//! - [`shared_map`]: sorted map whose clones share memory.
//! - [`rate`]: delays that double, and token buckets.
//! - [`random`]: pseudorandom numbers of a machine.
//!
//! No code in this crate does I/O, reads a clock, starts a task or thread, takes a lock, or awaits.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod announce;
pub mod bgp;
pub mod election;
pub mod eligibility;
pub mod endpoint_slices;
pub mod node_failure;
pub mod random;
pub mod rate;
pub mod shared_map;
pub mod store;
pub mod watched;

use ferrolb_proto::Instant;

/// Contract of every state machine: ownership protocol, leader lease, node failure, health checks,
/// kube-proxy health and gobgpd.
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
