//! Routes of a node by a new [`RouteTable`].

use super::*;
use crate::announce::ServicesByAddress;
use crate::bgp::{RouteTable, Routes};

/// Computes the routes of a node.
pub(super) fn routes(
    view: &ClusterView<'_>,
    input: &RouteInput<'_, '_>,
    services: Vec<ServiceView<'_>>,
) -> Routes {
    let mut table = RouteTable::default();
    for (address, services) in services.into_iter().collect::<ServicesByAddress<'_>>().iter() {
        table.set_address(view, input, address, services);
    }
    table.update(input);
    table.routes().clone()
}
