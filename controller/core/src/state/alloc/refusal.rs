//! Reasons why a Service cannot have an address, and why automatic assignment skips an address.
//! Plain values; [`crate::state::messages`] renders them.

use std::fmt::{self, Display, Formatter};

use ferrolb_proto::facts::Key;

use super::uses::UnmanagedUse;
use crate::state::sharing::SharingConflict;

/// Reason why a Service cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Refusal {
    /// No valid pool contains the address, or the pool excludes it.
    NoPool,
    /// This pool contains the address, but its `serviceAllocation` selects other Namespaces or
    /// Services.
    PoolNotAllowed(Box<str>),
    /// This pool contains the address, but the Service requests another pool, or its other address
    /// is from another pool.
    OtherPool(Box<str>),
    /// This object uses the address, which FerroLB did not assign to it.
    Unmanaged(UnmanagedUse),
    /// FerroLB has assigned the address to this other Service, and the two Services cannot share
    /// it.
    AssignedTo(Key, SharingConflict),
    /// Another host replied for the address before any node announced it.
    ForeignHost,
    /// The Service requests specific addresses, and this address is not one of them.
    NotRequested,
    /// The Service has no cluster IP of the address's family, or already has another address of
    /// that family.
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
