//! Results of the previous plan that the next one builds on. The main loop owns the one Memo and
//! passes it to each plan.

use std::sync::Arc;

use ferrolb_proto::bgp::AlternateRoutes;

/// Results of the previous plan. The first plan gets the default.
#[derive(Debug, Default)]
pub struct Memo {
    /// Addresses that other nodes advertise by BGP in place of this node, and the times of the
    /// plans that first found this. Empty while the node does not drain.
    pub(crate) alternates: Arc<AlternateRoutes>,
}
