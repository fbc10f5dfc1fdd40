//! The attributes of a route, and the routers that receive it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::facts::CommunityValue;

use super::Prefix;

/// The well-known community of RFC 8326 section 3.1.
const GRACEFUL_SHUTDOWN: CommunityValue = CommunityValue::Standard(65535, 0);
/// The number of additional times that the nodes' AS number is prepended to the AS path of a
/// de-preferred route.
const DE_PREFERRED_PREPEND: u8 = 3;
/// The local preference of a de-preferred route: the lowest value, which RFC 8326 recommends.
const DE_PREFERRED_LOCAL_PREF: u32 = 0;

/// The number of adjacent addresses whose de-preferred routes have the same MED.
const ADDRESSES_PER_MED: u128 = 512;
/// The number of different MEDs of de-preferred routes.
const DE_PREFERRED_MEDS: u128 = 64;

/// Returns the MED of a de-preferred route to a router of another AS: one of the highest values.
/// Adjacent blocks of 512 addresses have different ones, so that GoBGP sends them in different
/// UPDATEs. GoBGP 4.8 packs all prefixes with equal attributes into one UPDATE, but does not count
/// the prepended AS numbers. With more than 806 prefixes, the UPDATE becomes too long, and GoBGP
/// drops it.
pub(super) fn de_preferred_med(prefix: Prefix) -> u32 {
    let bits = match prefix.network() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let block = bits / ADDRESSES_PER_MED % DE_PREFERRED_MEDS;
    u32::MAX - u32::try_from(block).unwrap_or_default()
}

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
    /// Returns whether the route requests its de-preference (RFC 8326).
    #[must_use]
    pub fn is_de_preferred(&self) -> bool {
        self.communities.contains(&GRACEFUL_SHUTDOWN)
    }

    /// Returns the attributes of the route as a de-preferred path (RFC 8326), which routers use
    /// only if no other path exists. `internal` is true if the router is in the nodes' own AS.
    /// `external_med` is [`de_preferred_med`]. `GRACEFUL_SHUTDOWN` requests the de-preference; the
    /// other attributes have the same effect on routers that ignore that community.
    pub(super) fn de_preferred(mut self, internal: bool, external_med: u32) -> Self {
        self.communities.insert(GRACEFUL_SHUTDOWN);
        if internal {
            (self.local_pref, self.med) = (Some(DE_PREFERRED_LOCAL_PREF), Some(u32::MAX));
        } else {
            self.prepend = self.prepend.saturating_add(DE_PREFERRED_PREPEND);
            self.med = Some(external_med);
        }
        self
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

    /// Returns the names of the BGPPeers whose routers receive the route.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers_by_attributes.values().flatten().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn adjacent_addresses_share_a_med_in_blocks_that_one_update_can_hold() {
        let first = Ipv4Addr::new(10, 0, 0, 0).to_bits();
        let prefix = |number| Prefix::of(Ipv4Addr::from_bits(first + number).into(), 32);
        let mut counts = BTreeMap::<u32, usize>::new();
        for number in 0..30_000 {
            *counts.entry(de_preferred_med(prefix(number))).or_default() += 1;
        }
        assert_eq!(counts.len(), 30_000_usize.div_ceil(512));
        assert!(counts.values().all(|count| *count <= 512), "{counts:?}");
        assert_eq!(counts.last_key_value(), Some((&u32::MAX, &512)));
        let v6 = Prefix::of("fd30::c8".parse().unwrap(), 128);
        assert_eq!(de_preferred_med(v6), u32::MAX);
    }
}
