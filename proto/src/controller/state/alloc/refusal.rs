//! Reasons why a Service cannot have an address, and why automatic assignment skips an address.
//! Plain values; [`crate::controller::state::messages`] renders them.

use std::fmt::{self, Display, Formatter};

use crate::facts::Key;

use crate::controller::state::sharing::SharingConflict;

/// Reason why a Service cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller::state) enum Refusal {
    /// No valid pool contains the address, or the pool excludes it.
    NoPool,
    /// This pool contains the address, but its `serviceAllocation` selects other Namespaces or
    /// Services.
    PoolNotAllowed(Box<str>),
    /// This pool contains the address, but the Service requests another pool, or its other address
    /// is from another pool.
    OtherPool(Box<str>),
    /// The address belongs to a Node.
    Node,
    /// This Service uses the address, which FerroLB did not assign to it.
    Unmanaged(UnmanagedUse),
    /// FerroLB has assigned the address to this other Service, and the two Services cannot share
    /// it.
    AssignedTo(Key, SharingConflict),
    /// The Service requests specific addresses, and this address is not one of them.
    NotRequested,
    /// The Service has no cluster IP of the address's family, or already has another address of
    /// that family.
    Family,
}

/// A Service that uses an address which FerroLB did not assign to it. `Display` renders the rest of
/// a sentence that begins with the address and "is".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::controller::state) struct UnmanagedUse {
    pub(in crate::controller::state) key: Key,
    pub(in crate::controller::state) source: UnmanagedSource,
}

/// Origin of an address that a Service uses although FerroLB did not assign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::controller::state) enum UnmanagedSource {
    /// The address is one of the Service's `spec.externalIPs`.
    ExternalIps,
    /// Another load balancer has written the address into the Service's status.
    OtherLoadBalancer,
    /// The address is a cluster IP of the Service.
    ClusterIp,
    /// The Service has lost the address, but the API server still reports the address in its
    /// status: the write that removes it has not succeeded, or the Service is being deleted.
    StillInStatus,
}

impl Display for UnmanagedUse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.source {
            UnmanagedSource::ExternalIps => {
                write!(f, "in spec.externalIPs of Service {}", self.key)
            }
            UnmanagedSource::OtherLoadBalancer => {
                write!(f, "assigned to Service {} by another load balancer", self.key)
            }
            UnmanagedSource::ClusterIp => write!(f, "the cluster IP of Service {}", self.key),
            UnmanagedSource::StillInStatus => {
                write!(f, "still in the status of Service {}, which has lost it", self.key)
            }
        }
    }
}

/// Reason why automatic assignment skips an address of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controller::state) enum SkipReason<'a> {
    /// The address belongs to a Node.
    Node,
    /// This Service uses the address, which FerroLB did not assign to it.
    Unmanaged(&'a UnmanagedUse),
    /// The address is the Subnet-Router anycast address of a network (RFC 4291, 2.6.1).
    RouterAnycast,
}

impl Display for SkipReason<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("an address of a Node"),
            Self::Unmanaged(owner) => owner.fmt(f),
            Self::RouterAnycast => f.write_str("Subnet-Router anycast, assigned on request only"),
        }
    }
}
