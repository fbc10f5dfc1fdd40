//! Numbers of node failure that the speakers and the controller share.

/// Number of nodes that each speaker watches.
pub const WATCHED_NODES: usize = 3;
