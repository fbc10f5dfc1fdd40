//! Statuses of the custom resources that configure BGP. Pure functions; called by the state.
//!
//! These objects do not affect the assignment of addresses, and their statuses depend on objects of
//! other kinds.

pub(super) mod advertisements;
pub(super) mod peers;
pub(super) mod profiles;
