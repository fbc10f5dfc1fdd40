//! What a route says beside its prefix, and to whom. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::CommunityValue;

/// RFC 8326 section 3.1.
const GRACEFUL_SHUTDOWN: CommunityValue = CommunityValue::Standard(65535, 0);
/// How often more our AS number comes before a path of the last resort.
const LAST_PREPEND: u8 = 3;
/// The local preference of one: none is lower, and RFC 8326 recommends it.
const LAST_LOCAL_PREF: u32 = 0;

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

impl Attributes {
    /// The same route as the last resort of a router, of our own AS (`internal`) or another: any other path is better, and where there is none it
    /// is taken. `GRACEFUL_SHUTDOWN` says so (RFC 8326), and for routers that do not hear that, the rest does.
    pub(super) fn of_last_resort(mut self, internal: bool) -> Self {
        self.communities.insert(GRACEFUL_SHUTDOWN);
        if internal {
            self.local_pref = Some(LAST_LOCAL_PREF);
        } else {
            self.prepend = self.prepend.saturating_add(LAST_PREPEND);
        }
        Self { med: Some(u32::MAX), ..self }
    }
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

    /// These routers see it no longer. Whether one of them did.
    pub(super) fn relieve(&mut self, peers: &BTreeSet<&str>) -> bool {
        let mut relieved = false;
        self.seen_as.retain(|_, seeing| {
            let before = seeing.len();
            seeing.retain(|peer| !peers.contains(&**peer));
            relieved |= seeing.len() < before;
            !seeing.is_empty()
        });
        relieved
    }

    /// The names of the BGPPeers whose routers see it.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.seen_as.values().flatten().map(|name| &**name)
    }
}
