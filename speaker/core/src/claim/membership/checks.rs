//! Checks that are due after a silence: this node may be isolated, and its peers may have failed.
//! Part of the membership of one interface.

use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Body;

use super::failure_detection::{Challenge, FailedRound, SuspicionCheck};
use super::self_check::{SilenceStep, WITNESSES};
use super::{MemberEffect, Membership};
use crate::claim::Output;

impl Membership {
    /// Returns the time at which to check for silence; `None` if this node does not send, or never
    /// received a frame of a peer. In the latter case, this node cannot distinguish isolation from
    /// a segment without peers.
    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        let listens = self.own.sends() && (self.own.is_isolated() || self.peers.count() > 0);
        listens.then_some(self.self_check.deadline())
    }

    /// Challenges all peers if no frame is received. Declares this node isolated if repeated
    /// challenges bring no frame.
    pub(in crate::claim) fn check_silence(&mut self, now: Instant) {
        if self.silence_deadline().is_none_or(|at| now < at) {
            return;
        }
        match self.self_check.next_step(self.own.is_isolated(), now) {
            SilenceStep::ChallengePeers => {
                let macs: Vec<_> = self.peers.live_peers().map(|(_, peer)| peer.mac()).collect();
                self.challenge(&macs, now);
            }
            // A suspicion also requests replies by ARP and by the second path.
            SilenceStep::SuspectPeers => self.suspect_all(now),
            SilenceStep::Isolate => {
                self.counts.isolations += 1;
                self.own.set_isolated(true, now);
            }
            // From now on, the suspicions of the peers can end with a failure.
            SilenceStep::ActAlone => self.own.note_change(),
            SilenceStep::Wait => {}
        }
        self.output(Output::ProbeNeighbors);
    }

    /// Challenges peers that should be alive, and requests replies from other hosts. Any reply
    /// proves that this node receives frames.
    pub(super) fn probe_witnesses(&mut self, now: Instant) {
        if !self.self_check.probes_witnesses(now) {
            return;
        }
        let live = self.peers.live_peers().filter(|(_, peer)| !peer.liveness.is_suspected());
        let witnesses: Vec<_> = live.take(WITNESSES).map(|(_, peer)| peer.mac()).collect();
        self.challenge(&witnesses, now);
        self.output(Output::ProbeNeighbors);
    }

    pub(in crate::claim) fn on_arp_reply(&mut self, mac: Mac) {
        self.peers.on_arp_reply(mac);
    }

    /// Handles a loss of frames in the kernel, which may have come from suspected peers.
    pub(in crate::claim) fn on_frames_dropped(&mut self, now: Instant) {
        self.peers.restart_suspicions(now);
    }

    /// Handles the deadlines of peers: missing hellos, suspicions, and the removal of failed peers.
    pub(in crate::claim) fn check_peers(&mut self, now: Instant) {
        let Some(due) = self.peers.due_names(now) else { return };
        for name in due {
            let Some(peer) = self.peers.get(&name) else { continue };
            if peer.liveness.has_failed() && !peer.liveness.is_suspected() {
                self.remove_peer(name);
            } else {
                self.check_peer(&name, now);
            }
        }
        self.peers.schedule_check();
    }

    /// Suspects all live peers, because none of them has responded to a challenge. Unheard peers
    /// are challenged at once: their replies by ARP prove that this node receives frames.
    fn suspect_all(&mut self, now: Instant) {
        for name in self.peers.live_names(|peer| !peer.liveness.is_challenged()) {
            let nonce = self.random.nonce();
            if let Some(peer) = self.peers.get_mut(&name) {
                peer.liveness.suspect(nonce, now);
            }
            self.check_peer(&name, now);
            self.peers.update_due(&name);
        }
    }

    /// Suspects a live peer although none of its hellos is missing yet, unless a frame of the peer
    /// arrives soon.
    pub(in crate::claim) fn suspect_heard(&mut self, name: &str, now: Instant) {
        let nonce = self.random.nonce();
        let peer = self.peers.get_mut(name);
        if peer.is_some_and(|peer| peer.liveness.suspect_heard(nonce, now)) {
            self.peers.update_due(name);
        }
    }

    /// Challenges a failed peer that has announced an address which this node owns. Returns whether
    /// a round of challenges runs.
    pub(in crate::claim) fn suspect_alive(
        &mut self,
        name: &str,
        address: IpAddr,
        now: Instant,
    ) -> bool {
        let nonce = self.random.nonce();
        let Some(peer) = self.peers.get_mut(name) else { return false };
        let begins = peer.liveness.suspect_alive(address, nonce, now);
        let runs = peer.liveness.is_suspected();
        if begins {
            self.peers.check_at(now);
        }
        runs
    }

    /// Checks a peer under a suspicion, which begins if there is none.
    fn check_peer(&mut self, name: &str, now: Instant) {
        let (nonce, reception) = (self.random.nonce(), self.reception(now));
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (mac, is_owner) = (peer.mac(), peer.is_owner() && !peer.liveness.has_failed());
        match peer.liveness.check(nonce, is_owner, reception, now) {
            None => {}
            Some(SuspicionCheck::Open { is_new, challenge }) => {
                self.counts.suspicions += u64::from(is_new);
                let Some(challenge) = challenge else { return };
                let Challenge { nonce, announced, prefers_announced, received_nothing } = challenge;
                self.send(Some(mac), Body::Challenge { nonce }, now);
                let node = name.into();
                let probe = MemberEffect::Probe { node, mac, announced, prefers_announced };
                self.effects.push_back(probe);
                if received_nothing {
                    self.probe_witnesses(now);
                }
            }
            Some(SuspicionCheck::Unheard) => self.on_unheard(name, now),
            Some(SuspicionCheck::Failed) => self.declare_failed(name, now),
        }
    }

    /// Records that a peer is unheard, and schedules the next round of challenges.
    fn on_unheard(&mut self, name: &str, now: Instant) {
        let nonce = self.random.nonce();
        let next = now + self.peers.intervals().challenges;
        let was_alone = self.peers.all_failed();
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (mac, last_frame) = (peer.mac(), peer.liveness.last_frame());
        let (was_failed, was_unheard) = (peer.liveness.has_failed(), peer.liveness.is_unheard());
        peer.liveness.on_unheard(nonce, next, now);
        if !was_unheard {
            self.counts.unheard += 1;
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

    fn declare_failed(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let FailedRound { was_failed, arp_replied, announced } = peer.liveness.fail(now);
        let (node, mac, last_frame) = (name.into(), peer.mac(), peer.liveness.last_frame());
        if was_failed {
            let effect = MemberEffect::RemainsFailed { node, mac, announced, arp_replied };
            return self.effects.push_back(effect);
        }
        self.counts.peer_failures += 1;
        self.effects.push_back(MemberEffect::Failed { node, mac, last_frame, arp_replied });
        if self.peers.all_failed() {
            self.start_preempt_delay(now);
        }
    }
}
