//! From sessions and routes to what gobgpd is to have. Pure; the plan asks it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ferrolb_proto::bgp::{Class, Prefix, Routes, Sessions};
use ferrolb_proto::facts::{BfdProfile, BgpPeer, Node, Password, PeerPlace, Session};
use ferrolb_proto::range::Family;
use sha2::{Digest, Sha256};

use super::order::{ClassOrder, Mark, PeerOrder, Seen, Terms};

/// The statements of all classes together. GoBGP reads them one after the other, for each path and each router: with a thousand of them a call of a thousand
/// paths takes 0.3 s for one router, with four thousand 1.4 s, so that it would be given up as one without an answer where there are eight.
pub(super) const STATEMENTS_MAX: usize = 1_000;

/// Who a node is to all its routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of our AS.
    pub asn: u32,
    /// The router id (RFC 4271 section 4.2).
    pub router_id: Ipv4Addr,
}

/// What gobgpd is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Who it is; none: it has no session, and is nobody.
    pub identity: Option<Identity>,
    /// Its sessions.
    pub peers: BTreeMap<PeerPlace, Arc<PeerOrder>>,
    /// Its policies.
    pub classes: BTreeMap<Mark, Arc<ClassOrder>>,
    /// Its paths, each of a class that is there.
    pub paths: Arc<BTreeMap<Prefix, Mark>>,
    /// Why the node may not be back when a gobgpd that is stopped now is: routers are not to wait for the next one.
    pub parting: Option<&'static str>,
}

/// What sessions and routes stand in.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// The node.
    pub(super) node: &'a Node,
    /// For each Secret with a password, by its name, that or what is wrong with it.
    pub(super) passwords: BTreeMap<&'a str, Result<&'a str, &'a str>>,
    /// For each BGPPeer with a Secret, the last password that the Secret had.
    pub(super) last_passwords: BTreeMap<&'a str, &'a str>,
    /// The BFDProfiles, by name.
    pub(super) profiles: BTreeMap<&'a str, &'a BfdProfile>,
    /// Where the routers at the other ends of links are, by the links' names, as far as they were heard.
    pub(super) neighbours: BTreeMap<String, IpAddr>,
}

/// A class that was made: its mark, and the BGPPeers of the routers that see it; none where there was no room for it.
type Made<'a> = Option<(Mark, Vec<&'a str>)>;

/// What comes of sessions and routes.
#[derive(Debug, Default)]
pub(super) struct Outcome<'a> {
    /// What gobgpd is to have.
    pub(super) wanted: Wanted,
    /// What is wrong with BGPPeers because of other objects, by their names.
    pub(super) problems: BTreeMap<&'a str, String>,
    /// How many prefixes the routers are announced once they have their sessions, by the names of their BGPPeers.
    pub(super) prefixes: BTreeMap<&'a str, i64>,
    /// Prefixes that are not announced because of [`STATEMENTS_MAX`].
    pub(super) left_out: usize,
}

/// What comes of these sessions and routes. Sessions that cannot be had are not wanted; all others are.
pub(super) fn wanted<'a>(around: &Surroundings<'a>, sessions: &Sessions<'a>, routes: &Routes) -> Outcome<'a> {
    let mut outcome = Outcome::default();
    let mut open: Vec<(&'a BgpPeer, &'a Session)> = Vec::new();
    for (peer, session) in &sessions.with {
        let password = match (around.password(session.password.as_ref()), around.last_passwords.get(&*peer.name)) {
            (Ok(password), _) => password,
            (Err(why), Some(last)) => {
                let why = format!("{why}; the session goes on with the last password: create the Secret again");
                outcome.problems.insert(&*peer.name, why);
                Some(*last)
            }
            (Err(why), None) => {
                outcome.problems.insert(&*peer.name, why);
                continue;
            }
        };
        let bfd = session.bfd(|name| around.profiles.get(name).copied()).unwrap_or_else(|why| {
            outcome.problems.entry(&*peer.name).or_insert_with(|| why.to_string());
            None
        });
        let order = PeerOrder::new(peer, session, Terms { password, bfd });
        outcome.wanted.peers.insert(session.place.clone(), Arc::new(order));
        open.push((peer, session));
    }
    let Some((_, first)) = open.first() else { return outcome };
    let router_id = first.router_id.unwrap_or_else(|| router_id(around.node));
    outcome.wanted.identity = Some(Identity { asn: first.my_asn, router_id });
    outcome.route(around, &open, routes);
    outcome
}

impl<'a> Outcome<'a> {
    /// Adds the classes and paths of these routes for these sessions: in the order of prefixes, as long as there is room for their statements.
    fn route(&mut self, around: &Surroundings<'a>, open: &[(&'a BgpPeer, &'a Session)], routes: &Routes) {
        let (mut paths, mut statements) = (BTreeMap::new(), 0);
        let mut classes = BTreeMap::<(Family, &Class), Made<'a>>::new();
        for (prefix, class) in routes {
            let family = prefix.family();
            let class = classes.entry((family, class)).or_insert_with(|| {
                let seen = open.iter().filter_map(|(peer, session)| Some((&*peer.name, around.seen(session, family)?)));
                let seen = seen.collect::<BTreeMap<&'a str, _>>();
                let order = ClassOrder::new(class, &seen);
                let mark = order.mark;
                if let Entry::Vacant(vacant) = self.wanted.classes.entry(mark) {
                    if statements + order.statements.len() > STATEMENTS_MAX {
                        return None;
                    }
                    statements += order.statements.len();
                    vacant.insert(Arc::new(order));
                }
                let routers = class.peers().filter_map(|name| Some(*seen.get_key_value(name)?.0));
                Some((mark, routers.collect()))
            });
            let Some((mark, routers)) = class else {
                self.left_out += 1;
                continue;
            };
            routers.iter().for_each(|router| *self.prefixes.entry(router).or_default() += 1);
            paths.insert(*prefix, *mark);
        }
        self.wanted.paths = Arc::new(paths);
    }
}

impl<'a> Surroundings<'a> {
    fn password<'s>(&self, password: Option<&'s Password>) -> Result<Option<&'s str>, String>
    where
        'a: 's,
    {
        match password {
            None => Ok(None),
            Some(Password::Plain(password)) => Ok(Some(password)),
            Some(Password::Secret(name)) => match self.passwords.get(&**name) {
                Some(Ok(password)) => Ok(Some(password)),
                Some(Err(why)) => Err(format!("spec.passwordSecret: Secret {name}: {why}")),
                None => Err(format!("spec.passwordSecret: there is no Secret {name}")),
            },
        }
    }

    /// How a session sends prefixes of a family: with its own address as next hop where that is of the family, or there is none, else with the
    /// node's; not at all where the node has none, or the router was not heard yet.
    fn seen<'s>(&self, session: &'s Session, family: Family) -> Option<Seen<'s>> {
        if !session.carries(family) {
            return None;
        }
        let of_node = || self.node.internal.iter().copied().find(|address| Family::of(*address) == family);
        match &session.place {
            PeerPlace::Interface(link) => {
                let address = *self.neighbours.get(&**link)?;
                Some(Seen { session, address, next_hop: None })
            }
            PeerPlace::Address(address) if Family::of(*address) == family => {
                Some(Seen { session, address: *address, next_hop: None })
            }
            PeerPlace::Address(address) => Some(Seen { session, address: *address, next_hop: Some(of_node()?) }),
        }
    }
}

/// A router id for a node that is not given one: its IPv4 address, or, where it has none, a number made of its name.
fn router_id(node: &Node) -> Ipv4Addr {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    let own = node.internal.iter().find_map(v4);
    own.unwrap_or_else(|| {
        let mut head = [0; 4];
        head.copy_from_slice(&Sha256::digest(node.name.as_bytes())[..4]);
        // Not 0, which is no router id (RFC 6286 section 2.1).
        Ipv4Addr::from(u32::from_be_bytes(head) | 1)
    })
}
