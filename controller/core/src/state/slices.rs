//! The fields of EndpointSlices that the controller keeps. Owned by the state.

use std::net::IpAddr;

use ferrolb_core::endpoint_slices::EndpointSlices;
use ferrolb_proto::facts::{API_SERVERS_MAX, Endpoint, EndpointSlice, Key, is_api_server};

/// All EndpointSlices that have endpoints, by Service.
pub(super) type Slices = EndpointSlices<Key, SliceEndpoints>;

/// The endpoints of an EndpointSlice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SliceEndpoints {
    /// The endpoints, eligible or not.
    pub(super) endpoints: Box<[Endpoint]>,
    /// The addresses of the API servers, at most [`API_SERVERS_MAX`], if these are the endpoints.
    pub(super) api_servers: Box<[IpAddr]>,
}

impl SliceEndpoints {
    /// Returns the Service and the endpoints of an EndpointSlice, if it has both.
    pub(super) fn of(slice: EndpointSlice) -> Option<(Key, Self)> {
        let EndpointSlice { service, endpoints, endpoint_addresses, .. } = slice;
        let service = service.filter(|_| !endpoints.is_empty())?;
        let api_servers = endpoint_addresses.into_iter().filter(|_| is_api_server(&service));
        let api_servers = api_servers.take(API_SERVERS_MAX).map(|it| it.address).collect();
        Some((service, Self { endpoints: endpoints.into(), api_servers }))
    }

    /// Returns whether one of the endpoints is on a node.
    pub(super) fn is_on(&self, node: &str) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.node.as_deref() == Some(node))
    }
}
