//! Copy of the claim set of one peer. Owned by the claim sets of one interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::OwnSet;
use super::claimants::Claimants;
use crate::Instant;
use crate::claim::CLAIMS_PER_PEER_MAX;
use crate::wire::hello::{Body, Claim, ClaimSetSummary};

/// Copy of the claim set of a peer.
#[derive(Debug)]
pub(in crate::claim) struct SetCopy {
    peer: Arc<str>,
    epoch: u64,
    /// Claimed addresses, each with the end of its preempt delay; [`Instant::ZERO`] without one.
    claims: BTreeMap<IpAddr, Instant>,
    /// Summary of `claims`; the counter is the one of the peer's newest frame.
    summary: ClaimSetSummary,
    /// Summary in the peer's newest frame.
    stated: ClaimSetSummary,
    /// Number of changes since the copy was complete that no received frame contained.
    missed: u32,
    /// Addresses of the copy that this node owns, too.
    shared: BTreeSet<IpAddr>,
    /// Time of the latest request for the peer's list.
    pub(super) requested_at: Option<Instant>,
}

impl SetCopy {
    /// Creates an empty copy. `stated` is the summary in a frame of the peer.
    pub(super) fn new(peer: Arc<str>, epoch: u64, stated: ClaimSetSummary) -> Self {
        Self {
            peer,
            epoch,
            claims: BTreeMap::new(),
            summary: ClaimSetSummary::default(),
            stated,
            missed: 0,
            shared: BTreeSet::new(),
            requested_at: None,
        }
    }

    /// Returns the claimed addresses, each with the end of its preempt delay; [`Instant::ZERO`]
    /// without one.
    pub(in crate::claim) const fn claims(&self) -> &BTreeMap<IpAddr, Instant> {
        &self.claims
    }

    /// Returns the addresses that this node owns, too.
    pub(in crate::claim) const fn shared(&self) -> &BTreeSet<IpAddr> {
        &self.shared
    }

    /// Returns whether the copy equals the peer's set.
    pub(in crate::claim) const fn is_complete(&self) -> bool {
        self.summary.has_same_addresses(self.stated)
    }

    pub(super) const fn is_empty_set(&self) -> bool {
        self.stated.count == 0
    }

    /// Stores the summary in the newest frame of the peer. `explained` is the number of changes
    /// that the frame itself contains.
    pub(super) const fn set_stated(&mut self, stated: ClaimSetSummary, explained: u32) {
        let changes = stated.counter.wrapping_sub(self.stated.counter);
        self.missed = self.missed.saturating_add(changes.saturating_sub(explained));
        self.stated = stated;
    }

    /// Returns whether a frame contains a change of the set. A CLAIM may repeat known claims.
    pub(super) fn is_changed_by(&self, body: &Body) -> bool {
        match body {
            Body::Claim(claims) => {
                claims.iter().any(|claim| !self.claims.contains_key(&claim.address))
            }
            Body::Release { .. } => true,
            _ => false,
        }
    }

    /// Returns whether an overtaken frame is still valid: whether the copy is complete with it. A
    /// stretch of a list is valid as long as the set has not changed since.
    pub(super) fn is_completed_by(&self, body: &Body, summary: ClaimSetSummary) -> bool {
        let mut with = self.summary;
        match body {
            Body::Claim(claims) => {
                let new = claims.iter().filter(|claim| !self.claims.contains_key(&claim.address));
                new.for_each(|claim| with.add(self.epoch, claim.address));
            }
            Body::Release { addresses, .. } => {
                let known = addresses.iter().filter(|address| self.claims.contains_key(*address));
                known.for_each(|address| with.remove(self.epoch, *address));
            }
            Body::List(_) => return summary == self.stated && !self.is_complete(),
            Body::Hello { .. }
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::ListRequest => return false,
        }
        !self.is_complete() && with.has_same_addresses(self.stated)
    }

    /// Records that an overtaken frame contained one of the missed changes.
    pub(super) const fn explain_one(&mut self) {
        self.missed = self.missed.saturating_sub(1);
    }

    /// Returns the number of missed changes, and forgets it.
    pub(super) fn take_missed(&mut self) -> u32 {
        std::mem::take(&mut self.missed)
    }

    /// Adds a claim. Returns whether it is new, or has another preempt delay than before; `None` if
    /// the copy is full.
    pub(super) fn add(
        &mut self,
        claim: Claim,
        now: Instant,
        own: &OwnSet,
        index: &mut Claimants,
    ) -> Option<Change> {
        let Claim { address, preempt_delay } = claim;
        let delay_end = if preempt_delay.is_zero() { Instant::ZERO } else { now + preempt_delay };
        if let Some(end) = self.claims.get_mut(&address) {
            let before = std::mem::replace(end, delay_end);
            return Some(if before == delay_end { Change::None } else { Change::Delay });
        }
        if self.claims.len() >= CLAIMS_PER_PEER_MAX {
            return None;
        }
        self.claims.insert(address, delay_end);
        self.summary.add(self.epoch, address);
        index.insert(address, &self.peer);
        if own.owned().contains_key(&address) {
            self.shared.insert(address);
        }
        Some(Change::New)
    }

    /// Removes a claim. Returns false if the copy does not contain it.
    pub(super) fn remove(&mut self, address: &IpAddr, index: &mut Claimants) -> bool {
        if self.claims.remove(address).is_none() {
            return false;
        }
        self.summary.remove(self.epoch, *address);
        self.shared.remove(address);
        index.remove(*address, &self.peer);
        true
    }

    /// Removes and returns all claims.
    pub(super) fn clear(&mut self, index: &mut Claimants) -> Vec<IpAddr> {
        let all: Vec<_> = self.claims.keys().copied().collect();
        for address in &all {
            self.remove(address, index);
        }
        all
    }

    pub(super) fn set_shared(&mut self, address: IpAddr, is_shared: bool) {
        if is_shared {
            self.shared.insert(address);
        } else {
            self.shared.remove(&address);
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn is_consistent(&self, own: &OwnSet, index: &Claimants) -> bool {
        let counter = self.summary.counter;
        let shared = self.claims.keys().filter(|address| own.owned().contains_key(*address));
        self.summary == ClaimSetSummary::new(self.epoch, counter, self.claims.keys())
            && self.shared.iter().eq(shared)
            && self.claims.keys().all(|address| index.of(*address).any(|name| *name == self.peer))
    }
}

/// Effect of a received claim on the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    New,
    Delay,
}
