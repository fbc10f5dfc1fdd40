//! Reasons why a Service cannot have an address, and why automatic assignment skips an address.
//! Plain values; [`crate::state::messages`] renders them.

use std::fmt::{self, Display, Formatter};

use ferrolb_proto::facts::Key;

use super::uses::UnmanagedUse;
use crate::state::sharing::SharingConflict;

/// Reason why a Service cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Refusal {
    /// No valid pool contains the requested address, or its pool excludes it.
    ///
    /// Action: Request another address, or add it to a pool.
    NoPool,
    /// The requested pool, or that of the requested address, is for other namespaces or Services.
    ///
    /// Action: Change its `spec.serviceAllocation`, or the request.
    PoolNotAllowed(Box<str>),
    /// The requested address is in another pool than the other requests.
    ///
    /// Action: Change one of the requests.
    OtherPool(Box<str>),
    /// A Node, a gateway, the API server, another load balancer, a cluster IP, `externalIPs` or an
    /// [outdated status](docs/reference/conditions.md#rejected-status-updates) has the requested
    /// address.
    ///
    /// Action: Request another address, or remove it there.
    Unmanaged(UnmanagedUse),
    /// FerroLB has assigned the address to this other Service, and the two Services cannot share
    /// it.
    AssignedTo(Key, SharingConflict),
    /// Another host replied for the requested address before any node announced it.
    ///
    /// Action: Request another address.
    ForeignHost,
    /// The Service requests specific addresses, and this address is not one of them.
    NotRequested,
    /// A requested address is of no family of the Service, or a second one of the same family.
    ///
    /// Action: Request one address of each family.
    Family,
}

/// Reason why automatic assignment skips an address of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum SkipReason<'a> {
    /// This object uses the address, which FerroLB did not assign to it.
    Unmanaged(&'a UnmanagedUse),
    /// The address is the Subnet-Router anycast address of a network (RFC 4291, 2.6.1).
    RouterAnycast,
}

impl Display for SkipReason<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmanaged(owner) => owner.fmt(f),
            Self::RouterAnycast => f.write_str("Subnet-Router anycast, assigned on request only"),
        }
    }
}
