//! Parts of the plan that events can change. Pure; [`super::State`] reports them, and the plan
//! computes only these parts again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::facts::Key;

/// Parts of the plan that events can change. Empty: the plan stays the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Addresses whose candidates, routes or endpoints can change.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Services whose health checks can change.
    pub(crate) services: BTreeSet<Arc<Key>>,
    /// True if all addresses and all health checks can change, because the change concerns a Node,
    /// a pool, an advertisement or another object on which they depend.
    pub(crate) all: bool,
    /// True if other parts can change, whose computation does not grow with the number of Services.
    pub(crate) other: bool,
}

impl Changes {
    /// Returns the changes of all parts.
    #[must_use]
    pub fn everything() -> Self {
        Self { all: true, other: true, ..Self::default() }
    }

    /// Returns the changes after an event that can change everything, if `changed` is true.
    pub(super) fn all_if(changed: bool) -> Self {
        Self { all: changed, ..Self::default() }
    }

    /// Returns the changes after an event that changes no address and no health check by itself, if
    /// `changed` is true.
    pub(super) fn other_if(changed: bool) -> Self {
        Self { other: changed, ..Self::default() }
    }

    /// Returns whether the plan stays the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the changes of a later event.
    pub fn add(&mut self, mut later: Self) {
        self.addresses.append(&mut later.addresses);
        self.services.append(&mut later.services);
        self.all |= later.all;
        self.other |= later.other;
    }
}
