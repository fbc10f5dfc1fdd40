//! The other speakers on the segment (the peers), by name and by hardware address. Part of the
//! membership of one interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Flags, Frame, PEERS_MAX, PathReport};

use super::EarlierEpoch;
use super::peer::Peer;
use super::second_path::{Intervals, JUST_RECEIVED};

/// The peers on one network segment.
#[derive(Debug)]
pub struct Peers {
    table: BTreeMap<Arc<str>, Peer>,
    /// Time of the next check of the peers' deadlines. The time may be too early; an early check
    /// changes nothing.
    due: Option<Instant>,
    /// Time after which no peer expects reports of this node by the second path.
    answers_end: Instant,
}

impl Peers {
    pub(super) const fn new(now: Instant) -> Self {
        Self { table: BTreeMap::new(), due: None, answers_end: now }
    }

    /// Returns the names of the peers that are not declared failed, ascending.
    pub fn live(&self) -> impl Iterator<Item = &str> {
        self.iter().filter(|(_, flags)| flags.is_some()).map(|(name, _)| &**name)
    }

    /// Returns the names of the unheard peers, ascending: they are alive, but their frames do not
    /// arrive on the segment.
    pub fn unheard(&self) -> impl Iterator<Item = &str> {
        self.table.iter().filter(|(_, peer)| peer.liveness.is_unheard()).map(|(name, _)| &**name)
    }

    /// Returns the latest hardware address of each peer, failed peers included, in the order of the
    /// peers' names.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + Clone + '_ {
        self.table.values().map(Peer::mac)
    }

    /// Returns whether a live peer reports that its kube-proxy was checked and is healthy.
    #[must_use]
    pub fn any_health_checked(&self) -> bool {
        self.iter().any(|(_, flags)| flags.is_some_and(|flags| flags.health_checked))
    }

    /// Returns whether the next tick may declare a peer failed. Before that tick, the driver should
    /// check whether the kernel dropped frames, and report such a loss as
    /// [`Input::FramesDropped`](crate::claim::Input::FramesDropped).
    #[must_use]
    pub fn has_suspicion(&self) -> bool {
        self.table.values().any(|peer| peer.liveness.is_challenged())
    }

    /// Returns whether a path report of this node may still have to state that this node has
    /// replied to a request from `mac`.
    #[must_use]
    pub fn awaits_request_from(&self, mac: Mac, now: Instant) -> bool {
        let is_answered = |peer: &Peer| peer.mac() == mac && peer.second_path.is_answering(now);
        now < self.answers_end && self.table.values().any(is_answered)
    }

    /// Returns all peers with their flags. The flags are `None` if the peer was declared failed.
    pub(in crate::claim) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, Option<Flags>)> {
        self.table.iter().map(|(name, peer)| (name, peer.live_flags()))
    }

    /// Returns the number of peers, failed ones included.
    pub(in crate::claim) fn count(&self) -> usize {
        self.table.len()
    }

    /// Returns the name and the flags of a live peer.
    pub(in crate::claim) fn get_live(&self, node: &str) -> Option<(&Arc<str>, Flags)> {
        let (name, peer) = self.table.get_key_value(node)?;
        Some((name, peer.live_flags()?))
    }

    /// Returns the live peers that have sent frames from this hardware address, with their flags.
    pub(in crate::claim) fn live_with_mac(
        &self,
        mac: Mac,
    ) -> impl Iterator<Item = (&Arc<str>, Flags)> {
        let live = self.with_mac(mac);
        live.filter_map(|(name, peer)| Some((name, peer.live_flags()?)))
    }

    fn with_mac(&self, mac: Mac) -> impl Iterator<Item = (&Arc<str>, &Peer)> {
        self.table.iter().filter(move |(_, peer)| peer.has_mac(mac))
    }

    /// Returns the peer that has a hardware address, and whether it was declared failed. Two peers
    /// have this MAC if a node was reinstalled under another name: prefers the live peer.
    pub(super) fn host(&self, mac: Mac) -> Option<(&Arc<str>, bool)> {
        let hosts = self.with_mac(mac).map(|(name, peer)| (name, peer.liveness.has_failed()));
        hosts.min_by_key(|(_, failed)| *failed)
    }

    /// Returns the latest hardware address of a peer.
    pub(in crate::claim) fn mac_of(&self, node: &str) -> Option<Mac> {
        self.table.get(node).map(Peer::mac)
    }

    /// Returns the time of the latest sign of life of a peer by either path.
    pub(in crate::claim) fn last_seen(&self, node: &str) -> Option<Instant> {
        self.table.get(node).map(|peer| peer.liveness.last_seen())
    }

    /// Returns whether all known peers were declared failed. Also true without peers.
    pub(super) fn all_failed(&self) -> bool {
        self.live_peers().next().is_none()
    }

    /// Returns the live peers.
    pub(super) fn live_peers(&self) -> impl Iterator<Item = (&Arc<str>, &Peer)> {
        self.table.iter().filter(|(_, peer)| !peer.liveness.has_failed())
    }

    /// Returns the names of the live peers that `selects` selects.
    pub(super) fn live_names(&self, selects: impl Fn(&Peer) -> bool) -> Vec<Arc<str>> {
        let selected = self.live_peers().filter(|(_, peer)| selects(peer));
        selected.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Returns the keys that each live peer accepts; empty if not reported yet.
    pub(super) fn accepts(&self) -> impl Iterator<Item = &[u32]> + Clone {
        self.table.values().filter(|peer| !peer.liveness.has_failed()).map(Peer::accepts)
    }

    pub(super) fn get(&self, node: &str) -> Option<&Peer> {
        self.table.get(node)
    }

    /// Returns the state of a peer. After a change of its deadline, [`Self::update_due`] or
    /// [`Self::check_at`] must follow.
    pub(super) fn get_mut(&mut self, node: &str) -> Option<&mut Peer> {
        self.table.get_mut(node)
    }

    /// Returns the peer that has sent a frame, if this is its epoch.
    pub(super) fn sender(&mut self, frame: &Frame) -> Option<&mut Peer> {
        self.table.get_mut(&*frame.node).filter(|peer| peer.epoch() == frame.epoch)
    }

    /// Adds the sender of a frame, or a new epoch of it. Returns its name, and the state of its
    /// earlier epoch.
    pub(super) fn join(
        &mut self,
        source: Mac,
        frame: &Frame,
        detection_time: Duration,
        accepts: Box<[u32]>,
        now: Instant,
    ) -> (Arc<str>, Option<EarlierEpoch>) {
        let name: Arc<str> = (*frame.node).into();
        let before = self.table.remove(&name);
        let peer = Peer::new(source, frame, detection_time, accepts, before.as_ref(), now);
        self.table.insert(Arc::clone(&name), peer);
        self.update_due(&name);
        (name, before.map(|before| before.earlier_epoch()))
    }

    /// Returns whether one more peer does not fit into the table.
    pub(super) fn is_full_for(&self, node: &str) -> bool {
        self.table.len() >= PEERS_MAX && !self.table.contains_key(node)
    }

    /// Returns the failed peer that has been silent for longest.
    pub(super) fn longest_failed(&self) -> Option<Arc<str>> {
        let failed = self.table.iter().filter(|(_, peer)| peer.liveness.has_failed());
        let longest = failed.min_by_key(|(_, peer)| peer.liveness.last_seen());
        longest.map(|(name, _)| Arc::clone(name))
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.table.remove(name);
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Checks the peers' deadlines at this time.
    pub(super) const fn check_at(&mut self, at: Instant) {
        self.due = Some(at);
    }

    /// Updates the time of the next check, after the deadline of a peer has changed.
    pub(super) fn update_due(&mut self, name: &str) {
        let due = self.table.get(name).map(|peer| peer.liveness.deadline());
        self.due = self.due.into_iter().chain(due).min();
    }

    /// Returns the names of the peers whose deadline has passed; `None` if no check is due. After
    /// the check of these peers, [`Self::schedule_check`] must follow.
    pub(super) fn due_names(&self, now: Instant) -> Option<Vec<Arc<str>>> {
        self.due.filter(|at| now >= *at)?;
        let is_due = |peer: &Peer| now >= peer.liveness.deadline();
        let due = self.table.iter().filter(|(_, peer)| is_due(peer));
        Some(due.map(|(name, _)| Arc::clone(name)).collect())
    }

    pub(super) fn schedule_check(&mut self) {
        let deadline = |peer: &Peer| peer.liveness.deadline();
        self.due = self.table.values().map(deadline).min();
    }

    pub(super) fn on_arp_reply(&mut self, mac: Mac) {
        for peer in self.table.values_mut().filter(|peer| peer.mac() == mac) {
            peer.liveness.on_arp_reply();
        }
    }

    /// Restarts every suspicion, because the kernel dropped frames that may have come from the
    /// suspected peers.
    pub(super) fn restart_suspicions(&mut self, now: Instant) {
        for peer in self.table.values_mut() {
            if peer.liveness.restart(now) {
                self.due = Some(now);
            }
        }
    }

    /// Returns the intervals of the second path, which depend on the number of peers.
    pub(super) fn intervals(&self) -> Intervals {
        Intervals::with_peers(self.table.len())
    }

    /// Begins the answer to the challenge of a peer by the second path. `is_received` is true if
    /// frames of this node have just arrived on the segment. Returns whether the report states so.
    pub(super) fn answer_challenge(
        &mut self,
        node: &str,
        nonce: u64,
        is_received: bool,
        now: Instant,
    ) -> bool {
        let until = now + self.intervals().copies;
        self.answers_end = until;
        let Some(peer) = self.table.get_mut(node) else { return is_received };
        let receives = now.since(peer.liveness.last_frame()) <= JUST_RECEIVED;
        let report = PathReport { receives, is_received, ..PathReport::default() };
        peer.second_path.answer(nonce, report, until)
    }

    /// Adds what has just become known to the reports for the peers that `concerns` selects.
    /// Returns the names of those whose report has changed.
    pub(super) fn add_to_reports(
        &mut self,
        concerns: impl Fn(&str, &Peer) -> bool,
        add: fn(&mut PathReport),
        now: Instant,
    ) -> Vec<Arc<str>> {
        if now >= self.answers_end {
            return Vec::new();
        }
        let concerned = self.table.iter_mut().filter(|(name, peer)| concerns(name, peer));
        let changed = concerned.filter_map(|(name, peer)| {
            peer.second_path.add_to_report(add, now).then(|| Arc::clone(name))
        });
        changed.collect()
    }

    /// Returns the names of the peers to which a copy of a frame goes by the second path. `to` is
    /// the destination of the frame on the segment.
    pub(super) fn copy_targets(
        &mut self,
        to: Option<Mac>,
        body: &Body,
        now: Instant,
    ) -> impl Iterator<Item = &Arc<str>> {
        let intervals = self.intervals();
        self.table.iter_mut().filter_map(move |(name, peer)| {
            let is_destination = to.is_none_or(|mac| mac == peer.mac());
            (is_destination && peer.takes_copy(body, intervals, now)).then_some(name)
        })
    }
}
