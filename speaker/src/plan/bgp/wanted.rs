//! From sessions and routes to what gobgpd is to have. Pure; the plan asks it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ferrolb_proto::bgp::{Class, Prefix, Routes, Sessions};
use ferrolb_proto::facts::{BfdProfile, BgpPeer, Node, Password, PeerPlace, Session};
use ferrolb_proto::range::Family;
use sha2::{Digest, Sha256};

use super::order::{ClassOrder, Mark, PeerOrder, Seen, Terms};

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
}

/// What sessions and routes stand in.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// The node.
    pub(super) node: &'a Node,
    /// For each Secret with a password, by its name, that or what is wrong with it.
    pub(super) passwords: BTreeMap<&'a str, Result<&'a str, &'a str>>,
    /// The BFDProfiles, by name.
    pub(super) profiles: BTreeMap<&'a str, &'a BfdProfile>,
    /// Where the routers at the other ends of links are, by the links' names, as far as they were heard.
    pub(super) neighbours: BTreeMap<String, IpAddr>,
}

/// What gobgpd is to have for these sessions and routes, and what is wrong with BGPPeers because of other objects, by their names. Those
/// that cannot have a session have none; all others do.
pub(super) fn wanted<'a>(
    around: &Surroundings<'a>,
    sessions: &Sessions<'a>,
    routes: &Routes,
) -> (Wanted, BTreeMap<&'a str, String>) {
    let (mut wanted, mut problems) = (Wanted::default(), BTreeMap::new());
    let mut open: Vec<(&BgpPeer, &Session)> = Vec::new();
    for (peer, session) in &sessions.with {
        let password = match around.password(session.password.as_ref()) {
            Ok(password) => password,
            Err(why) => {
                problems.insert(&*peer.name, why);
                continue;
            }
        };
        let bfd = session.bfd(|name| around.profiles.get(name).copied()).unwrap_or_else(|why| {
            problems.insert(&*peer.name, why.to_string());
            None
        });
        let order = PeerOrder::new(peer, session, Terms { password, bfd });
        wanted.peers.insert(session.place.clone(), Arc::new(order));
        open.push((peer, session));
    }
    let Some((_, first)) = open.first() else { return (wanted, problems) };
    let router_id = first.router_id.unwrap_or_else(|| router_id(around.node));
    wanted.identity = Some(Identity { asn: first.my_asn, router_id });
    let mut orders: BTreeMap<(Family, &Class), Mark> = BTreeMap::new();
    let mut paths = BTreeMap::new();
    for (prefix, class) in routes {
        let family = prefix.family();
        let mark = *orders.entry((family, class)).or_insert_with(|| {
            let seen = open.iter().filter_map(|(peer, session)| Some((&*peer.name, around.seen(session, family)?)));
            let order = ClassOrder::new(class, &seen.collect());
            let mark = order.mark;
            wanted.classes.insert(mark, Arc::new(order));
            mark
        });
        paths.insert(*prefix, mark);
    }
    wanted.paths = Arc::new(paths);
    (wanted, problems)
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
