//! The pure part of FerroLB: what its programs agree on.
//!
//! - [`api`]: the Kubernetes kinds, annotations and conditions that we define.
//! - [`facts`]: the few fields that we read of Services, EndpointSlices and Nodes.
//! - [`duration`]: how a time is written.
//! - [`range`]: address ranges and sets of free addresses.
//! - [`wire`]: frames on the local network: Ethernet, ARP, and our own hello protocol.
//! - [`announce`], [`bgp`], [`election`] and [`verdict`]: decisions that more than one program makes.
//! - [`claim`]: the protocol machine that decides who answers.
//! - [`health`]: the machines that judge whether what is announced works.
//! - [`lease`]: the machine that decides which replica of a program may write.
//!
//! Nothing here does IO, reads a clock, spawns, locks or awaits; a test of the `tests` room holds the dependency tree to
//! that. Both programs, the CLI and the simulator run this code.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod announce;
pub mod api;
pub mod bgp;
pub mod claim;
pub mod duration;
pub mod election;
pub mod facts;
pub mod health;
pub mod lease;
pub mod range;
mod time;
pub mod verdict;
pub mod wire;

pub use time::Instant;

/// The contract of every protocol machine (hello and claim, leader lease, probe hysteresis and GoBGP).
///
/// One input, then all output, then the next input: a driver calls [`handle`](Machine::handle) with what happened and the
/// time at which it happened, then [`poll`](Machine::poll) until it answers `None`, then waits for the next input or until
/// [`deadline`](Machine::deadline), whichever is first. At the deadline it calls [`tick`](Machine::tick). A machine does
/// nothing by itself and never fails: bad input is counted and dropped.
pub trait Machine {
    /// What can happen to the machine, a closed enum.
    type Input;
    /// What the machine wants done or known, a closed enum.
    type Output;

    /// Takes one input that happened at `now`; times never go backwards.
    fn handle(&mut self, input: Self::Input, now: Instant);

    /// Lets time pass: everything that was due at or before `now` happens. Calling it early changes nothing.
    fn tick(&mut self, now: Instant);

    /// The next thing to do, in order. Its answer changes only after `handle` or `tick`.
    #[must_use]
    fn poll(&mut self) -> Option<Self::Output>;

    /// When [`tick`](Machine::tick) has to be called next, if ever. Its answer changes only after `handle` or `tick`.
    #[must_use]
    fn deadline(&self) -> Option<Instant>;
}
