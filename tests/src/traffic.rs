//! The traffic in a lab: the web server in its pods, the page a client fetches, and the probe that finds out for how long it could not.

pub mod page;
pub mod probe;
pub mod serve;
