//! The drivers: tasks that bring about what is desired, and tell what they learn as events. They know [`crate::desired`] and
//! [`crate::event`], never the state.

pub mod apply;
pub mod hello_secret;
pub mod lease;
pub mod notices;
pub mod status_fields;
pub mod writer;
