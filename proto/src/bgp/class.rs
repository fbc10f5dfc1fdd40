//! What a route says beside its prefix, and to whom. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::CommunityValue;

/// What a router sees of a route beside its prefix and its next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// Communities, standard (RFC 1997) and large (RFC 8092).
    pub communities: BTreeSet<CommunityValue>,
    /// LOCAL_PREF (RFC 4271 section 5.1.5), for routers of our own AS.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC (section 5.1.4).
    pub med: Option<u32>,
    /// How often our AS number comes again before the path, for routers of another AS.
    pub prepend: u8,
}

/// Who sees a route, and how: by their attributes the routers, each by the name of its BGPPeer. A router that is not here does not see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// Never with a set that is empty.
    pub seen_as: BTreeMap<Attributes, BTreeSet<Box<str>>>,
}

impl Class {
    /// The router of this name sees it like this.
    pub(super) fn insert(&mut self, peer: &str, attributes: Attributes) {
        self.seen_as.entry(attributes).or_default().insert(peer.into());
    }

    /// The names of the BGPPeers whose routers see it.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.seen_as.values().flatten().map(|name| &**name)
    }
}
