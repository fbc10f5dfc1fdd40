//! Which routers a node tells of an address: by what the API says to be announced, and what its speaker says of its sessions. Pure.
//!
//! No speaker lists what it announces by BGP, which is the same ten thousand addresses on every node: it follows from the API, and an established
//! session carries it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Ads, Asked, Audience, Sessions, audience, sessions};
use crate::announce::{Bar, Scene, Served};
use crate::facts::{BgpPeer, Node, Speaker};

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
        let asked = Asked { node: self.node, sessions: &self.sessions, ads, unsound };
        let should = audience(scene, &asked, services, address).map_err(Silence::Barred)?;
        let bgp = self.speaker.ok_or(Silence::NoSpeaker)?.bgp.as_ref().ok_or(Silence::NoGobgpd)?;
        let stands = |name: &&str| bgp.iter().any(|session| session.established && *session.peer == **name);
        let to = should.peers.iter().copied().filter(stands).collect();
        Ok((to, should))
    }
}
