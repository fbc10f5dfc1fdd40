//! Uses of addresses which FerroLB did not assign: addresses of Nodes, gateways and the API server,
//! cluster IPs, external IPs, and statuses that other load balancers write. Owned by the allocator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::facts::Key;
use ferrolb_proto::range::AddressRange;

/// An object that uses addresses which FerroLB did not assign to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum AddressUser {
    /// The Node of this name.
    Node(Arc<str>),
    /// The Service with this key.
    Service(Key),
    /// The API server.
    ApiServer,
}

/// A use of an address which FerroLB did not assign to its user. `Display` renders the rest of a
/// sentence that begins with the address and "is".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) struct UnmanagedUse {
    pub(in crate::state) user: AddressUser,
    pub(in crate::state) source: UnmanagedSource,
}

/// Origin of an address that an object uses although FerroLB did not assign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum UnmanagedSource {
    /// The address is in `status.addresses` of the Node.
    NodeAddress,
    /// The address is one of the Service's `spec.externalIPs`.
    ExternalIps,
    /// Another load balancer has written the address into the Service's status.
    OtherLoadBalancer,
    /// The address is a cluster IP of the Service.
    ClusterIp,
    /// The Service has lost the address, but the API server still reports the address in its
    /// status: the write that removes it has not succeeded, or the Service is being deleted.
    StillInStatus,
    /// An interface of the Node has the address, which the Node does not list.
    InterfaceAddress,
    /// The address is an endpoint of the Service `default/kubernetes`.
    ApiServer,
    /// The address is a default gateway of the Node.
    Gateway,
    /// The address is the first one of an IPv4 subnet of the Node, so that no host can have it.
    NetworkAddress,
    /// The address is the last one of an IPv4 subnet of the Node (RFC 919).
    BroadcastAddress,
    /// The Service has left the address, because another host replied for it.
    ForeignHost,
    /// The Node may still advertise the address by BGP for a deleted Service.
    FormerRoute,
}

impl UnmanagedSource {
    /// Returns whether a Service that requests the address does not get it.
    pub(super) const fn refuses_request(self) -> bool {
        !matches!(
            self,
            Self::NetworkAddress | Self::BroadcastAddress | Self::ForeignHost | Self::FormerRoute
        )
    }

    /// Returns whether a Service with the address has a warning. An interface is no reason for one,
    /// because it can have the address for the Service.
    pub(super) const fn is_warned_of(self) -> bool {
        matches!(
            self,
            Self::NodeAddress
                | Self::ApiServer
                | Self::Gateway
                | Self::NetworkAddress
                | Self::BroadcastAddress
        )
    }

    /// Returns whether a Service without a request cannot share the address.
    pub(super) const fn prevents_sharing(self) -> bool {
        matches!(self, Self::StillInStatus | Self::ForeignHost) || self.is_warned_of()
    }
}

impl UnmanagedUse {
    /// Returns whether the user is this Service.
    pub(super) fn is_by(&self, service: &Key) -> bool {
        matches!(&self.user, AddressUser::Service(key) if key == service)
    }
}

/// The uses of all addresses of pools.
#[derive(Debug, Default)]
pub(super) struct Uses {
    by_address: BTreeMap<IpAddr, BTreeSet<UnmanagedUse>>,
    /// The same facts as in `by_address`, by user; the addresses of each user are ascending.
    by_user: BTreeMap<AddressUser, Vec<(IpAddr, UnmanagedSource)>>,
}

/// Addresses whose uses have changed.
#[derive(Debug, Default)]
pub(super) struct ChangedUses {
    /// All of them.
    pub(super) all: BTreeSet<IpAddr>,
    /// Those whose first use has begun, and those whose last use has ended.
    pub(super) begun: Vec<IpAddr>,
    pub(super) ended: Vec<IpAddr>,
}

impl Uses {
    /// Replaces the addresses that an object uses. `current` is in ascending order.
    pub(super) fn replace(
        &mut self,
        user: &AddressUser,
        current: Vec<(IpAddr, UnmanagedSource)>,
    ) -> ChangedUses {
        let mut changed = ChangedUses::default();
        let use_from = |source| UnmanagedUse { user: user.clone(), source };
        let before = self.by_user.remove(user).unwrap_or_default();
        for (address, source) in before.iter().filter(|entry| current.binary_search(entry).is_err())
        {
            changed.all.insert(*address);
            let Some(uses) = self.by_address.get_mut(address) else { continue };
            uses.remove(&use_from(*source));
            if uses.is_empty() {
                self.by_address.remove(address);
                changed.ended.push(*address);
            }
        }
        for (address, source) in &current {
            if !self.by_address.contains_key(address) {
                changed.begun.push(*address);
            }
            if self.by_address.entry(*address).or_default().insert(use_from(*source)) {
                changed.all.insert(*address);
            }
        }
        if !current.is_empty() {
            self.by_user.insert(user.clone(), current);
        }
        changed
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// Returns the uses of an address: first those by Nodes, then those by Services, by name.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &UnmanagedUse> {
        self.by_address.get(&address).into_iter().flatten()
    }

    /// Returns the used addresses of a range, each with its first use.
    pub(super) fn first_in(
        &self,
        range: &AddressRange,
    ) -> impl Iterator<Item = (IpAddr, &UnmanagedUse)> {
        let used = self.by_address.range(range.first()..=range.last());
        used.filter_map(|(address, uses)| Some((*address, uses.first()?)))
    }
}

impl AddressUser {
    /// Returns the Node of this name.
    pub(in crate::state) fn node(name: &str) -> Self {
        Self::Node(name.into())
    }
}

impl Display for AddressUser {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "Node {name}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::ApiServer => f.write_str("the API server"),
        }
    }
}

impl Display for UnmanagedUse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let user = &self.user;
        match self.source {
            UnmanagedSource::NodeAddress | UnmanagedSource::ApiServer => {
                write!(f, "an address of {user}")
            }
            UnmanagedSource::InterfaceAddress => write!(f, "on an interface of {user}"),
            UnmanagedSource::Gateway => write!(f, "a default gateway of {user}"),
            UnmanagedSource::NetworkAddress => {
                write!(f, "the network address of a subnet of {user}")
            }
            UnmanagedSource::BroadcastAddress => {
                write!(f, "the broadcast address of a subnet of {user}")
            }
            UnmanagedSource::ForeignHost => {
                write!(f, "in use by another host, as {user} has found")
            }
            UnmanagedSource::FormerRoute => {
                write!(f, "perhaps still advertised by {user}, whose speaker does not run")
            }
            UnmanagedSource::ExternalIps => write!(f, "in spec.externalIPs of {user}"),
            UnmanagedSource::OtherLoadBalancer => {
                write!(f, "assigned to {user} by another load balancer")
            }
            UnmanagedSource::ClusterIp => write!(f, "the cluster IP of {user}"),
            UnmanagedSource::StillInStatus => {
                write!(f, "still in the status of {user}, which has lost it")
            }
        }
    }
}
