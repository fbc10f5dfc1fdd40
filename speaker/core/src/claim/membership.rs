//! Membership: which other speakers are on the segment (the peers), whether they are alive, and
//! whether this node still exchanges frames with the segment. Owned by the claim machine of one
//! interface, which reads the effects after each call.
//!
//! Each part has its own state, which the others read by methods:
//!
//! - [`own`]: keys, flags and phases of this node, with [`hello`] (pace of the hellos, and the
//!   answer lease), [`lateness`] (of the hellos) and [`timers`].
//! - [`peers`]: the table of the peers. Each [`peer`] has a failure detector
//!   ([`failure_detection`]) and a second path ([`second_path`]).
//! - [`newcomers`]: the challenge that an unknown sender must pass.
//! - [`self_check`]: self-check: detects that this node is isolated, or that its clock stood still.
//!
//! [`Membership`] passes each input to its parts, and sends the frames that follow: [`reception`]
//! handles frames and datagrams, and [`checks`] a silence.

mod checks;
mod effects;
mod failure_detection;
mod hello;
mod lateness;
mod newcomers;
mod own;
mod peer;
mod peers;
mod reception;
mod second_path;
mod self_check;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use ferrolb_core::random::Random;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};

use super::{ClaimConfig, ClaimCounters, Output};
use failure_detection::Reception;
use newcomers::Newcomers;
use self_check::SelfCheck;

pub(super) use effects::{EarlierEpoch, MemberEffect};
pub use hello::LateHellos;
pub use own::OwnState;
pub use peers::Peers;
pub(super) use reception::Admission;
#[cfg(any(test, feature = "fuzz"))]
pub(super) use reception::admit;

/// The host that has a hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
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

/// The other speakers on one network segment, and the state of this node.
#[derive(Debug)]
pub struct Membership {
    own: OwnState,
    peers: Peers,
    newcomers: Newcomers,
    self_check: SelfCheck,
    effects: VecDeque<MemberEffect>,
    counts: ClaimCounters,
    random: Random,
}

impl Membership {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            peers: Peers::new(now),
            random: Random::new(config.epoch),
            own: OwnState::new(config, now),
            newcomers: Newcomers::new(now),
            self_check: SelfCheck::new(now),
            effects: VecDeque::new(),
            counts: ClaimCounters::default(),
        }
    }

    /// Returns the next effect of the inputs so far.
    pub(super) fn poll(&mut self) -> Option<MemberEffect> {
        if self.own.take_change() {
            return Some(MemberEffect::OwnStateChanged);
        }
        super::pop(&mut self.effects)
    }

    /// Returns the time of the next deadline, at which the timers and the checks are due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parts = [self.own.deadline(), self.silence_deadline(), self.peers.deadline()];
        parts.into_iter().flatten().min()
    }

    /// Returns the state of this node.
    #[must_use]
    pub const fn own(&self) -> &OwnState {
        &self.own
    }

    /// Returns the state of this node, for inputs that concern nothing else.
    pub(super) const fn own_mut(&mut self) -> &mut OwnState {
        &mut self.own
    }

    /// Returns the other speakers on the segment.
    #[must_use]
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Returns whether any received frame is needed as evidence that this node receives: a peer is
    /// suspected, or no frame was received although all peers were challenged, or this node is
    /// isolated.
    #[must_use]
    pub fn needs_evidence(&self) -> bool {
        self.own.is_isolated() || self.self_check.is_silent() || self.peers.has_suspicion()
    }

    pub(super) const fn counts(&self) -> ClaimCounters {
        self.counts
    }

    /// Counts a frame that was dropped because it is outdated.
    pub(super) const fn count_stale(&mut self) {
        self.counts.stale_frames += 1;
    }

    /// Returns the host that has a hardware address.
    pub(super) fn host(&self, mac: Mac, now: Instant) -> Host {
        if let Some((node, does_not_respond)) = self.newcomers.with_mac(mac, now) {
            let is_silent = does_not_respond && self.peers.get(node).is_none();
            return Host::Newcomer { node: node.into(), is_silent };
        }
        match self.peers.host(mac) {
            None => Host::Foreign,
            Some((name, true)) => Host::FailedPeer(Arc::clone(name)),
            Some((name, false)) => Host::Peer(Arc::clone(name)),
        }
    }

    /// Returns whether a peer or newcomer has sent frames from this hardware address.
    pub(super) fn is_member(&self, mac: Mac) -> bool {
        self.peers.host(mac).is_some() || self.newcomers.have_mac(mac)
    }

    /// Returns the nodes of which this node knows no epoch, and which have not responded to
    /// challenges although they had the time.
    pub(super) fn silent_newcomers(&self, now: Instant) -> impl Iterator<Item = &str> {
        self.newcomers.silent(now).filter(|node| self.peers.get(node).is_none())
    }

    /// Returns whether this node acts as if it were alone, because it has received nothing for
    /// long.
    pub(super) fn may_be_alone(&self, now: Instant) -> bool {
        self.reception(now).may_be_alone
    }

    fn reception(&self, now: Instant) -> Reception {
        self.self_check.reception(self.own.is_isolated(), now)
    }

    /// Returns the ID of the newest key that every peer accepts, so that a secret rotation excludes
    /// no node. Newcomers must accept the key, too, or they could not verify a challenge.
    pub(super) fn signing_key(&self) -> Option<u32> {
        self.own.signing_key(self.peers.accepts().chain(self.newcomers.accepts()))
    }

    /// Returns a frame of this node and its signing key; `None` if this node must not send.
    fn frame(&mut self, body: Body, now: Instant) -> Option<(u32, Frame)> {
        let key = self.signing_key().filter(|_| self.own.sends())?;
        Some((key, self.own.frame(body, now)))
    }

    /// Sends a frame with this body to `to`, or to all speakers if `to` is `None`.
    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        let Some((key, frame)) = self.frame(body, now) else { return };
        for name in self.peers.copy_targets(to, &frame.body, now) {
            let (to, frame) = (Arc::clone(name), frame.clone());
            let datagram = Output::SendDatagram { to, key, frame };
            self.effects.push_back(MemberEffect::Output(datagram));
        }
        self.output(Output::Send { to, key, frame });
    }

    fn output(&mut self, output: Output) {
        self.effects.push_back(MemberEffect::Output(output));
    }

    /// Sends a challenge of the self-check to the hosts with these hardware addresses.
    fn challenge(&mut self, macs: &[Mac], now: Instant) {
        for mac in macs {
            let nonce = self.random.nonce();
            self.send(Some(*mac), Body::Challenge { nonce }, now);
        }
    }

    /// Adjusts the pace of the hellos before a frame is sent, because each frame carries it.
    pub(super) fn adjust_pace(&mut self) {
        let counts_owners = !self.own.owns_nothing();
        let others = self.peers.live_peers().filter(|(_, peer)| !counts_owners || peer.is_owner());
        let peers_wait = self.peers.live_peers().all(|(_, peer)| peer.states_detection_time());
        self.own.adjust_pace(others.count(), peers_wait);
    }

    pub(super) fn send_hello(&mut self, now: Instant) {
        self.adjust_pace();
        let accepted_keys = self.own.keys().to_vec();
        self.send(None, Body::Hello { accepted_keys }, now);
        self.own.on_hello(now);
    }

    /// Starts the preempt delay of this node. While all peers have failed, the delay does not end:
    /// if they still run, they keep the addresses that they took over from this node.
    fn start_preempt_delay(&mut self, now: Instant) {
        let ends = self.peers.count() == 0 || !self.peers.all_failed();
        self.own.start_preempt_delay(ends, now);
    }

    /// Handles the stall of the main loop, and its end. The decisions of a stalled main loop are
    /// stale, so peers should take over the addresses.
    pub(super) fn set_main_loop_stalled(&mut self, stalled: bool, now: Instant) {
        if self.own.set_main_loop_stalled(stalled, now) {
            self.start_preempt_delay(now);
        }
    }

    /// Handles the expiry of the answer lease, which means that this node has stalled.
    ///
    /// After a stall that is shorter than the peers' timeout, no peer can have claimed an address
    /// of this node, so the node sends a hello and continues. The same applies without live peers.
    /// After a longer stall, peers may already reply for the addresses, so the node fences itself.
    pub(super) fn check_answer_lease(&mut self, now: Instant) {
        let hellos = self.own.hellos();
        if self.own.owns_nothing() || !hellos.are_overdue(now) {
            return;
        }
        if now.since(hellos.last()) < hellos.patience() || self.peers.all_failed() {
            self.send_hello(now);
            return;
        }
        self.fence(now);
    }

    /// Releases all addresses and starts a listen phase, because peers may already reply for them.
    fn fence(&mut self, now: Instant) {
        self.self_check.forget_votes();
        self.counts.fences += 1;
        self.own.on_fence(now);
        self.start_preempt_delay(now);
        self.effects.push_back(MemberEffect::ReleaseAll);
    }

    /// Records the arrival of a frame of any kind, which ends isolation. The frame itself is
    /// handled afterwards, so that a request for an address of this node gets a reply.
    pub(super) fn frame_received(&mut self, now: Instant) {
        self.self_check.on_frame(now);
        if self.own.is_isolated() {
            self.own.set_isolated(false, now);
            // Peers that were alive all the time keep the addresses that they took over from this
            // node.
            self.start_preempt_delay(now);
        }
    }
}

#[cfg(test)]
mod tests;
