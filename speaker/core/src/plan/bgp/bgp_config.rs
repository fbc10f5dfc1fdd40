//! Desired BGP configuration, derived from sessions and routes. Pure. The
//! machine for gobgpd translates it into the configuration of gobgpd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ferrolb_core::bgp::{ClassCounts, ProfilesByName, Routes, Sessions, bfd_timers};
use ferrolb_core::store::Store;
use ferrolb_proto::facts::{
    BfdTimers, BgpPeer, Node, PasswordProblem, PasswordSecret, PasswordSource, PeerLocation,
    SessionParameters,
};
use ferrolb_proto::range::Family;
use sha2::{Digest, Sha256};

use super::export_groups::{LimitedRoutes, RouteReceiver, RouteReceivers, limit_routes};
use crate::event::SessionIssue;
use crate::state::LastPasswords;

/// BGP identity of a node, the same for all its routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BgpIdentity {
    /// AS number of this node.
    pub asn: u32,
    /// Router ID (RFC 4271 section 4.2).
    pub router_id: Ipv4Addr,
}

/// Desired BGP configuration of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpConfig {
    /// BGP identity of the node. None: the node has no session, so gobgpd needs no identity.
    pub identity: Option<BgpIdentity>,
    /// Sessions, by the address or interface of the router.
    pub sessions: BTreeMap<PeerLocation, Arc<SessionConfig>>,
    /// Sessions that can carry the prefixes of each address family.
    pub receivers: BTreeMap<Family, RouteReceivers>,
    /// Routes, each with the routers that receive it. Their policy statements are within the limit.
    pub routes: Routes,
    /// Reason for which a new gobgpd possibly does not start soon after the present one stops. If
    /// set, routers should not keep the routes of the stopped gobgpd.
    pub no_restart_reason: Option<&'static str>,
}

/// Configuration of one session, with the values that come from other objects than its BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Name of the BGPPeer.
    pub name: Box<str>,
    /// Parameters in the BGPPeer.
    pub parameters: SessionParameters,
    /// Password of the session (RFC 2385), if it has one.
    pub password: Option<Box<str>>,
    /// Timers of the BFD session, if it has one.
    pub bfd: Option<BfdTimers>,
}

/// Objects that sessions and routes refer to.
#[derive(Debug)]
pub(super) struct SessionContext<'a> {
    /// The Node of this speaker.
    pub(super) node: &'a Node,
    pub(super) secrets: &'a Store<Box<str>, PasswordSecret>,
    /// Most recent password of the Secret of each BGPPeer. The session continues with this password
    /// while the Secret has no password.
    pub(super) last_passwords: &'a LastPasswords,
    pub(super) profiles: ProfilesByName<'a>,
    /// Addresses of unnumbered routers that gobgpd has discovered, by the name of the interface.
    pub(super) unnumbered_routers: BTreeMap<String, IpAddr>,
}

/// Desired BGP configuration with the issues and counts for the status.
#[derive(Debug, Default)]
pub(super) struct PlannedConfig<'a> {
    /// Desired BGP configuration.
    pub(super) config: BgpConfig,
    /// Issues that a Secret or `spec.bfdProfile` causes for a session, by the name of the BGPPeer.
    pub(super) issues: BTreeMap<&'a str, SessionIssue>,
    /// Number of prefixes that each router receives once its session is established, by the names
    /// of the BGPPeers.
    pub(super) prefixes: BTreeMap<Box<str>, i64>,
    /// Number of prefixes that are not advertised, because their classes exceed the limit on policy
    /// statements.
    pub(super) prefixes_over_limit: usize,
}

/// Derives the desired configuration from these sessions, routes, and numbers of prefixes of each
/// class. Leaves out sessions whose password is unknown, and routes that exceed the limit on policy
/// statements.
pub(super) fn plan_config<'a>(
    context: &SessionContext<'a>,
    sessions: &Sessions<'a>,
    (routes, counts): (&Routes, &ClassCounts),
) -> PlannedConfig<'a> {
    let mut plan = PlannedConfig::default();
    let mut open: Vec<(&'a BgpPeer, &'a SessionParameters)> = Vec::new();
    for (peer, session) in &sessions.active {
        let password = match context.password(session.password.as_ref()) {
            Ok(password) => password,
            Err((secret, problem)) => {
                let last = context.last_passwords.of(&peer.name);
                let (secret, continues) = (secret.into(), last.is_some());
                let issue = SessionIssue::PasswordUnavailable { secret, problem, continues };
                plan.issues.insert(&*peer.name, issue);
                let Some(last) = last else { continue };
                Some(last)
            }
        };
        let bfd = bfd_timers(session, &context.profiles).unwrap_or_else(|why| {
            plan.issues.entry(&*peer.name).or_insert(SessionIssue::Bfd(why));
            None
        });
        let (parameters, password) = ((*session).clone(), password.map(Into::into));
        let config = SessionConfig { name: peer.name.clone(), parameters, password, bfd };
        plan.config.sessions.insert(session.location.clone(), Arc::new(config));
        open.push((peer, session));
    }
    let Some((_, first)) = open.first() else { return plan };
    let router_id = first.router_id.unwrap_or_else(|| router_id(context.node));
    plan.config.identity = Some(BgpIdentity { asn: first.my_asn, router_id });
    let receivers = |family| {
        let receivers = open.iter().filter_map(|(peer, session)| {
            Some((peer.name.clone(), context.receiver(session, family)?))
        });
        (family, receivers.collect())
    };
    plan.config.receivers = [Family::V4, Family::V6].map(receivers).into();
    let LimitedRoutes { routes, prefixes, prefixes_over_limit } =
        limit_routes(routes, counts, &plan.config.receivers);
    plan.config.routes = routes;
    PlannedConfig { prefixes, prefixes_over_limit, ..plan }
}

impl<'a> SessionContext<'a> {
    /// Returns the password of a session, if it has one. The error is the name of its Secret, and
    /// why the Secret is unusable.
    fn password<'s>(
        &self,
        password: Option<&'s PasswordSource>,
    ) -> Result<Option<&'s str>, (&'s str, PasswordProblem)>
    where
        'a: 's,
    {
        match password {
            None => Ok(None),
            Some(PasswordSource::Plain(password)) => Ok(Some(password)),
            Some(PasswordSource::Secret(name)) => match self.secrets.get(name) {
                Some(PasswordSecret { password: Ok(password), .. }) => Ok(Some(password)),
                Some(PasswordSecret { password: Err(why), .. }) => Err((name, why.clone())),
                None => Err((name, PasswordProblem::NoSecret)),
            },
        }
    }

    /// Returns the router's address and the next hop with which a session sends prefixes of a
    /// family. The next hop is the session's own address if that has the same family, or if the
    /// router is unnumbered; otherwise it is the node's address. Returns none if the session does
    /// not carry the family, the node has no such address, or the router's address is not
    /// discovered yet.
    fn receiver(&self, session: &SessionParameters, family: Family) -> Option<RouteReceiver> {
        if !session.carries_family(family) {
            return None;
        }
        let node_address = || {
            self.node
                .internal_addresses
                .iter()
                .copied()
                .find(|address| Family::of(*address) == family)
        };
        let (address, next_hop) = match &session.location {
            PeerLocation::Interface(link) => (*self.unnumbered_routers.get(&**link)?, None),
            PeerLocation::Address(address) if Family::of(*address) == family => (*address, None),
            PeerLocation::Address(address) => (*address, Some(node_address()?)),
        };
        let (own_asn, internal) = (session.own_asn(), session.is_internal());
        Some(RouteReceiver { address, next_hop, own_asn, internal })
    }
}

/// Returns the router ID of a node whose BGPPeer configures none: its IPv4 address, or a number
/// derived from its name.
fn router_id(node: &Node) -> Ipv4Addr {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    let own = node.internal_addresses.iter().find_map(v4);
    own.unwrap_or_else(|| {
        let mut head = [0; 4];
        head.copy_from_slice(&Sha256::digest(node.name.as_bytes())[..4]);
        // The lowest bit is set, because 0 is not a valid router ID (RFC 6286 section 2.1).
        Ipv4Addr::from(u32::from_be_bytes(head) | 1)
    })
}
