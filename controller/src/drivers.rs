//! Drivers: tasks that apply the desired state and report results as events. They depend on
//! [`ferrolb_controller_core::desired`] and [`ferrolb_controller_core::event`], never on the
//! state.

pub mod apply;
pub mod hello_secret;
pub mod lease;
pub mod node_failure;
pub mod notices;
pub mod writer;
