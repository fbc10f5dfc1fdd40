//! State of the other speakers on the segment (the peers), and the check whether their frames are
//! accepted. Owned by the claim machine of one interface.
//!
//! A node, or a new epoch of a node, is accepted as a peer only after it has responded to a
//! challenge. Signed frames can be recorded and replayed; a response to a new random number cannot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::claim_sets::Parts;
use super::claimants::{Claimants, PeerClaims};
use super::failure_detection::{PROXY_PATIENCE, PROXY_PATIENCE_MAX, Suspicion};
use super::self_check::MinimumOffset;
use super::{CLAIM_LIFETIME, CLAIMS_PER_PEER_MAX, ClaimConfig, ClaimMachine, PEERS_MAX};
use crate::Instant;
use crate::shared_map::SharedMap;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags, Frame, ReleaseReason};

/// Minimum interval between requests to one peer for its claim list, and between claim lists that
/// are sent to one peer. Also the delay before the second challenge to a newcomer.
pub(super) const LIST_REQUEST_INTERVAL: Duration = Duration::from_millis(40);
/// Time within which a returned peer must report its current claims. Until then, this node does not
/// take the addresses that were saved when the peer was declared failed.
const SAVED_CLAIMS_LIFETIME: Duration = Duration::from_secs(1);
/// Interval between requests for the claim list of a peer whose hellos do not confirm its claims.
const LIST_REQUEST_RETRY: Duration = Duration::from_secs(1);
/// Maximum number of key IDs that are stored as accepted by a peer. No speaker accepts more than
/// two at a time.
const ACCEPTS_MAX: usize = 4;
/// Time for which the state of a failed peer is kept, counted from the peer's latest frame.
const FAILED_PEER_LIFETIME: Duration = Duration::from_secs(3_600);
/// Maximum number of stored hardware addresses of one peer.
const MACS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) mac: Mac,
    /// Hardware addresses from which frames of the peer came, oldest first, at most [`MACS_MAX`].
    pub(super) macs: VecDeque<Mac>,
    pub(super) flags: Flags,
    pub(super) claims: PeerClaims,
    /// Addresses that this node and the peer own. Contains all of them, and also addresses that one
    /// of the two has released since.
    pub(super) owned_by_both: BTreeSet<IpAddr>,
    /// Claimed addresses in preempt delay, each with the end of the delay.
    pub(super) preempt_delays: BTreeMap<IpAddr, Instant>,
    /// Addresses that the peer has refused, each with the time until which the peer is no candidate
    /// for it.
    pub(super) refused: BTreeMap<IpAddr, Instant>,
    /// True if the peer was declared failed. Its state is kept, so that replayed frames of the peer
    /// are detected as stale.
    pub(super) failed: bool,
    pub(super) epoch: u64,
    pub(super) clock: u64,
    pub(super) interval: Duration,
    pub(super) last_frame: Instant,
    /// Generation of the peer's claim set as this node knows it; `None` if `claims` is incomplete.
    pub(super) generation: Option<u32>,
    /// True if a hello carried the generation of a claim set that this node has not received. The
    /// peer may change that set before this node receives it.
    pub(super) missed: bool,
    /// Generation after the peer's latest release; `None` if this node missed an earlier change.
    /// Releases are sent twice, and this value identifies a redundant repeat.
    pub(super) released: Option<u32>,
    /// Generation that the peer's newest frame carried.
    stated: Option<u32>,
    pub(super) confirmed_at: Instant,
    pub(super) suspicion: Option<Suspicion>,
    pub(super) list_requested_at: Option<Instant>,
    pub(super) list_sent_at: Option<Instant>,
    pub(super) parts: Option<Parts>,
    /// IDs of the keys that the peer accepts; empty if not reported yet.
    pub(super) accepts: Box<[u32]>,
    /// Addresses whose health checks fail on the peer, according to its hellos, whether the peer
    /// claims them or not. At most [`CLAIMS_PER_PEER_MAX`].
    pub(super) failing: BTreeSet<IpAddr>,
    /// Comparison of this node's clock with the peer's clock.
    pub(super) min_clock_offset: MinimumOffset,
    /// Time at which the peer returned after it had been declared failed.
    returned_at: Option<Instant>,
    /// True if `patience` has already been doubled since the peer was declared failed.
    patience_doubled: bool,
    /// Claims that were saved when the peer was declared failed although a device replied to ARP
    /// for it.
    pub(super) proxied: BTreeSet<IpAddr>,
    /// Time for which the silent peer is challenged before it is declared failed, while a device
    /// replies to ARP for it.
    pub(super) patience: Duration,
}

impl Peer {
    pub(super) fn new(name: Arc<str>, source: Mac, frame: &Frame, now: Instant) -> Self {
        Self {
            mac: source,
            macs: VecDeque::from([source]),
            flags: frame.flags,
            claims: PeerClaims::new(name),
            owned_by_both: BTreeSet::new(),
            preempt_delays: BTreeMap::new(),
            refused: BTreeMap::new(),
            failed: false,
            epoch: frame.epoch,
            clock: frame.clock,
            interval: frame.interval,
            last_frame: now,
            generation: None,
            missed: false,
            released: None,
            stated: None,
            confirmed_at: now,
            suspicion: None,
            list_requested_at: None,
            list_sent_at: None,
            parts: None,
            accepts: Box::default(),
            failing: BTreeSet::new(),
            min_clock_offset: MinimumOffset::new(frame.clock, now),
            returned_at: None,
            patience_doubled: false,
            proxied: BTreeSet::new(),
            patience: PROXY_PATIENCE,
        }
    }

    pub(super) fn deadline(&self, config: &ClaimConfig) -> Option<Instant> {
        if self.failed {
            return Some(self.forgotten_at());
        }
        let silence_deadline = self.last_frame + self.interval * config.hello_misses;
        let suspicion =
            self.suspicion.as_ref().map_or(silence_deadline, |suspicion| suspicion.next);
        let expires_at = self.confirmed_at + CLAIM_LIFETIME;
        let confirmation =
            (!self.claims.is_empty()).then(|| expires_at.min(self.confirmation_request_at()));
        let saved_claims_request = self.saved_claims_request_at();
        confirmation
            .into_iter()
            .chain(saved_claims_request)
            .chain(self.refused.values().copied())
            .chain([suspicion])
            .min()
    }

    /// Returns the time at which the state of a failed peer is removed. If the peer returns later,
    /// it must pass a challenge, like a newcomer.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.last_frame + FAILED_PEER_LIFETIME
    }

    /// Saves the claims of a peer that was declared failed, because the peer may still run.
    pub(super) fn save_claims(&mut self, index: &mut Claimants) {
        self.claims.save(index);
        self.returned_at = None;
        self.patience_doubled = false;
    }

    /// Returns the time until which a returned peer counts as the owner of its saved claims,
    /// because it may never have failed; `None` once it has reported its current claims.
    fn saved_claims_until(&self) -> Option<Instant> {
        let is_unreported =
            !self.failed && self.generation.is_none() && !self.claims.saved().is_empty();
        self.returned_at
            .filter(|_| is_unreported)
            .map(|returned_at| returned_at + SAVED_CLAIMS_LIFETIME)
    }

    pub(super) fn may_still_own(&self, address: IpAddr, now: Instant) -> bool {
        self.claims.saved().contains(&address)
            && self.saved_claims_until().is_some_and(|until| now < until)
    }

    /// Returns the time at which to request the claims of a returned peer again; `None` if the peer
    /// has sent them, or no longer counts as the owner of its saved claims.
    pub(super) fn saved_claims_request_at(&self) -> Option<Instant> {
        let (since, until) =
            self.list_requested_at.max(self.returned_at).zip(self.saved_claims_until())?;
        Some(since + LIST_REQUEST_INTERVAL).filter(|at| *at < until)
    }

    /// Returns the time at which to request the claims of a peer whose hellos have not confirmed
    /// them. Such hellos may be lost although the peer's replies arrive.
    pub(super) fn confirmation_request_at(&self) -> Instant {
        let unconfirmed_at = self.confirmed_at + CLAIM_LIFETIME / 2;
        self.list_requested_at.map_or(unconfirmed_at, |list_requested_at| {
            unconfirmed_at.max(list_requested_at + LIST_REQUEST_RETRY)
        })
    }

    /// Returns whether the frame is reordered or replayed: its clock value is not above the latest
    /// one. Clock values are unique per sender.
    const fn is_stale(&self, frame: &Frame) -> bool {
        frame.clock <= self.clock
    }

    /// Returns whether the change or list in a stale frame is still valid, because a newer frame
    /// only overtook it.
    ///
    /// A change is valid if it directly follows the known claim set. A part of a list is valid if
    /// it has the generation of the newest frame. A generation has one content and is never reused.
    fn is_late(&self, body: &Body) -> bool {
        match body {
            Body::Claim { previous_generation: before, generation, .. }
            | Body::Release { previous_generation: before, generation, .. } => {
                before != generation && self.generation == Some(*before)
            }
            Body::List { generation, .. } => {
                self.stated == Some(*generation) && self.generation != self.stated
            }
            Body::Hello { .. }
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::ListRequest => false,
        }
    }

    /// Returns whether the generation in the peer's newest frame differs from `generation`. If so,
    /// the peer may have claimed further addresses, so its claims must not be cleared.
    pub(super) fn has_newer_generation(&self, generation: u32) -> bool {
        self.stated.is_some_and(|stated| stated != generation)
    }

    /// Stores in `stated` the generation that a frame carries, if any.
    fn note_generation(&mut self, body: &Body) {
        self.stated = generation(body).or(self.stated);
    }

    /// Adds claims of the peer, up to [`CLAIMS_PER_PEER_MAX`], and returns the number of ignored
    /// claims. `owned` are the addresses that this node owns.
    pub(super) fn add(
        &mut self,
        addresses: &[IpAddr],
        owned: &SharedMap<IpAddr, Instant>,
        index: &mut Claimants,
    ) -> u64 {
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(self.claims.len());
        let added = addresses.iter().take(room);
        self.owned_by_both.extend(added.clone().filter(|address| owned.contains_key(*address)));
        self.claims.add(added, index);
        addresses.len().saturating_sub(room) as u64
    }

    /// Adds a hardware address of the peer. A node may have several interfaces on a segment, of
    /// which one is active.
    pub(super) fn add_mac(&mut self, mac: Mac) {
        if !self.macs.contains(&mac) {
            self.macs.push_back(mac);
        }
        if self.macs.len() > MACS_MAX {
            self.macs.pop_front();
        }
    }

    /// Doubles `patience`, because the peer was declared failed by mistake; at most once for each
    /// time it was declared failed.
    pub(super) fn double_patience(&mut self) {
        if !std::mem::replace(&mut self.patience_doubled, true) {
            self.patience = (self.patience * 2).min(PROXY_PATIENCE_MAX);
        }
    }

    /// Replaces the preempt delays of the peer's claims for these addresses. Returns the addresses
    /// whose preempt delay has another end than before.
    pub(super) fn set_preempt_delays(
        &mut self,
        addresses: &[IpAddr],
        preempt_delays: &[Duration],
        now: Instant,
    ) -> Vec<IpAddr> {
        let delays = preempt_delays.iter().copied().chain(std::iter::repeat(Duration::ZERO));
        let mut changed = Vec::new();
        for (address, delay) in addresses.iter().zip(delays) {
            let before = self.preempt_delays.remove(address);
            let has_room = self.preempt_delays.len() < CLAIMS_PER_PEER_MAX;
            let end = (!delay.is_zero() && has_room).then(|| now + delay);
            self.preempt_delays.extend(end.map(|end| (*address, end)));
            changed.extend((before != end).then_some(*address));
        }
        changed
    }

    /// Applies a change of the claim set from generation `before` to `generation`. Returns false if
    /// this node missed an earlier change.
    pub(super) fn apply_change(&mut self, before: u32, generation: u32, now: Instant) -> bool {
        let known = self.generation == Some(before) || self.generation == Some(generation);
        if known {
            self.generation = Some(generation);
            self.confirmed_at = now;
        }
        known
    }
}

/// Returns the generation of the claim set in a frame, if any.
const fn generation(body: &Body) -> Option<u32> {
    match body {
        Body::Hello { generation, .. }
        | Body::Claim { generation, .. }
        | Body::Release { generation, .. }
        | Body::List { generation, .. } => Some(*generation),
        Body::Challenge { .. } | Body::ChallengeReply { .. } | Body::ListRequest => None,
    }
}

pub(super) fn accepted(keys: &[u32]) -> Box<[u32]> {
    keys.iter().take(ACCEPTS_MAX).copied().collect()
}

impl ClaimMachine {
    pub(super) fn receive(&mut self, source: Mac, frame: Frame, now: Instant) {
        if frame.node == self.config.node {
            self.counts.own_name_frames += 1;
            return;
        }
        if !self.admit(source, &frame, now) {
            return;
        }
        let Frame { node, body, .. } = frame;
        match body {
            Body::Hello { generation, accepted_keys: accepts, failing } => {
                self.on_accepts(&node, &accepts);
                self.on_failing(&node, failing);
                self.on_hello(&node, generation, now);
            }
            Body::Claim { previous_generation: before, generation, addresses, preempt_delays } => {
                self.on_claim(&node, (before, generation), &addresses, &preempt_delays, now);
            }
            Body::Release { previous_generation: before, generation, addresses, reason } => {
                let until = (reason != ReleaseReason::HandedOver).then_some(now + CLAIM_LIFETIME);
                if reason == ReleaseReason::Contested {
                    self.on_contested(&addresses, now);
                }
                self.on_release(&node, (before, generation), &addresses, until, now);
            }
            Body::Challenge { nonce } => {
                self.send(Some(source), Body::ChallengeReply { nonce }, now)
            }
            // The response needs no action: `admit` has recorded it as a sign of life, like every
            // frame that is not stale.
            Body::ChallengeReply { .. } => {}
            Body::ListRequest => self.on_list_request(&node, now),
            Body::List { generation, part, parts, addresses, preempt_delays } => {
                self.on_list(&node, generation, (part, parts), &addresses, &preempt_delays, now);
            }
        }
        self.update_peers_due(&node);
    }

    /// Records the sender of a frame as alive; returns false if the frame must be dropped.
    fn admit(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        if self.peers.get(&*frame.node).is_none_or(|peer| peer.epoch != frame.epoch) {
            return self.admit_newcomer(source, frame, now);
        }
        let starts_delay = self.peers.values().all(|peer| peer.failed);
        let Some(peer) = self.peers.get_mut(&*frame.node) else { return false };
        if peer.is_stale(frame) {
            // The flags and the interval in an overtaken frame are outdated, so only its body is
            // used.
            let late = peer.is_late(&frame.body);
            self.counts.stale_frames += u64::from(!late);
            if late && generation(&frame.body) == peer.stated {
                // The hello with this generation overtook this frame, so this node missed no
                // change.
                peer.missed = false;
            }
            return late;
        }
        peer.note_generation(&frame.body);
        let has_returned = std::mem::take(&mut peer.failed);
        if has_returned {
            peer.returned_at = Some(now);
            // Claims that the returned peer sends get a full lifetime, not one that began before
            // the failure.
            peer.confirmed_at = now;
        }
        self.counts.refuted += u64::from(peer.suspicion.take().is_some());
        if has_returned || peer.flags != frame.flags {
            self.own.dirty.mark_affected(peer);
        }
        peer.mac = source;
        peer.add_mac(source);
        peer.flags = frame.flags;
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        peer.last_frame = now;
        if has_returned && !std::mem::take(&mut peer.proxied).is_empty() {
            // The peer was alive all the time, and the ARP replies were its own, so it was declared
            // failed by mistake.
            peer.double_patience();
        }
        self.compare_clocks(&frame.node, frame.clock, now);
        if has_returned {
            // A partition may have healed, and the other side may have announced addresses of this
            // node.
            self.refresh_all(true, now);
            self.repeat_missed_releases(&frame.node, now);
            self.on_new_peer(starts_delay, now);
        }
        true
    }

    /// Handles the return of a peer that was declared failed. The peer may never have stopped
    /// announcing the addresses that this node took over from it.
    ///
    /// If this node has released such an address since, it repeats the release, which the peer may
    /// not have received. The conflict hold-down ends for the addresses that this node left to the
    /// peer after the peer had announced them.
    fn repeat_missed_releases(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get(node) else { return };
        for address in peer.claims.saved() {
            let state = self.units.get_mut(address).filter(|state| !state.contested);
            if let Some(pending_claim) = state.and_then(|state| state.pending_claim.as_mut()) {
                pending_claim.conflict_hold_down_until = None;
            }
        }
        let was_owned_here = |address: &&IpAddr| {
            let state = self.units.get(*address);
            !self.own.owned.contains_key(*address) && state.is_some_and(|state| state.owned_last)
        };
        let missed: Vec<_> = peer.claims.saved().iter().filter(was_owned_here).copied().collect();
        if !missed.is_empty() {
            self.own
                .releases_to_repeat
                .extend(missed.into_iter().map(|address| (address, ReleaseReason::HandedOver)));
            self.own.next_hello = now;
        }
    }

    fn on_accepts(&mut self, node: &str, accepts: &[u32]) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| *peer.accepts != *accepts) {
            peer.accepts = accepted(accepts);
        }
    }

    pub(super) fn on_new_peer(&mut self, starts_delay: bool, now: Instant) {
        self.schedule_list(now);
        if starts_delay {
            self.start_preempt_delay(now);
        }
    }

    /// Removes a peer from the table. Returns it with its current claims.
    pub(super) fn remove_peer(&mut self, name: &str) -> Option<(Peer, BTreeSet<IpAddr>)> {
        let mut peer = self.peers.remove(name)?;
        peer.claims.drop_saved(&mut self.claimants);
        let claims = peer.claims.clear(&mut self.claimants);
        Some((peer, claims))
    }

    /// Returns whether one more peer fits into the table. If necessary, removes the failed peer
    /// that has been silent for longest.
    pub(super) fn make_room(&mut self) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let longest_failed = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.failed)
            .min_by_key(|(_, peer)| peer.last_frame);
        let Some(name) = longest_failed.map(|(name, _)| name.clone()) else { return false };
        self.remove_peer(&name);
        true
    }
}
