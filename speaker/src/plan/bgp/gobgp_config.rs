//! Desired configuration of gobgpd, derived from sessions and routes. Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ferrolb_proto::bgp::{Prefix, RouteClass, Routes, Sessions};
use ferrolb_proto::facts::{
    BfdProfile, BgpPeer, Node, PasswordSource, PeerLocation, SessionParameters,
};
use ferrolb_proto::range::Family;
use sha2::{Digest, Sha256};

use crate::event::{PasswordProblem, SessionIssue};

use super::peer_config::{
    ContentHash, PeerConfig, PolicyConfig, ResolvedReferences, RouteReceiver,
};

/// Limit on the policy statements of all classes together. GoBGP evaluates them in sequence, for
/// each path and each router. A call with a thousand paths takes 0.3 s for one router with a
/// thousand statements, and 1.4 s with four thousand. With four thousand statements and eight
/// routers, the call would exceed its timeout.
pub(super) const STATEMENTS_MAX: usize = 1_000;

/// BGP identity of a node, the same for all its routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BgpIdentity {
    /// AS number of this node.
    pub asn: u32,
    /// Router ID (RFC 4271 section 4.2).
    pub router_id: Ipv4Addr,
}

/// Desired configuration of gobgpd.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GobgpConfig {
    /// BGP identity of the node. None: the node has no session, so gobgpd needs no identity.
    pub identity: Option<BgpIdentity>,
    /// Sessions, by the address or interface of the router.
    pub peers: BTreeMap<PeerLocation, Arc<PeerConfig>>,
    /// Policies for the classes of routes.
    pub policies: BTreeMap<ContentHash, Arc<PolicyConfig>>,
    /// Paths by prefix, each with the mark of its class.
    pub paths: Arc<BTreeMap<Prefix, ContentHash>>,
    /// Reason for which a new gobgpd possibly does not start soon after the present one stops. If
    /// set, routers should not keep the routes of the stopped gobgpd.
    pub no_restart_reason: Option<&'static str>,
}

/// Objects that sessions and routes refer to.
#[derive(Debug)]
pub(super) struct SessionContext<'a> {
    /// The Node of this speaker.
    pub(super) node: &'a Node,
    /// For each Secret, by its name, the password or why it has none.
    pub(super) passwords: BTreeMap<&'a str, Result<&'a str, &'a PasswordProblem>>,
    /// Most recent password of the Secret of each BGPPeer, by the name of the BGPPeer. The session
    /// continues with this password while the Secret has no password.
    pub(super) last_passwords: BTreeMap<&'a str, &'a str>,
    /// The BFDProfiles, by name.
    pub(super) profiles: BTreeMap<&'a str, &'a BfdProfile>,
    /// Addresses of unnumbered routers that gobgpd has discovered, by the name of the interface.
    pub(super) unnumbered_routers: BTreeMap<String, IpAddr>,
}

/// Result for a class of routes: its mark, and the BGPPeers of the routers that receive the class.
/// None: the class is left out, because its statements exceed [`STATEMENTS_MAX`].
type PlannedClass<'a> = Option<(ContentHash, Vec<&'a str>)>;

/// Desired configuration of gobgpd with the issues and counts for the status.
#[derive(Debug, Default)]
pub(super) struct GobgpPlan<'a> {
    /// Desired configuration of gobgpd.
    pub(super) config: GobgpConfig,
    /// Issues that a Secret or a BFDProfile causes for a session, by the names of the BGPPeers.
    pub(super) issues: BTreeMap<&'a str, SessionIssue>,
    /// Number of prefixes that each router receives once its session is established, by the names
    /// of the BGPPeers.
    pub(super) prefixes: BTreeMap<&'a str, i64>,
    /// Number of prefixes that are not advertised because of [`STATEMENTS_MAX`].
    pub(super) prefixes_over_limit: usize,
}

/// Derives the desired configuration from these sessions and routes. Leaves out sessions whose
/// password is unknown.
pub(super) fn plan_gobgp<'a>(
    context: &SessionContext<'a>,
    sessions: &Sessions<'a>,
    routes: &Routes,
) -> GobgpPlan<'a> {
    let mut plan = GobgpPlan::default();
    let mut open: Vec<(&'a BgpPeer, &'a SessionParameters)> = Vec::new();
    for (peer, session) in &sessions.active {
        let password = match context.password(session.password.as_ref()) {
            Ok(password) => password,
            Err((secret, problem)) => {
                let last = context.last_passwords.get(&*peer.name);
                let (secret, continues) = (secret.into(), last.is_some());
                let issue = SessionIssue::PasswordUnavailable { secret, problem, continues };
                plan.issues.insert(&*peer.name, issue);
                let Some(last) = last else { continue };
                Some(*last)
            }
        };
        let bfd = session.bfd(|name| context.profiles.get(name).copied()).unwrap_or_else(|why| {
            plan.issues.entry(&*peer.name).or_insert(SessionIssue::BfdProfile(why));
            None
        });
        let config = PeerConfig::new(peer, session, ResolvedReferences { password, bfd });
        plan.config.peers.insert(session.location.clone(), Arc::new(config));
        open.push((peer, session));
    }
    let Some((_, first)) = open.first() else { return plan };
    let router_id = first.router_id.unwrap_or_else(|| router_id(context.node));
    plan.config.identity = Some(BgpIdentity { asn: first.my_asn, router_id });
    plan.add_routes(context, &open, routes);
    plan
}

impl<'a> GobgpPlan<'a> {
    /// Adds the policies and paths of `routes` for the sessions in `open`, in the order of the
    /// prefixes. Leaves out the classes whose policy statements would exceed [`STATEMENTS_MAX`] in
    /// total.
    fn add_routes(
        &mut self,
        context: &SessionContext<'a>,
        open: &[(&'a BgpPeer, &'a SessionParameters)],
        routes: &Routes,
    ) {
        let (mut paths, mut statements) = (BTreeMap::new(), 0);
        let mut classes = BTreeMap::<(Family, &RouteClass), PlannedClass<'a>>::new();
        for (prefix, class) in routes {
            let family = prefix.family();
            let class = classes.entry((family, class)).or_insert_with(|| {
                let receivers = open.iter().filter_map(|(peer, session)| {
                    Some((&*peer.name, context.receiver(session, family)?))
                });
                let receivers = receivers.collect::<BTreeMap<&'a str, _>>();
                let config = PolicyConfig::new(class, &receivers);
                let mark = config.hash;
                if let Entry::Vacant(vacant) = self.config.policies.entry(mark) {
                    if statements + config.statements.len() > STATEMENTS_MAX {
                        return None;
                    }
                    statements += config.statements.len();
                    vacant.insert(Arc::new(config));
                }
                let routers =
                    class.peers().filter_map(|name| Some(*receivers.get_key_value(name)?.0));
                Some((mark, routers.collect()))
            });
            let Some((mark, routers)) = class else {
                self.prefixes_over_limit += 1;
                continue;
            };
            routers.iter().for_each(|router| *self.prefixes.entry(router).or_default() += 1);
            paths.insert(*prefix, *mark);
        }
        self.config.paths = Arc::new(paths);
    }
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
            Some(PasswordSource::Secret(name)) => match self.passwords.get(&**name) {
                Some(Ok(password)) => Ok(Some(password)),
                Some(Err(problem)) => Err((&**name, (*problem).clone())),
                None => Err((&**name, PasswordProblem::NoSecret)),
            },
        }
    }

    /// Returns the router's address and the next hop with which a session sends prefixes of a
    /// family. The next hop is the session's own address if that has the same family, or if the
    /// router is unnumbered; otherwise it is the node's address. Returns none if the session does
    /// not carry the family, the node has no such address, or the router's address is not
    /// discovered yet.
    fn receiver<'s>(
        &self,
        session: &'s SessionParameters,
        family: Family,
    ) -> Option<RouteReceiver<'s>> {
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
        match &session.location {
            PeerLocation::Interface(link) => {
                let address = *self.unnumbered_routers.get(&**link)?;
                Some(RouteReceiver { session, address, next_hop: None })
            }
            PeerLocation::Address(address) if Family::of(*address) == family => {
                Some(RouteReceiver { session, address: *address, next_hop: None })
            }
            PeerLocation::Address(address) => {
                Some(RouteReceiver { session, address: *address, next_hop: Some(node_address()?) })
            }
        }
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
