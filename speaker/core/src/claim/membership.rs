//! Membership: which other speakers are on the segment (the peers), whether they are alive, and
//! whether this node still exchanges frames with the segment. Owned by the claim machine of one
//! interface, which reads the effects after each call.
//!
//! - [`peers`]: state of each peer, and the check whether a received frame is accepted.
//! - [`newcomers`]: the challenge that an unknown sender must pass.
//! - [`failure_detection`]: failure detection of peers.
//! - [`second_path`]: challenges, reports and copies of frames by UDP.
//! - [`self_check`]: self-check: detects that this node is isolated, or that its clock stood still.
//! - [`own`]: state of this node, and the frames that it sends.
//! - [`hello`]: flags and hellos of this node, and their timing.
//! - [`hosts`]: the membership as other parts of the speaker read it.

mod failure_detection;
mod hello;
mod hosts;
mod newcomers;
mod own;
mod peers;
mod second_path;
mod self_check;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_core::random::Random;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

use super::{ClaimConfig, ClaimCounters, Output};
use newcomers::Newcomer;
use own::OwnState;
use peers::Peer;
use self_check::SelfCheck;

pub(super) use hosts::Host;
#[cfg(any(test, feature = "fuzz"))]
pub(super) use newcomers::admit;
pub(super) use peers::Admission;
pub(super) use second_path::Received;

/// Effect of an input on the rest of the claim machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberEffect {
    /// The driver must execute this output.
    Output(Output),
    /// The driver must send a liveness probe to a peer.
    Probe {
        node: Arc<str>,
        mac: Mac,
        /// Address that the failed peer has announced.
        announced: Option<IpAddr>,
        /// True if the probe asks for `announced`, and not for an address that the peer claims.
        prefers_announced: bool,
    },
    /// The flags of this node have changed, or whether it may claim addresses.
    OwnStateChanged,
    /// This node must release all its addresses.
    ReleaseAll,
    /// A newcomer has become a peer.
    Joined {
        node: Arc<str>,
        epoch: u64,
        /// State of the earlier epoch of the peer, if it is known.
        before: Option<EarlierEpoch>,
    },
    /// The rank of a peer has changed, or whether the peer is alive.
    PeerChanged(Arc<str>),
    /// A peer was declared failed.
    Failed {
        node: Arc<str>,
        mac: Mac,
        /// Time of its latest frame.
        last_frame: Instant,
        /// True if a device has replied to ARP for the peer.
        arp_replied: bool,
    },
    /// A failed peer has turned out to be alive without a frame of its own.
    Returned(Arc<str>),
    /// A peer has become unheard.
    BecameUnheard {
        node: Arc<str>,
        /// Time of its latest frame.
        last_frame: Instant,
    },
    /// A failed peer, challenged because of an announcement, remains failed.
    RemainsFailed {
        node: Arc<str>,
        mac: Mac,
        /// Address that was announced with the MAC of the peer.
        announced: Option<IpAddr>,
        /// True if a host has replied to ARP with the MAC of the peer.
        arp_replied: bool,
    },
    /// The state of a failed peer was removed.
    Removed(Arc<str>),
}

/// State of a peer at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlierEpoch {
    pub(super) is_leaving: bool,
    pub(super) failed: bool,
}

/// The other speakers on one network segment, and the state of this node.
#[derive(Debug)]
pub struct Membership {
    config: ClaimConfig,
    own: OwnState,
    peers: BTreeMap<Arc<str>, Peer>,
    newcomers: BTreeMap<Box<str>, Newcomer>,
    /// Time before which no entry of `newcomers` expires.
    newcomers_due: Instant,
    /// Time of the next check of the peers' deadlines. The time may be too early; an early check
    /// changes nothing.
    peers_due: Option<Instant>,
    self_check: SelfCheck,
    /// Time after which no peer expects reports of this node by the second path.
    answers_end: Instant,
    /// Time of the latest reply to a frame of this node.
    last_reply: Instant,
    effects: VecDeque<MemberEffect>,
    counts: ClaimCounters,
    random: Random,
}

impl Membership {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            own: OwnState::new(&config, now),
            random: Random::new(config.epoch),
            config,
            peers: BTreeMap::new(),
            newcomers: BTreeMap::new(),
            newcomers_due: now,
            peers_due: None,
            self_check: SelfCheck::new(now),
            answers_end: now,
            last_reply: Instant::ZERO,
            effects: VecDeque::new(),
            counts: ClaimCounters::default(),
        }
    }

    /// Returns the next effect of the inputs so far.
    pub(super) fn poll(&mut self) -> Option<MemberEffect> {
        let effect = self.effects.pop_front();
        if effect.is_none() {
            self.effects.shrink_to(super::OUTPUTS_KEPT);
        }
        effect
    }

    /// Returns the time of the next deadline, at which [`Self::expire`] and the checks are due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let own = self.own.deadlines().chain(self.self_check_deadline());
        own.chain(self.peers_due).min()
    }

    pub(super) const fn counts(&self) -> ClaimCounters {
        self.counts
    }

    fn output(&mut self, output: Output) {
        self.effects.push_back(MemberEffect::Output(output));
    }
}

#[cfg(test)]
mod tests;
