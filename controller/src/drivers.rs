//! Drivers: tasks that apply the desired state and report results as events. They depend on
//! [`ferrolb_proto::controller::desired`] and [`ferrolb_proto::controller::event`], never on the
//! state.

pub mod apply;
pub mod hello_secret;
pub mod lease;
pub mod node_failure;
pub mod notices;
pub mod writer;
