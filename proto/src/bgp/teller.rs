//! Which routers a node tells of an address: by what the API says to be announced, and what its speaker says of its sessions. Pure.
//!
//! No speaker lists what it announces by BGP, which is the same ten thousand addresses on every node: it follows from the API, and an established
//! session carries it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Ads, Asked, Audience, Relief, Sessions, audience, sessions};
use crate::announce::{Bar, Scene, Served};
use crate::facts::{BgpPeer, Node, PeerPlace, Speaker};
use crate::range::Family;

/// A node, its sessions, and what its speaker says.
#[derive(Debug)]
pub struct Teller<'a> {
    /// The node.
    pub node: &'a Node,
    sessions: Sessions<'a>,
    speaker: Option<&'a Speaker>,
}

/// Why a node tells nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// It may not.
    Barred(Bar),
    /// No living speaker runs on it.
    NoSpeaker,
    /// Its speaker has no gobgpd.
    NoGobgpd,
}

impl<'a> Teller<'a> {
    /// A node, of which these BGPPeers may be routers. Without a speaker it is dead, or was never there.
    pub fn new(node: &'a Node, peers: impl IntoIterator<Item = &'a BgpPeer>, speaker: Option<&'a Speaker>) -> Self {
        Self { node, sessions: sessions(peers, &node.labels), speaker }
    }

    /// The BGPPeers whose routers it tells of an address of these Services, and whom it should tell.
    ///
    /// # Errors
    /// Why it should tell nobody.
    pub fn told(
        &self,
        scene: &Scene<'_>,
        ads: &Ads<'a>,
        services: &[Served<'_>],
        address: IpAddr,
    ) -> Result<(BTreeSet<&'a str>, Audience<'a>), Silence> {
        let unsound = self.speaker.is_some_and(|speaker| speaker.draining || speaker.broken().is_some());
        let relief = Relief::default();
        let asked = Asked { node: self.node, sessions: &self.sessions, ads, unsound, relief: &relief };
        let should = audience(scene, &asked, services, address).map_err(Silence::Barred)?;
        let bgp = self.speaker.ok_or(Silence::NoSpeaker)?.bgp.as_ref().ok_or(Silence::NoGobgpd)?;
        let stands = |name: &&str| bgp.iter().any(|session| session.established && *session.peer == **name);
        let to = should.peers.iter().copied().filter(stands).collect();
        Ok((to, should))
    }

    /// Its speaker says that it has withdrawn what others tell, because it drains.
    #[must_use]
    pub fn withdraws(&self) -> bool {
        self.speaker.is_some_and(|speaker| speaker.withdraws)
    }

    /// Whether it has a next hop for prefixes of a family towards one of its routers: where that is reached over the other family, an
    /// address of its Node.
    pub(super) fn sends(&self, peer: &str, family: Family) -> bool {
        let has = || self.node.internal.iter().any(|address| Family::of(*address) == family);
        let session = self.sessions.with.iter().find(|(of, _)| *of.name == *peer);
        session.is_some_and(|(_, session)| match &session.place {
            PeerPlace::Address(address) => Family::of(*address) == family || has(),
            PeerPlace::Interface(_) => true,
        })
    }
}
