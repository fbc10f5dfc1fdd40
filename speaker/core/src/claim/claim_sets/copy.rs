//! Copy of the claim set of one peer. Owned by the claim sets of one interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, CLAIMS_PER_PEER_MAX, Claim, ClaimRank, ClaimSetSummary};

use super::claimants::Claimants;
use super::{OwnSet, SetChanges};

/// Difference between two ends of one preempt delay that follows only from the time in transit.
const DELAY_DRIFT_MAX: Duration = Duration::from_millis(100);

/// Claim of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::claim) struct PeerClaim {
    pub(in crate::claim) rank: ClaimRank,
    /// End of the preempt delay; [`Instant::ZERO`] without one.
    pub(in crate::claim) delay_end: Instant,
}

/// Copy of the claim set of a peer.
#[derive(Debug)]
pub(in crate::claim) struct SetCopy {
    peer: Arc<str>,
    epoch: u64,
    claims: BTreeMap<IpAddr, PeerClaim>,
    /// Summary of `claims`; its counter is not used.
    summary: ClaimSetSummary,
    /// Summary in the peer's newest frame.
    pub(super) stated: ClaimSetSummary,
    /// Number of changes since the copy was complete that no received frame contained.
    pub(super) missed: u32,
    /// Addresses of the copy that this node owns, too.
    shared: BTreeSet<IpAddr>,
    /// Time of the latest request for the peer's list.
    pub(super) requested_at: Option<Instant>,
}

impl SetCopy {
    /// Creates the copy of the set at the start of an epoch, which is empty.
    pub(super) fn new(peer: Arc<str>, epoch: u64) -> Self {
        Self {
            peer,
            epoch,
            claims: BTreeMap::new(),
            summary: ClaimSetSummary::default(),
            stated: ClaimSetSummary::default(),
            missed: 0,
            shared: BTreeSet::new(),
            requested_at: None,
        }
    }

    pub(in crate::claim) const fn claims(&self) -> &BTreeMap<IpAddr, PeerClaim> {
        &self.claims
    }

    /// Returns the addresses that this node owns, too.
    pub(in crate::claim) const fn shared(&self) -> &BTreeSet<IpAddr> {
        &self.shared
    }

    /// Returns whether the copy equals the peer's set.
    pub(in crate::claim) const fn is_complete(&self) -> bool {
        self.summary.has_same_claims(self.stated)
    }

    /// Stores the summary in the newest frame of the peer, and counts the changes before this
    /// frame.
    ///
    /// A RELEASE contains a change. A CLAIM may repeat earlier claims, so it explains a change only
    /// if it is new, and if no other change was missed: otherwise it may repeat a missed one.
    pub(super) fn set_stated(&mut self, stated: ClaimSetSummary, body: &Body) {
        let changes = stated.counter.wrapping_sub(self.stated.counter);
        let is_known = |claim: &Claim| {
            self.claims.get(&claim.address).is_some_and(|known| known.rank == claim.rank)
        };
        let is_explained = matches!(body, Body::Release { .. })
            || (changes == 1 && self.missed == 0 && !body.claims().iter().all(is_known));
        self.missed = self.missed.saturating_add(changes.saturating_sub(is_explained.into()));
        self.stated = stated;
    }

    /// Returns whether an overtaken frame is still valid: whether the copy is complete with it. A
    /// stretch of a list is valid as long as the set has not changed since.
    pub(super) fn is_completed_by(&self, body: &Body, summary: ClaimSetSummary) -> bool {
        let mut with = self.summary;
        let remove = |with: &mut ClaimSetSummary, address: &IpAddr| {
            if let Some(known) = self.claims.get(address) {
                with.remove(self.epoch, *address, known.rank);
            }
        };
        if let Body::Claim(claims) = body {
            for claim in claims {
                remove(&mut with, &claim.address);
                with.add(self.epoch, claim.address, claim.rank);
            }
        } else if let Body::Release { addresses, .. } = body {
            addresses.iter().for_each(|address| remove(&mut with, address));
        } else {
            let is_list = matches!(body, Body::List(_));
            return is_list && summary == self.stated && !self.is_complete();
        }
        !self.is_complete() && with.has_same_claims(self.stated)
    }

    /// Returns whether the peer may claim an address: the copy contains it, or is incomplete.
    pub(in crate::claim) fn may_contain(&self, address: IpAddr) -> bool {
        !self.is_complete() || self.claims.contains_key(&address)
    }

    /// Adds a claim, or changes its rank and preempt delay, and records that in `changes`.
    pub(super) fn add(
        &mut self,
        claim: Claim,
        now: Instant,
        own: &OwnSet,
        index: &mut Claimants,
        changes: &mut SetChanges,
    ) {
        let Claim { address, rank, preempt_delay } = claim;
        let delay_end = if preempt_delay.is_zero() { Instant::ZERO } else { now + preempt_delay };
        let new = PeerClaim { rank, delay_end };
        if let Some(known) = self.claims.get_mut(&address) {
            let drift =
                new.delay_end.since(known.delay_end).max(known.delay_end.since(new.delay_end));
            if known.rank == rank && drift < DELAY_DRIFT_MAX {
                return;
            }
            let before = std::mem::replace(known, new);
            self.summary.remove(self.epoch, address, before.rank);
            self.summary.add(self.epoch, address, rank);
            changes.restated.push(address);
            return;
        }
        if self.claims.len() >= CLAIMS_PER_PEER_MAX {
            changes.over_limit += 1;
            return;
        }
        self.claims.insert(address, new);
        self.summary.add(self.epoch, address, rank);
        index.insert(address, &self.peer);
        if own.owned().contains_key(&address) {
            self.shared.insert(address);
        }
        changes.claimed.push(address);
    }

    /// Removes a claim. Returns false if the copy does not contain it.
    pub(super) fn remove(&mut self, address: &IpAddr, index: &mut Claimants) -> bool {
        let Some(claim) = self.claims.remove(address) else { return false };
        self.summary.remove(self.epoch, *address, claim.rank);
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

    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_consistent(&self, own: &OwnSet, index: &Claimants) -> bool {
        let counter = self.summary.counter;
        let claims = self.claims.iter().map(|(address, claim)| (*address, claim.rank));
        let shared = self.claims.keys().filter(|address| own.owned().contains_key(*address));
        self.summary == ClaimSetSummary::new(self.epoch, counter, claims)
            && self.shared.iter().eq(shared)
            && self.claims.keys().all(|address| index.of(*address).any(|name| *name == self.peer))
    }
}
