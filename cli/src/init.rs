//! The command `init`: proposes a first pool in the subnet of the nodes, and applies it.
//! [`propose`] and [`manifest`] are pure; [`apply`] performs the I/O.

pub mod apply;
pub mod manifest;
pub mod propose;
pub mod subnet;

#[cfg(test)]
mod tests;
