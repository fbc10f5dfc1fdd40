//! Node failure in the speakers: which nodes each speaker watches, and what it reports about them.
//! The controller's half decides what follows from the reports.
//!
//! - [`ring`]: which nodes each speaker watches. Up to three others watch each node.
//! - [`watcher`]: the state machine of a speaker that watches nodes.

pub mod ring;
pub mod watcher;
