//! `kubectl ferrolb`: explains the state of addresses, from API objects alone. It runs on Linux,
//! macOS and Windows, and opens no socket but the connection to the API server.
//!
//! ```text
//! API server -> Snapshot -> State -> rows and explanations -> text or JSON
//! ```
//!
//! The state is the one of the controller ([`ferrolb_controller_core`]), so a command and the
//! controller come to the same results. Two facts are only in the memory of the controller: changes
//! of a status by other clients, and writes that the API server rejects. [`migrate`] has its own
//! inputs: the objects of other load balancers, also from files. Only [`init`] and [`install`]
//! write objects. The documentation of each module says whether it is pure or performs I/O.

pub mod apply;
pub mod args;
pub mod check;
pub mod completion;
pub mod drain;
pub mod events;
#[cfg(test)]
mod golden;
pub mod init;
pub mod install;
pub mod installation;
pub mod kubectl;
pub mod migrate;
pub mod objects;
pub mod plan;
pub mod products;
pub mod read;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod why;
