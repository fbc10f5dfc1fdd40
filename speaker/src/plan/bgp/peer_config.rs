//! Configuration of gobgpd for one session and for one class of routes, each with a mark that
//! identifies it. Pure.
//!
//! A mark is a hash of the whole configuration. A restarted speaker compares marks alone to find
//! out which parts of gobgpd's configuration are already as desired
//! (docs/internals/adr/0010-routes-carry-a-mark.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ferrolb_proto::bgp::{RouteAttributes, RouteClass};
use ferrolb_proto::facts::{
    BfdTimers, BgpPeer, CommunityValue, PeerAsn, PeerLocation, SessionParameters,
};
use ferrolb_proto::range::Family;
use gobgp_proto as api;
use prost::Message;
use sha2::{Digest, Sha256};

/// First number (global administrator) of a large community that carries a mark. The number is a
/// private AS number (RFC 6996). The export policy removes marks, so no router receives one.
const HASH_COMMUNITY_ADMIN: u32 = 4_200_000_000;
/// Prefix of the names of all objects that FerroLB creates in gobgpd.
const NAME_PREFIX: &str = "ferrolb-";
/// TTL of packets to an external router that is more than one hop away.
const MULTIHOP_TTL: u32 = 255;
/// Time for which routers keep this node's routes while gobgpd is down, if graceful restart is on
/// (RFC 4724 section 3), in seconds.
pub const RESTART_TIME_S: u32 = 120;
/// Time in seconds for which a restarted gobgpd waits for the sessions with all its routers before
/// it sends routes. 1 is GoBGP's minimum. The wait is useless here, because gobgpd's routes do not
/// come from routers. With GoBGP's default, one router that is down would delay all routes by 360
/// s.
const DEFERRAL_TIME_S: u32 = 1;
/// LOCAL_PREF, in internal sessions, of routes whose BGPAdvertisements set none. Routers use the
/// same default for their own routes.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// Time for which a session stays in the state Idle after a reset, in seconds.
const IDLE_HOLD_S: u64 = 5;
/// UDP port of single-hop BFD (RFC 5881 section 4).
const BFD_PORT: u32 = 3784;

/// Content hash of the configuration of one session or one class of routes: the first 64 bits of
/// its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(u64);

impl ContentHash {
    fn of(content: &[u8]) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(content)[..8]);
        Self(u64::from_be_bytes(head))
    }

    /// Returns the large community (RFC 8092) by which the export policy recognizes the paths of
    /// the class with this mark.
    #[must_use]
    pub const fn community(self) -> api::LargeCommunity {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
        let (local_data1, local_data2) = ((self.0 >> 32) as u32, self.0 as u32);
        api::LargeCommunity { global_admin: HASH_COMMUNITY_ADMIN, local_data1, local_data2 }
    }

    /// Returns the mark that a large community carries, or none if the community is not a mark.
    #[must_use]
    pub fn from_community(community: &api::LargeCommunity) -> Option<Self> {
        let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
        (*global_admin == HASH_COMMUNITY_ADMIN)
            .then(|| Self(u64::from(*local_data1) << 32 | u64::from(*local_data2)))
    }

    /// Returns the mark in the name of a policy statement of gobgpd, or none if FerroLB did not
    /// create the statement.
    #[must_use]
    pub fn from_statement_name(name: &str) -> Option<Self> {
        let (mark, _) = name.strip_prefix(NAME_PREFIX)?.split_once('-')?;
        u64::from_str_radix(mark, 16).ok().map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Configuration of one session in gobgpd.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Name of the BGPPeer.
    pub name: Box<str>,
    /// gobgpd's peer configuration. Its description holds the name and the mark. The mark does not
    /// cover BFD, because the speaker enables BFD only while the session is established.
    pub peer: api::Peer,
}

/// Parameters of a session that come from other objects than its BGPPeer: from a Secret and a
/// BFDProfile.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResolvedReferences<'a> {
    /// Password of the session (RFC 2385), if it has one.
    pub(super) password: Option<&'a str>,
    /// Timers of the BFD session, if it has one.
    pub(super) bfd: Option<BfdTimers>,
}

impl PeerConfig {
    pub(super) fn new(
        peer: &BgpPeer,
        session: &SessionParameters,
        references: ResolvedReferences<'_>,
    ) -> Self {
        let peer_config = api_peer(session, references.password);
        let description =
            format!("{NAME_PREFIX}{} {}", ContentHash::of(&peer_config.encode_to_vec()), peer.name);
        let conf = peer_config.conf.map(|conf| api::PeerConf { description, ..conf });
        Self {
            name: peer.name.clone(),
            peer: api::Peer { conf, bfd: references.bfd.map(bfd), ..peer_config },
        }
    }

    /// Returns the description that gobgpd stores with the session. Two sessions with the same
    /// description have the same parameters except BFD.
    #[must_use]
    pub fn description(&self) -> &str {
        self.peer.conf.as_ref().map_or("", |conf| &conf.description)
    }

    /// Returns gobgpd's peer configuration: with the configured BFD if `on` is true, otherwise
    /// without BFD.
    #[must_use]
    pub fn with_bfd(&self, on: bool) -> api::Peer {
        api::Peer { bfd: self.peer.bfd.filter(|_| on), ..self.peer.clone() }
    }
}

fn api_peer(session: &SessionParameters, password: Option<&str>) -> api::Peer {
    let (address, interface) = match &session.location {
        PeerLocation::Address(address) => (address.to_string(), String::new()),
        PeerLocation::Interface(name) => (String::new(), name.to_string()),
    };
    let peer_asn = match session.peer_asn {
        PeerAsn::Number(asn) => asn,
        PeerAsn::External => 0,
    };
    let enabled = session.graceful_restart;
    let families =
        [Family::V4, Family::V6].into_iter().filter(|family| session.carries_family(*family));
    let hops = session.ttl_security_hops.map(|hops| u32::from(u8::MAX) + 1 - u32::from(hops));
    api::Peer {
        conf: Some(api::PeerConf {
            auth_password: password.unwrap_or_default().to_owned(),
            local_asn: session.local_asn.unwrap_or(0),
            neighbor_address: address,
            peer_asn,
            neighbor_interface: interface,
            ..api::PeerConf::default()
        }),
        ebgp_multihop: session
            .multi_hop
            .then_some(api::EbgpMultihop { enabled: true, multihop_ttl: MULTIHOP_TTL }),
        ttl_security: hops.map(|ttl_min| api::TtlSecurity { enabled: true, ttl_min }),
        timers: Some(api::Timers {
            config: Some(api::TimersConfig {
                connect_retry: session.connect.as_secs(),
                hold_time: session.hold.as_secs(),
                keepalive_interval: session.keepalive.as_secs(),
                idle_hold_time_after_reset: IDLE_HOLD_S,
            }),
            state: None,
        }),
        transport: Some(api::Transport {
            local_address: session.source.map(|source| source.to_string()).unwrap_or_default(),
            remote_port: session.port.into(),
        }),
        graceful_restart: enabled.then_some(api::GracefulRestart {
            enabled,
            restart_time: RESTART_TIME_S,
            deferral_time: DEFERRAL_TIME_S,
            // The kernel forwards packets whether or not gobgpd runs. Without this flag, routers
            // drop their retained routes at the first OPEN.
            local_restarting: true,
        }),
        afi_safis: families.map(|of| afi_safi(of, enabled)).collect(),
        bfd: None,
        state: None,
    }
}

/// Converts a family to gobgpd's API.
#[must_use]
pub const fn family(family: Family) -> api::Family {
    let afi = match family {
        Family::V4 => api::family::Afi::Ip,
        Family::V6 => api::family::Afi::Ip6,
    };
    api::Family { afi: afi as i32, safi: api::family::Safi::Unicast as i32 }
}

fn afi_safi(of: Family, enabled: bool) -> api::AfiSafi {
    let graceful =
        api::MpGracefulRestart { config: Some(api::MpGracefulRestartConfig { enabled }) };
    api::AfiSafi {
        mp_graceful_restart: enabled.then_some(graceful),
        config: Some(api::AfiSafiConfig { family: Some(family(of)), enabled: true }),
        state: None,
    }
}

fn bfd(timers: BfdTimers) -> api::BfdPeerConfig {
    // Each timer is at most one minute, so the conversion to microseconds cannot overflow.
    let micros = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    api::BfdPeerConfig {
        enabled: true,
        port: BFD_PORT,
        desired_minimum_tx_interval: micros(timers.transmit),
        required_minimum_receive: micros(timers.receive),
        detection_multiplier: timers.multiplier.into(),
    }
}

/// Configuration of one class of routes of one family in gobgpd: the routers that receive paths
/// with its mark, and with which attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Mark that the paths of the class carry.
    pub hash: ContentHash,
    /// Defined sets of GoBGP that the statements refer to: the mark, and the routers' addresses.
    pub sets: Vec<api::DefinedSet>,
    /// Statements of the export policy, one for each group of routers that receive the same
    /// attributes.
    pub statements: Vec<api::Statement>,
}

/// Session whose router can receive the routes of a class.
pub(super) struct RouteReceiver<'a> {
    pub(super) session: &'a SessionParameters,
    /// Address of the router. The address of an unnumbered router is known only once gobgpd has
    /// discovered the router.
    pub(super) address: IpAddr,
    /// Next hop in the UPDATE if the session and the prefix have different address families. None:
    /// the local address of the session.
    pub(super) next_hop: Option<IpAddr>,
}

impl PolicyConfig {
    /// Creates the configuration of a class. `receivers` holds all sessions that can carry the
    /// address family of the class, by the names of their BGPPeers.
    pub(super) fn new(class: &RouteClass, receivers: &BTreeMap<&str, RouteReceiver<'_>>) -> Self {
        let mut sets: BTreeMap<Vec<u8>, (api::Actions, BTreeSet<String>)> = BTreeMap::new();
        for (attributes, peers) in &class.peers_by_attributes {
            for RouteReceiver { session, address, next_hop } in
                peers.iter().filter_map(|peer| receivers.get(&**peer))
            {
                let actions = actions(attributes, session, *next_hop);
                let neighbors = &mut sets
                    .entry(actions.encode_to_vec())
                    .or_insert_with(|| (actions, BTreeSet::new()))
                    .1;
                neighbors.insert(address.to_string());
            }
        }
        let mut content = Vec::new();
        for (actions, (_, neighbors)) in &sets {
            content.extend(actions);
            neighbors.iter().for_each(|name| content.extend([name.as_bytes(), b" "].concat()));
        }
        let mark = ContentHash::of(&content);
        let set = api::DefinedSet {
            defined_type: api::DefinedType::LargeCommunity as i32,
            name: format!("{NAME_PREFIX}{mark}"),
            list: vec![large_community_text(&mark.community())],
        };
        let mut policy = Self { hash: mark, sets: vec![set], statements: Vec::new() };
        for (index, (actions, neighbors)) in sets.into_values().enumerate() {
            policy.add(format!("{NAME_PREFIX}{mark}-{index}"), actions, neighbors);
        }
        policy
    }

    fn add(&mut self, name: String, actions: api::Actions, neighbors: BTreeSet<String>) {
        let any =
            |name: String| Some(api::MatchSet { r#type: api::match_set::Type::Any as i32, name });
        let mark = large_community_text(&self.hash.community());
        self.sets.push(api::DefinedSet {
            defined_type: api::DefinedType::Neighbor as i32,
            name: name.clone(),
            list: neighbors.into_iter().collect(),
        });
        // The large communities of the class replace the mark in the routes that routers receive.
        // If the class has none, the statement removes the mark.
        let large = actions
            .large_community
            .or_else(|| communities(api::community_action::Type::Remove, vec![mark]));
        self.statements.push(api::Statement {
            conditions: Some(api::Conditions {
                neighbor_set: any(name.clone()),
                large_community_set: any(format!("{NAME_PREFIX}{}", self.hash)),
                route_type: api::conditions::RouteType::Unspecified as i32,
            }),
            name,
            actions: Some(api::Actions { large_community: large, ..actions }),
        });
    }
}

/// Returns the actions of gobgpd's export policy that give a route these attributes.
fn actions(
    attributes: &RouteAttributes,
    session: &SessionParameters,
    next_hop: Option<IpAddr>,
) -> api::Actions {
    let RouteAttributes { communities: all, local_pref, med, prepend } = attributes;
    let texts = |large: bool| {
        let has_size = move |community: &&CommunityValue| {
            matches!(community, CommunityValue::Large(..)) == large
        };
        let selected: Vec<_> =
            all.iter().filter(has_size).map(|community| community_text(*community)).collect();
        (!selected.is_empty()).then_some(selected)
    };
    // Every path in gobgpd already has LOCAL_PREF 0, and no action of GoBGP can set 0.
    let preference = local_pref
        .or(session.is_internal().then_some(DEFAULT_LOCAL_PREF))
        .filter(|value| *value > 0);
    let replace = |texts| communities(api::community_action::Type::Replace, texts);
    api::Actions {
        route_action: api::RouteAction::Accept as i32,
        community: texts(false).and_then(replace),
        med: med.map(|med| api::MedAction {
            r#type: api::med_action::Type::Replace as i32,
            value: med.into(),
        }),
        as_prepend: (*prepend > 0)
            .then(|| api::AsPrependAction { asn: session.own_asn(), repeat: (*prepend).into() }),
        nexthop: next_hop.map(|address| api::NexthopAction { address: address.to_string() }),
        local_pref: preference.map(|value| api::LocalPrefAction { value }),
        large_community: texts(true).and_then(replace),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a field of the API, which may be absent")]
fn communities(
    kind: api::community_action::Type,
    communities: Vec<String>,
) -> Option<api::CommunityAction> {
    Some(api::CommunityAction { r#type: kind as i32, communities })
}

/// Returns a community in GoBGP's notation: numbers separated by colons.
fn community_text(community: CommunityValue) -> String {
    match community {
        CommunityValue::Standard(a, b) => format!("{a}:{b}"),
        CommunityValue::Large(a, b, c) => format!("{a}:{b}:{c}"),
    }
}

fn large_community_text(community: &api::LargeCommunity) -> String {
    let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
    format!("{global_admin}:{local_data1}:{local_data2}")
}
