//! What gobgpd is told of one session and of one class of routes, each with a mark by which it is known again. Pure.
//!
//! A mark is a hash of all that is told, so a speaker that restarts knows by the marks alone what in the daemon is as it wants it
//! (docs/adr/0010-routes-carry-a-mark.md).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ferrolb_proto::bgp::{Attributes, Class};
use ferrolb_proto::facts::{BfdTimers, BgpPeer, CommunityValue, PeerAsn, PeerPlace, Session};
use ferrolb_proto::range::Family;
use gobgp_proto as api;
use prost::Message;
use sha2::{Digest, Sha256};

/// The first number of the large community that is a mark. It belongs to nobody (RFC 6996), and routers never see it.
const MARK_ADMIN: u32 = 4_200_000_000;
/// What the names of everything of ours begin with.
const OURS: &str = "ferrolb-";
/// The TTL of packets to an external router that is more than one hop away.
const MULTIHOP_TTL: u32 = 255;
/// How long routers keep our routes while gobgpd is gone, where graceful restart is on (RFC 4724 section 3), in seconds.
pub const RESTART_TIME_S: u32 = 120;
/// How long a restarted gobgpd waits for its other routers before it sends routes, in seconds, the least that there is: what it sends does not come from them,
/// and its own default would hold all routes back for 360 s while one router is down.
const DEFERRAL_TIME_S: u32 = 1;
/// The local preference of what no advertisement says one of: what routers take for their own, too.
const USUAL_LOCAL_PREF: u32 = 100;
/// How long a session rests after it was reset, in seconds.
const IDLE_HOLD_S: u64 = 5;
/// The port of single-hop BFD (RFC 5881 section 4).
const BFD_PORT: u32 = 3784;

/// 64 bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u64);

impl Mark {
    fn of(told: &[u8]) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(told)[..8]);
        Self(u64::from_be_bytes(head))
    }

    /// The large community that a path of the class carries (RFC 8092).
    #[must_use]
    pub const fn community(self) -> api::LargeCommunity {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
        let (local_data1, local_data2) = ((self.0 >> 32) as u32, self.0 as u32);
        api::LargeCommunity { global_admin: MARK_ADMIN, local_data1, local_data2 }
    }

    /// The mark that a large community is, if it is one.
    #[must_use]
    pub fn read(community: &api::LargeCommunity) -> Option<Self> {
        let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
        (*global_admin == MARK_ADMIN).then(|| Self(u64::from(*local_data1) << 32 | u64::from(*local_data2)))
    }

    /// The mark in the name of a statement, if it is one of ours.
    #[must_use]
    pub fn of_statement(name: &str) -> Option<Self> {
        let (mark, _) = name.strip_prefix(OURS)?.split_once('-')?;
        u64::from_str_radix(mark, 16).ok().map(Self)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One session, as gobgpd is told.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerOrder {
    /// The name of its BGPPeer.
    pub name: Box<str>,
    /// What is told; its description has the name and the mark. Of its BFD the mark says nothing: that comes and goes with the session.
    pub peer: api::Peer,
}

/// What a session's terms leave open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms<'a> {
    /// The password itself.
    pub(super) password: Option<&'a str>,
    /// The timers of its BFD session, if it has one.
    pub(super) bfd: Option<BfdTimers>,
}

impl PeerOrder {
    pub(super) fn new(peer: &BgpPeer, session: &Session, terms: Terms<'_>) -> Self {
        let told = told(session, terms.password);
        let description = format!("{OURS}{} {}", Mark::of(&told.encode_to_vec()), peer.name);
        let conf = told.conf.map(|conf| api::PeerConf { description, ..conf });
        Self { name: peer.name.clone(), peer: api::Peer { conf, bfd: terms.bfd.map(bfd), ..told } }
    }

    /// What the daemon keeps with the session as a person's words. It says all there is to know but BFD: of two that are the same, all else is.
    #[must_use]
    pub fn description(&self) -> &str {
        self.peer.conf.as_ref().map_or("", |conf| &conf.description)
    }

    /// The session with BFD or without.
    #[must_use]
    pub fn watched(&self, on: bool) -> api::Peer {
        api::Peer { bfd: self.peer.bfd.filter(|_| on), ..self.peer.clone() }
    }
}

fn told(session: &Session, password: Option<&str>) -> api::Peer {
    let (address, interface) = match &session.place {
        PeerPlace::Address(address) => (address.to_string(), String::new()),
        PeerPlace::Interface(name) => (String::new(), name.to_string()),
    };
    let peer_asn = match session.peer_asn {
        PeerAsn::Number(asn) => asn,
        PeerAsn::External => 0,
    };
    let enabled = session.graceful_restart;
    let families = [Family::V4, Family::V6].into_iter().filter(|family| session.carries(*family));
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
        ebgp_multihop: session.multi_hop.then_some(api::EbgpMultihop { enabled: true, multihop_ttl: MULTIHOP_TTL }),
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
            // The kernel forwards whatever becomes of gobgpd. Without this word routers drop at the first OPEN what they have kept.
            local_restarting: true,
        }),
        afi_safis: families.map(|of| afi_safi(of, enabled)).collect(),
        bfd: None,
        state: None,
    }
}

/// A family as the API writes it.
#[must_use]
pub const fn family(family: Family) -> api::Family {
    let afi = match family {
        Family::V4 => api::family::Afi::Ip,
        Family::V6 => api::family::Afi::Ip6,
    };
    api::Family { afi: afi as i32, safi: api::family::Safi::Unicast as i32 }
}

fn afi_safi(of: Family, enabled: bool) -> api::AfiSafi {
    let graceful = api::MpGracefulRestart { config: Some(api::MpGracefulRestartConfig { enabled }) };
    api::AfiSafi {
        mp_graceful_restart: enabled.then_some(graceful),
        config: Some(api::AfiSafiConfig { family: Some(family(of)), enabled: true }),
        state: None,
    }
}

fn bfd(timers: BfdTimers) -> api::BfdPeerConfig {
    // At most a minute each.
    let micros = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    api::BfdPeerConfig {
        enabled: true,
        port: BFD_PORT,
        desired_minimum_tx_interval: micros(timers.transmit),
        required_minimum_receive: micros(timers.receive),
        detection_multiplier: timers.multiplier.into(),
    }
}

/// One class of routes of one family, as gobgpd is told: which routers see what carries its mark, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassOrder {
    /// What its paths carry.
    pub mark: Mark,
    /// The sets that its statements name.
    pub sets: Vec<api::DefinedSet>,
    /// One for all routers that see the same.
    pub statements: Vec<api::Statement>,
}

/// A router's side of a class: what a statement does, and where the session goes that it is for.
pub(super) struct Seen<'a> {
    pub(super) session: &'a Session,
    /// Where the router is; what an unnumbered one has is known once it was heard.
    pub(super) address: IpAddr,
    /// What stands in the UPDATE where the session is of another family than the prefix; else its own address does.
    pub(super) next_hop: Option<IpAddr>,
}

impl ClassOrder {
    /// `seen`: the sessions with the class's routers that can take it, by the name of their BGPPeers.
    pub(super) fn new(class: &Class, seen: &BTreeMap<&str, Seen<'_>>) -> Self {
        let mut sets: BTreeMap<Vec<u8>, (api::Actions, BTreeSet<String>)> = BTreeMap::new();
        for (attributes, peers) in &class.seen_as {
            for Seen { session, address, next_hop } in peers.iter().filter_map(|peer| seen.get(&**peer)) {
                let actions = actions(attributes, session, *next_hop);
                let neighbours =
                    &mut sets.entry(actions.encode_to_vec()).or_insert_with(|| (actions, BTreeSet::new())).1;
                neighbours.insert(address.to_string());
            }
        }
        let mut told = Vec::new();
        for (actions, (_, neighbours)) in &sets {
            told.extend(actions);
            neighbours.iter().for_each(|name| told.extend([name.as_bytes(), b" "].concat()));
        }
        let mark = Mark::of(&told);
        let set = api::DefinedSet {
            defined_type: api::DefinedType::LargeCommunity as i32,
            name: format!("{OURS}{mark}"),
            list: vec![text(&mark.community())],
        };
        let mut order = Self { mark, sets: vec![set], statements: Vec::new() };
        for (place, (actions, neighbours)) in sets.into_values().enumerate() {
            order.add(format!("{OURS}{mark}-{place}"), actions, neighbours);
        }
        order
    }

    fn add(&mut self, name: String, actions: api::Actions, neighbours: BTreeSet<String>) {
        let any = |name: String| Some(api::MatchSet { r#type: api::match_set::Type::Any as i32, name });
        let mark = text(&self.mark.community());
        self.sets.push(api::DefinedSet {
            defined_type: api::DefinedType::Neighbor as i32,
            name: name.clone(),
            list: neighbours.into_iter().collect(),
        });
        // The class's own large communities replace the mark; where it has none the mark is taken away.
        let large = actions.large_community.or_else(|| communities(api::community_action::Type::Remove, vec![mark]));
        self.statements.push(api::Statement {
            conditions: Some(api::Conditions {
                neighbor_set: any(name.clone()),
                large_community_set: any(format!("{OURS}{}", self.mark)),
                route_type: api::conditions::RouteType::Unspecified as i32,
            }),
            name,
            actions: Some(api::Actions { large_community: large, ..actions }),
        });
    }
}

/// What is done to a route that a router sees like this.
fn actions(attributes: &Attributes, session: &Session, next_hop: Option<IpAddr>) -> api::Actions {
    let Attributes { communities: all, local_pref, med, prepend } = attributes;
    let of = |large: bool| {
        let is = move |community: &&CommunityValue| matches!(community, CommunityValue::Large(..)) == large;
        let texts: Vec<_> = all.iter().filter(is).map(|community| bare(*community)).collect();
        (!texts.is_empty()).then_some(texts)
    };
    // 0 is what the path has, and what no action can set.
    let preference = local_pref.or(session.is_internal().then_some(USUAL_LOCAL_PREF)).filter(|value| *value > 0);
    let replace = |texts| communities(api::community_action::Type::Replace, texts);
    api::Actions {
        route_action: api::RouteAction::Accept as i32,
        community: of(false).and_then(replace),
        med: med.map(|med| api::MedAction { r#type: api::med_action::Type::Replace as i32, value: med.into() }),
        as_prepend: (*prepend > 0).then(|| api::AsPrependAction { asn: session.own_asn(), repeat: (*prepend).into() }),
        nexthop: next_hop.map(|address| api::NexthopAction { address: address.to_string() }),
        local_pref: preference.map(|value| api::LocalPrefAction { value }),
        large_community: of(true).and_then(replace),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a field of the API, which may be absent")]
fn communities(kind: api::community_action::Type, communities: Vec<String>) -> Option<api::CommunityAction> {
    Some(api::CommunityAction { r#type: kind as i32, communities })
}

/// A community as GoBGP writes it: its numbers.
fn bare(community: CommunityValue) -> String {
    match community {
        CommunityValue::Standard(a, b) => format!("{a}:{b}"),
        CommunityValue::Large(a, b, c) => format!("{a}:{b}:{c}"),
    }
}

fn text(community: &api::LargeCommunity) -> String {
    let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
    format!("{global_admin}:{local_data1}:{local_data2}")
}
