//! The attributes of a route, and the routers that receive it.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::CommunityValue;

/// The well-known community of RFC 8326 section 3.1.
const GRACEFUL_SHUTDOWN: CommunityValue = CommunityValue::Standard(65535, 0);
/// The number of additional times that the nodes' AS number is prepended to the AS path of a
/// de-preferred route.
const DE_PREFERRED_PREPEND: u8 = 3;
/// The local preference of a de-preferred route: the lowest value, which RFC 8326 recommends.
const DE_PREFERRED_LOCAL_PREF: u32 = 0;

/// The attributes of a route that a router receives, besides prefix and next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteAttributes {
    /// Communities, standard (RFC 1997) and large (RFC 8092).
    pub communities: BTreeSet<CommunityValue>,
    /// LOCAL_PREF (RFC 4271 section 5.1.5), for routers of the nodes' own AS.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC (RFC 4271 section 5.1.4).
    pub med: Option<u32>,
    /// The number of additional times that the nodes' AS number is prepended to the AS path, for
    /// routers of another AS.
    pub prepend: u8,
}

impl RouteAttributes {
    /// Returns the attributes of the route as a de-preferred path (RFC 8326), which routers use
    /// only if no other path exists. `internal` is true if the router is in the nodes' own AS.
    /// `GRACEFUL_SHUTDOWN` requests the de-preference; the other attributes have the same effect on
    /// routers that ignore that community.
    pub(super) fn de_preferred(mut self, internal: bool) -> Self {
        self.communities.insert(GRACEFUL_SHUTDOWN);
        if internal {
            self.local_pref = Some(DE_PREFERRED_LOCAL_PREF);
        } else {
            self.prepend = self.prepend.saturating_add(DE_PREFERRED_PREPEND);
        }
        Self { med: Some(u32::MAX), ..self }
    }
}

/// The routers that receive a route, as names of BGPPeers, grouped by the attributes that they
/// receive. All other routers do not receive the route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteClass {
    /// The names of the BGPPeers whose routers receive the route with these attributes. No set is
    /// ever empty.
    pub peers_by_attributes: BTreeMap<RouteAttributes, BTreeSet<Box<str>>>,
}

impl RouteClass {
    /// Adds a router, by the name of its BGPPeer, with the attributes that it receives.
    pub(super) fn insert(&mut self, peer: &str, attributes: RouteAttributes) {
        self.peers_by_attributes.entry(attributes).or_default().insert(peer.into());
    }

    /// Removes these routers from those that receive the route. Returns whether any of them was
    /// removed.
    pub(super) fn remove_peers(&mut self, peers: &BTreeSet<Box<str>>) -> bool {
        let mut removed = false;
        self.peers_by_attributes.retain(|_, receivers| {
            let before = receivers.len();
            receivers.retain(|peer| !peers.contains(peer));
            removed |= receivers.len() < before;
            !receivers.is_empty()
        });
        removed
    }

    /// Returns the names of the BGPPeers whose routers receive the route.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers_by_attributes.values().flatten().map(|name| &**name)
    }
}
