//! Failure detection: a peer is suspected after missed hellos, and declared failed after challenges
//! without a response. Part of the membership of one interface.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, PathReport};

use super::peers::Peer;
use super::{MemberEffect, Membership};

/// Interval between the challenges to a suspected peer.
const CHALLENGE_EVERY: Duration = Duration::from_millis(15);
/// Number of intervals between two challenges after the time of a failure detection.
const CHECKS_PER_CHALLENGE: u32 = 4;
/// Time after the start of a suspicion during which a loss of frames in the kernel restarts the
/// suspicion.
const DROPPED_FRAMES_WINDOW: Duration = Duration::from_secs(1);
/// Time from the start of a suspicion until the peer is declared failed, if no frame of the peer
/// arrives.
const FAILURE_DELAY: Duration = Duration::from_millis(40);
/// The same for a peer that was unheard. It is longer, because this peer reports by the second path
/// alone.
const FAILURE_DELAY_UNHEARD: Duration = Duration::from_millis(120);
/// Time that is added to these delays if a report of the peer has arrived and a further one may
/// follow.
const REPORT_DELAY: Duration = Duration::from_millis(20);
/// Time in which a frame should arrive on the segment after other evidence of it.
const FRAME_DELAY: Duration = Duration::from_millis(20);
/// Time for which announcements with the MAC of a failed peer are ignored, after the peer has not
/// replied to a challenge. Another host may have forged them.
const FORGERY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which an unheard peer is challenged, on a small segment
/// ([`Membership::second_path_factor`]).
const UNHEARD_INTERVAL: Duration = Duration::from_secs(1);

/// Suspicion that a peer has failed: one round of challenges. An unheard peer is always under
/// suspicion, and between two rounds no challenge has been sent.
#[derive(Debug)]
pub(super) struct Suspicion {
    /// Start of the suspicion.
    began: Instant,
    /// Start of the round.
    since: Instant,
    pub(super) next: Instant,
    challenges: u32,
    /// Nonce of the challenges of the round.
    nonce: u64,
    arp_replied: bool,
    /// Latest report of the peer by the second path.
    report: Option<PathReport>,
    /// Address that a failed peer has announced, although this node owns it.
    announced: Option<IpAddr>,
}

/// Result of a round of challenges.
enum Verdict {
    /// The round continues.
    Open,
    /// The peer exchanges frames with the segment, but they do not arrive at this node.
    Unheard,
    Failed,
}

impl Suspicion {
    const fn new(nonce: u64, at: Instant) -> Self {
        Self {
            began: at,
            since: at,
            next: at,
            challenges: 0,
            nonce,
            arp_replied: false,
            report: None,
            announced: None,
        }
    }

    /// Returns whether a round of challenges is in progress.
    pub(super) const fn is_open(&self) -> bool {
        self.challenges > 0
    }

    /// Returns the time from the start of the round to its end, if the peer has sent no frame.
    fn delay(&self, is_unheard: bool) -> Duration {
        let report = if self.report.is_some() { REPORT_DELAY } else { Duration::ZERO };
        failure_delay(is_unheard) + report
    }
}

/// Returns the duration of a round of challenges to a peer that sends nothing.
const fn failure_delay(is_unheard: bool) -> Duration {
    if is_unheard { FAILURE_DELAY_UNHEARD } else { FAILURE_DELAY }
}

impl Peer {
    /// Returns whether the peer is challenged with this nonce, because it is suspected.
    pub(super) fn is_challenged_with(&self, nonce: u64) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.nonce == nonce)
    }
}

impl Membership {
    pub(in crate::claim) fn on_arp_reply(&mut self, mac: Mac) {
        for peer in self.peers.values_mut().filter(|peer| peer.mac == mac) {
            if let Some(suspicion) = peer.suspicion.as_mut().filter(|suspicion| suspicion.is_open())
            {
                suspicion.arp_replied = true;
            }
        }
    }

    /// Handles a report by which a peer responds to a challenge of this node.
    pub(super) fn on_path_report(
        &mut self,
        node: &str,
        nonce: u64,
        report: PathReport,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let Some(suspicion) = peer.suspicion.as_mut().filter(|it| it.nonce == nonce) else {
            return;
        };
        let before = suspicion.report.unwrap_or_default();
        let report = before.merged_with(report);
        suspicion.report = Some(report);
        if (peer.unheard || peer.failed) && report.proves_exchange(suspicion.arp_replied) {
            suspicion.next = now;
            self.peers_due = Some(now);
        }
    }

    /// Restarts every suspicion, because the kernel dropped frames that may have come from the
    /// suspected peers. A suspicion older than [`DROPPED_FRAMES_WINDOW`] continues, so that a flood
    /// cannot hide the failure of a peer.
    pub(in crate::claim) fn on_frames_dropped(&mut self, now: Instant) {
        for suspicion in self.peers.values_mut().filter_map(|peer| peer.suspicion.as_mut()) {
            if suspicion.is_open() && now.since(suspicion.began) < DROPPED_FRAMES_WINDOW {
                (suspicion.since, suspicion.next, suspicion.challenges) = (now, now, 0);
                self.peers_due = Some(now);
            }
        }
    }

    /// Declares all peers failed that are not unheard: this node may be alone.
    pub(super) fn declare_all_failed(&mut self, now: Instant) {
        let live = self.peers.iter().filter(|(_, peer)| !peer.failed && !peer.unheard);
        for name in live.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.declare_failed(&name, now);
        }
    }

    /// Handles the deadlines of peers: missing hellos, suspicions, and the removal of failed peers.
    pub(in crate::claim) fn check_peers(&mut self, now: Instant) {
        if self.peers_due.is_none_or(|at| now < at) {
            return;
        }
        let is_due = |peer: &Peer| peer.deadline(&self.config).is_some_and(|at| now >= at);
        let due = self.peers.iter().filter(|(_, peer)| is_due(peer));
        for name in due.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            if peer.failed && peer.suspicion.is_none() {
                self.remove_peer(&name);
            } else {
                self.suspect(&name, now);
            }
        }
        self.peers_due = self.peers.values().filter_map(|peer| peer.deadline(&self.config)).min();
    }

    /// Updates the time of the next check of the peers, after a frame has changed the deadline of
    /// its sender.
    pub(super) fn update_peers_due(&mut self, name: &str) {
        let due = self.peers.get(name).and_then(|peer| peer.deadline(&self.config));
        self.peers_due = self.peers_due.into_iter().chain(due).min();
    }

    fn suspect(&mut self, name: &str, now: Instant) {
        let nonce = self.random.nonce();
        let Some(peer) = self.peers.get_mut(name) else { return };
        let suspicion = peer.suspicion.get_or_insert_with(|| Suspicion::new(nonce, now));
        if now < suspicion.next {
            return;
        }
        match self.verdict(name, now) {
            Verdict::Open => self.challenge_suspect(name, now),
            Verdict::Unheard => self.on_unheard(name, now),
            Verdict::Failed => self.declare_failed(name, now),
        }
    }

    fn verdict(&self, name: &str, now: Instant) -> Verdict {
        let Some(peer) = self.peers.get(name) else { return Verdict::Open };
        let Some(suspicion) = &peer.suspicion else { return Verdict::Open };
        let is_first = !(peer.unheard || peer.failed);
        let exchanges =
            suspicion.report.is_some_and(|report| report.proves_exchange(suspicion.arp_replied));
        if exchanges && (now >= suspicion.since + failure_delay(peer.unheard) || !is_first) {
            return Verdict::Unheard;
        }
        let end = suspicion.since + suspicion.delay(peer.unheard);
        // If no frame at all arrives, the receive path of this node may have failed.
        let proves_nothing =
            self.received_nothing_since(suspicion.since) && !self.may_be_alone(now);
        if now < end || proves_nothing { Verdict::Open } else { Verdict::Failed }
    }

    fn challenge_suspect(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let is_unheard = peer.unheard;
        let Some(suspicion) = &mut peer.suspicion else { return };
        let is_new = suspicion.challenges == 0 && !peer.unheard && !peer.failed;
        self.counts.suspicions += u64::from(is_new);
        suspicion.challenges += 1;
        let end = suspicion.since + suspicion.delay(is_unheard);
        let next = now + CHALLENGE_EVERY;
        suspicion.next = if now < end { next.min(end) } else { next };
        // If this node receives nothing, it challenges less often, but checks just as often whether
        // a witness has replied.
        let is_over = now >= suspicion.since + FAILURE_DELAY;
        if is_over && !suspicion.challenges.is_multiple_of(CHECKS_PER_CHALLENGE) {
            return;
        }
        let (mac, nonce, since) = (peer.mac, suspicion.nonce, suspicion.since);
        // The peer may have released the addresses that it claimed when it was last heard.
        let (announced, prefers_announced) = (suspicion.announced, suspicion.challenges % 2 == 0);
        self.send(Some(mac), Body::Challenge { nonce }, now);
        let node = name.into();
        self.effects.push_back(MemberEffect::Probe { node, mac, announced, prefers_announced });
        if self.received_nothing_since(since) {
            self.probe_witnesses(now);
        }
    }

    /// Records that a peer is unheard, and schedules the next round of challenges.
    fn on_unheard(&mut self, name: &str, now: Instant) {
        let nonce = self.random.nonce();
        let interval = UNHEARD_INTERVAL * self.second_path_factor();
        let was_alone = self.is_alone();
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.suspicion = Some(Suspicion::new(nonce, now + interval));
        peer.last_seen = now;
        let was_failed = std::mem::take(&mut peer.failed);
        if !std::mem::replace(&mut peer.unheard, true) {
            self.counts.unheard += 1;
            let (mac, last_frame) = (peer.mac, peer.last_frame);
            self.effects.push_back(MemberEffect::BecameUnheard { node: name.into(), last_frame });
            // Copies that the peer has sent until now were dropped.
            self.send(Some(mac), Body::ListRequest, now);
        }
        if was_failed {
            self.effects.push_back(MemberEffect::PeerChanged(name.into()));
            self.effects.push_back(MemberEffect::Returned(name.into()));
            if was_alone {
                self.start_preempt_delay(now);
            }
        }
    }

    /// Suspects all live peers, because none of them has responded to a challenge. Unheard peers
    /// are challenged at once: their replies by ARP prove that this node receives frames.
    pub(super) fn suspect_all(&mut self, now: Instant) {
        let is_idle = |suspicion: &Suspicion| !suspicion.is_open();
        let is_due = |peer: &Peer| !peer.failed && peer.suspicion.as_ref().is_none_or(is_idle);
        let due = self.peers.iter().filter(|(_, peer)| is_due(peer));
        for name in due.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            let nonce = self.random.nonce();
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.suspicion = Some(Suspicion::new(nonce, now));
            }
            self.suspect(&name, now);
            self.update_peers_due(&name);
        }
    }

    /// Suspects a live peer although none of its hellos is missing yet, unless a frame of the peer
    /// arrives within [`FRAME_DELAY`].
    pub(in crate::claim) fn suspect_heard(&mut self, name: &str, now: Instant) {
        let nonce = self.random.nonce();
        let Some(peer) = self.peers.get_mut(name) else { return };
        if !peer.failed && peer.suspicion.is_none() {
            peer.suspicion = Some(Suspicion::new(nonce, now + FRAME_DELAY));
            self.update_peers_due(name);
        }
    }

    /// Challenges a failed peer that has announced an address which this node owns. After a round
    /// without a reply, further announcements are ignored for [`FORGERY_INTERVAL`].
    ///
    /// Returns whether a round of challenges runs.
    pub(in crate::claim) fn suspect_alive(
        &mut self,
        name: &str,
        address: IpAddr,
        now: Instant,
    ) -> bool {
        let nonce = self.random.nonce();
        let Some(peer) = self.peers.get_mut(name) else { return false };
        let is_due = peer.silent_at.is_none_or(|at| now.since(at) >= FORGERY_INTERVAL);
        if peer.suspicion.is_none() && is_due {
            let announced = Some(address);
            peer.suspicion = Some(Suspicion { announced, ..Suspicion::new(nonce, now) });
            self.peers_due = Some(now);
        }
        peer.suspicion.is_some()
    }

    fn declare_failed(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let suspicion = peer.suspicion.take();
        let arp_replied = suspicion.as_ref().is_some_and(|suspicion| suspicion.arp_replied);
        let (node, mac, last_frame) = (name.into(), peer.mac, peer.last_frame);
        if peer.failed {
            peer.silent_at = Some(now).filter(|_| !arp_replied);
            let announced = suspicion.and_then(|suspicion| suspicion.announced);
            let effect = MemberEffect::RemainsFailed { node, mac, announced, arp_replied };
            return self.effects.push_back(effect);
        }
        self.counts.peer_failures += 1;
        (peer.failed, peer.unheard) = (true, false);
        self.effects.push_back(MemberEffect::Failed { node, mac, last_frame, arp_replied });
        if self.is_alone() {
            self.start_preempt_delay(now);
        }
    }
}
