//! Frames with the decisions of this node, its lists and its hellos. Part of the claim machine of
//! one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, Claim, ClaimRank, Stretch};

use super::ownership::Decisions;
use super::{CONTINUE_DELAY, ClaimMachine, Output};

/// Maximum number of stretches of a list that one call of the machine sends.
const STRETCHES_PER_TURN_MAX: usize = 32;

impl ClaimMachine {
    /// Sends the rest of the current list. If this is too much for one call, the next tick
    /// continues.
    pub(super) fn continue_list(&mut self, now: Instant) {
        for _ in 0..STRETCHES_PER_TURN_MAX {
            if !self.sets.own().has_list() {
                return;
            }
            self.send_stretch(now);
        }
        self.continue_at = Some(now + CONTINUE_DELAY);
    }

    /// Sends the next stretch of the claim set.
    pub(super) fn send_stretch(&mut self, now: Instant) {
        let (after, last, addresses) = self.sets.own_mut().next_stretch(now);
        let claims = self.claims_of(addresses, now);
        self.send(None, Body::List(Stretch { after, last, claims }), now);
    }

    /// Returns the claims of owned addresses.
    fn claims_of(&self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) -> Vec<Claim> {
        let claim = |address: IpAddr| {
            let rank = self.owned().get(&address)?.rank;
            Some(Claim { address, rank, preempt_delay: self.ownership.preempt_delay(address, now) })
        };
        addresses.into_iter().filter_map(claim).collect()
    }

    /// Executes the decisions and sends them to the peers. If a thousand addresses move at once, a
    /// few frames carry all of them.
    pub(super) fn send_decisions(&mut self, now: Instant) {
        let Decisions { mut take, moves, mut restate, hand_over, contest, doubts } =
            self.ownership.take_decisions();
        self.release(&hand_over, now);
        // A node that has only probed an address makes the peers wait, too.
        self.send_releases(contest.into_iter().collect(), true, now);
        restate.retain(|(address, _)| self.owned().contains_key(address));
        self.claim(&restate, now);
        take.retain(|(address, _)| !self.owned().contains_key(address));
        for (address, _) in &take {
            self.outputs.push_back(Output::Start(*address));
        }
        self.claim(&take, now);
        self.outputs.extend(moves.into_iter().map(Output::Moved));
        for (owner, addresses) in doubts {
            let Some(mac) = self.membership.peers().mac_of(&owner) else { continue };
            for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
                self.send(Some(mac), Body::Doubt(chunk.to_vec()), now);
            }
        }
    }

    /// Claims addresses, or states new ranks for owned ones.
    fn claim(&mut self, claims: &[(IpAddr, ClaimRank)], now: Instant) {
        for chunk in claims.chunks(ADDRESSES_PER_FRAME_MAX) {
            self.sets.claim(chunk, now);
            self.membership.own_mut().set_claim_set(self.sets.own().summary());
            // From this claim on, peers expect hellos at the interval of an owner.
            self.membership.adjust_pace();
            let addresses = chunk.iter().map(|(address, _)| *address);
            self.send(None, Body::Claim(self.claims_of(addresses, now)), now);
        }
    }

    /// Stops replying for owned addresses among these, and releases them.
    pub(super) fn release(&mut self, addresses: &[IpAddr], now: Instant) {
        let owned = addresses.iter().copied().filter(|address| self.owned().contains_key(address));
        // Two decisions may name the same address.
        let owned: BTreeSet<_> = owned.collect();
        self.send_releases(owned, false, now);
    }

    /// Releases the owned addresses among these, and names all of them to the peers. `contested` is
    /// true if foreign hosts use them.
    fn send_releases(&mut self, addresses: BTreeSet<IpAddr>, contested: bool, now: Instant) {
        let addresses: Vec<_> = addresses.into_iter().collect();
        for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
            let owned = chunk.iter().filter(|address| self.owned().contains_key(*address));
            let owned: Vec<_> = owned.copied().collect();
            self.sets.release(&owned);
            self.membership.own_mut().set_claim_set(self.sets.own().summary());
            self.outputs.extend(owned.into_iter().map(Output::Stop));
            self.send(None, Body::Release { addresses: chunk.to_vec(), contested }, now);
        }
    }

    /// Releases all owned addresses.
    pub(super) fn release_all(&mut self, now: Instant) {
        let all: Vec<_> = self.owned().keys().copied().collect();
        self.release(&all, now);
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        self.membership.send(to, body, now);
        self.apply_effects(now);
    }

    /// Finishes the handover of a leaving node.
    pub(super) fn leave_if_done(&mut self, now: Instant) {
        if self.membership.own_mut().has_left(now) {
            self.end(now);
            self.outputs.push_back(Output::Finished);
        }
    }

    /// Releases all addresses and claims none any more. The hello shows a peer that has missed the
    /// release that the set is empty, because this node sends no later frame on the interface.
    pub(super) fn end(&mut self, now: Instant) {
        self.membership.own_mut().end();
        self.release_all(now);
        self.membership.send_hello(now);
        self.apply_effects(now);
    }

    pub(super) fn hello_if_due(&mut self, now: Instant) {
        if !self.membership.own_mut().is_hello_due(now) {
            return;
        }
        if self.sets.own().is_stretch_due(now) {
            self.send_stretch(now);
        }
        self.membership.send_hello(now);
        self.apply_effects(now);
    }
}
