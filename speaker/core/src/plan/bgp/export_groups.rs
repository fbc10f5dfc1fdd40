//! Groups of routers that receive a route with the same attributes, and the limit on the number of
//! these groups. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_core::bgp::{ClassCounts, Prefix, RouteAttributes, RouteClass, Routes};
use ferrolb_proto::facts::CommunityValue;
use ferrolb_proto::range::Family;

/// Limit on the policy statements of all classes together: each distinct group of a class needs
/// one. GoBGP evaluates them in sequence, for each path and each router. A call with a thousand
/// paths takes 0.3 s for one router with a thousand statements, and 1.4 s with four thousand. With
/// four thousand statements and eight routers, the call would exceed its timeout.
pub const STATEMENTS_MAX: usize = 1_000;
/// LOCAL_PREF, in internal sessions, of routes whose BGPAdvertisements set none. Routers use the
/// same default for their own routes.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// Session whose router can receive prefixes of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteReceiver {
    /// Address of the router. The address of an unnumbered router is known only once gobgpd has
    /// discovered the router.
    pub address: IpAddr,
    /// Next hop in the UPDATE if the session and the prefix have different address families. None:
    /// the local address of the session.
    pub next_hop: Option<IpAddr>,
    /// AS number that this node uses in the session.
    pub own_asn: u32,
    /// True if the router is in the nodes' own AS (RFC 4271 section 1.1).
    pub internal: bool,
}

/// Sessions that can carry prefixes of one address family, by the names of their BGPPeers.
pub type RouteReceivers = BTreeMap<Box<str>, RouteReceiver>;

/// Attributes with which a group of routers receives a route, with those that depend on the
/// session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExportAttributes {
    /// Communities, standard (RFC 1997) and large (RFC 8092).
    pub communities: BTreeSet<CommunityValue>,
    /// LOCAL_PREF (RFC 4271 section 5.1.5). 0 for external routers, which do not receive it.
    pub local_pref: u32,
    /// MULTI_EXIT_DISC (RFC 4271 section 5.1.4).
    pub med: Option<u32>,
    /// AS number to prepend to the AS path, and the number of times, at least one.
    pub prepend: Option<(u32, u8)>,
    /// Next hop. None: the local address of the session.
    pub next_hop: Option<IpAddr>,
}

/// Addresses of the routers that receive a route, grouped by the attributes that they receive.
pub type ExportGroups = BTreeMap<ExportAttributes, BTreeSet<IpAddr>>;

impl ExportAttributes {
    fn new(attributes: &RouteAttributes, receiver: &RouteReceiver) -> Self {
        let RouteAttributes { communities, local_pref, med, prepend } = attributes;
        let default_local_pref = if receiver.internal { DEFAULT_LOCAL_PREF } else { 0 };
        Self {
            communities: communities.clone(),
            local_pref: local_pref.unwrap_or(default_local_pref),
            med: *med,
            prepend: (*prepend > 0).then_some((receiver.own_asn, *prepend)),
            next_hop: receiver.next_hop,
        }
    }
}

/// Groups the routers of a class. `receivers` holds all sessions that can carry the address family
/// of the class; other sessions of the class do not receive its routes.
#[must_use]
pub fn export_groups(class: &RouteClass, receivers: &RouteReceivers) -> ExportGroups {
    let mut groups = ExportGroups::new();
    for (attributes, peers) in &class.peers_by_attributes {
        for receiver in peers.iter().filter_map(|peer| receivers.get(peer)) {
            let attributes = ExportAttributes::new(attributes, receiver);
            groups.entry(attributes).or_default().insert(receiver.address);
        }
    }
    groups
}

/// Routes that need no more than [`STATEMENTS_MAX`] policy statements.
#[derive(Debug, Default)]
pub struct LimitedRoutes {
    /// Routes within the limit.
    pub routes: Routes,
    /// Number of prefixes that each router receives once its session is established, by the names
    /// of the BGPPeers.
    pub prefixes: BTreeMap<Box<str>, i64>,
    /// Number of prefixes that are left out.
    pub prefixes_over_limit: usize,
}

/// Leaves out the classes whose policy statements would exceed [`STATEMENTS_MAX`] in total.
/// `counts` holds the number of prefixes of each class, and `receivers` the sessions that can carry
/// each family. The order of the classes decides which ones are left out, so that the result does
/// not depend on single prefixes.
#[must_use]
pub fn limit_routes(
    routes: &Routes,
    counts: &ClassCounts,
    receivers: &BTreeMap<Family, RouteReceivers>,
) -> LimitedRoutes {
    let (mut limited, none) = (LimitedRoutes::default(), RouteReceivers::new());
    let (mut statements, mut counted, mut excluded) = (0, BTreeSet::new(), BTreeSet::new());
    for (key @ (family, class), prefixes) in counts {
        let receivers = receivers.get(family).unwrap_or(&none);
        let groups = export_groups(class, receivers);
        // Classes with equal groups, for example one of each family, share their statements.
        if !counted.contains(&groups) {
            if statements + groups.len() > STATEMENTS_MAX {
                limited.prefixes_over_limit += prefixes;
                excluded.insert(key);
                continue;
            }
            statements += groups.len();
            counted.insert(groups);
        }
        let prefixes = i64::try_from(*prefixes).unwrap_or(i64::MAX);
        for peer in class.peers().filter(|peer| receivers.contains_key(*peer)) {
            *limited.prefixes.entry(peer.into()).or_default() += prefixes;
        }
    }
    limited.routes = if excluded.is_empty() {
        routes.clone()
    } else {
        let is_within = |(prefix, class): &(&Prefix, &Arc<RouteClass>)| {
            !excluded.contains(&(prefix.family(), Arc::clone(class)))
        };
        let within = routes.iter().filter(is_within);
        within.map(|(prefix, class)| (*prefix, Arc::clone(class))).collect()
    };
    limited
}
