//! The membership as other parts of the speaker read it: the peers by name and by hardware address.

use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Flags;

use super::Membership;
use super::failure_detection::Suspicion;
use super::newcomers::Newcomer;
use super::peers::Peer;

/// The host that has a hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::claim) enum Host {
    /// A host that is not known as a speaker.
    Foreign,
    /// A node that has not yet responded to a challenge.
    Newcomer {
        node: Box<str>,
        /// True if this node does not know an earlier epoch of it, and it has not responded
        /// although it had the time.
        is_silent: bool,
    },
    /// A live peer.
    Peer(Arc<str>),
    /// A peer that was declared failed.
    FailedPeer(Arc<str>),
}

impl Membership {
    /// Returns whether this interface is a standby interface, because another interface of the node
    /// is active on the same segment.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.own.standby_until.is_some()
    }

    /// Returns whether this node is isolated.
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        self.own.flags.isolated
    }

    /// Returns the names of the peers that are not declared failed, ascending.
    pub fn live_peers(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.failed).map(|(name, _)| &**name)
    }

    /// Returns the latest hardware address of each peer, failed peers included, in the order of the
    /// peers' names.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + Clone + '_ {
        self.peers.values().map(|peer| peer.mac)
    }

    /// Returns whether a live peer reports that its kube-proxy was checked and is healthy.
    #[must_use]
    pub fn any_peer_health_checked(&self) -> bool {
        self.peers.values().any(|peer| !peer.failed && peer.flags.health_checked)
    }

    /// Returns whether the next tick may declare a peer failed. Before that tick, the driver should
    /// check whether the kernel dropped frames, and report such a loss as
    /// [`Input::FramesDropped`](crate::claim::Input::FramesDropped).
    #[must_use]
    pub fn has_suspicion(&self) -> bool {
        let is_open = |suspicion: &Suspicion| suspicion.is_open();
        self.peers.values().any(|peer| peer.suspicion.as_ref().is_some_and(is_open))
    }

    /// Returns the names of the unheard peers, ascending: they are alive, but their frames do not
    /// arrive on the segment.
    pub fn unheard_peers(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| peer.unheard).map(|(name, _)| &**name)
    }

    /// Returns the flags of this node.
    pub(in crate::claim) const fn flags(&self) -> Flags {
        self.own.flags
    }

    /// Returns whether this node may claim any address now.
    pub(in crate::claim) fn claims(&self) -> bool {
        self.own.claims()
    }

    /// Returns all peers with their flags. The flags are `None` if the peer was declared failed.
    pub(in crate::claim) fn peers(&self) -> impl Iterator<Item = (&Arc<str>, Option<Flags>)> {
        self.peers.iter().map(|(name, peer)| (name, peer.live_flags()))
    }

    /// Returns the number of peers, failed ones included.
    pub(in crate::claim) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Returns the name and the flags of a live peer.
    pub(in crate::claim) fn live(&self, node: &str) -> Option<(&Arc<str>, Flags)> {
        let (name, peer) = self.peers.get_key_value(node)?;
        Some((name, peer.live_flags()?))
    }

    /// Returns the live peers that have sent frames from this hardware address, with their flags.
    pub(in crate::claim) fn live_with_mac(
        &self,
        mac: Mac,
    ) -> impl Iterator<Item = (&Arc<str>, Flags)> {
        let with_mac = self.peers.iter().filter(move |(_, peer)| peer.macs.contains(&mac));
        with_mac.filter_map(|(name, peer)| Some((name, peer.live_flags()?)))
    }

    /// Returns the latest hardware address of a peer.
    pub(in crate::claim) fn mac_of(&self, node: &str) -> Option<Mac> {
        self.peers.get(node).map(|peer| peer.mac)
    }

    /// Returns the time of the latest sign of life of a peer by either path.
    pub(in crate::claim) fn last_seen(&self, node: &str) -> Option<Instant> {
        self.peers.get(node).map(|peer| peer.last_seen)
    }

    /// Returns the host that has a hardware address.
    pub(in crate::claim) fn host(&self, mac: Mac, now: Instant) -> Host {
        if let Some((node, newcomer)) = self.newcomers.iter().find(|(_, it)| it.mac == mac) {
            let is_silent = self.is_silent_newcomer(node, newcomer, now);
            return Host::Newcomer { node: node.clone(), is_silent };
        }
        // Two peers have this MAC if a node was reinstalled under another name: prefer the live
        // peer.
        let with_mac = self.peers.iter().filter(|(_, peer)| peer.macs.contains(&mac));
        match with_mac.min_by_key(|(_, peer)| peer.failed) {
            None => Host::Foreign,
            Some((name, peer)) if peer.failed => Host::FailedPeer(Arc::clone(name)),
            Some((name, _)) => Host::Peer(Arc::clone(name)),
        }
    }

    /// Returns whether a peer or newcomer has sent frames from this hardware address.
    pub(in crate::claim) fn is_member(&self, mac: Mac) -> bool {
        self.peers.values().any(|peer| peer.macs.contains(&mac))
            || self.newcomers.values().any(|newcomer| newcomer.mac == mac)
    }

    /// Returns the nodes of which this node knows no epoch, and which have not responded to
    /// challenges although they had the time.
    pub(in crate::claim) fn silent_newcomers(&self, now: Instant) -> impl Iterator<Item = &str> {
        let newcomers = self.newcomers.iter().map(|(node, newcomer)| (&**node, newcomer));
        let is_silent = move |(node, newcomer): &(&str, &Newcomer)| {
            self.is_silent_newcomer(node, newcomer, now)
        };
        newcomers.filter(is_silent).map(|(node, _)| node)
    }
}

impl Peer {
    fn live_flags(&self) -> Option<Flags> {
        (!self.failed).then_some(self.flags)
    }
}
