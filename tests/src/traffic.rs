//! The traffic in a lab: the server in its pods, the page and the datagram that a client gets from it, the connection that lasts, the stream, the probe
//! that finds out for how long there was no answer, and the capture of all that goes over the switch.

pub mod capture;
pub mod datagram;
pub mod lasting;
mod manners;
pub mod page;
pub mod probe;
pub mod serve;
pub mod stream;
