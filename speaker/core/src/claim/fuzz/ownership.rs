//! Fuzzes the ownership with claims of two peers that fail and return, changes of the units,
//! conflicts and waits. This node takes only units that it does not own, releases only owned
//! addresses, and announces only owned ones; its deadlines advance.

use std::sync::Arc;

use ferrolb_core::election::{Candidate, Unit};
use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, Flags, Frame};

use super::{
    ADDRESSES, Bytes, NODES, STEPS_MAX, address, addresses, body, config, flags, frame, mac, wait,
};
use crate::claim::claim_sets::ClaimSets;
use crate::claim::membership::{Admission, EarlierEpoch, MemberEffect, Membership, admit};
use crate::claim::ownership::{Ownership, OwnershipEffect, View};
use crate::claim::{LISTEN_PHASE, Output};

/// Runs the steps in `bytes`.
///
/// # Panics
/// If a rule is broken.
pub fn fuzz_ownership(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let Some([first, second]) = bytes.take() else { return };
    let mut run = OwnershipRun::new([first, second]);
    for _ in 0..STEPS_MAX {
        let Some([kind, a, b, c]) = bytes.take() else { return };
        match kind % 7 {
            0 => run.wait(a),
            1 => run.units(a, b, c),
            2 | 3 => run.frame(a, b, c),
            4 => run.foreign(a, b),
            5 => run.join(a, b),
            _ => run.doubts(a),
        }
        run.settle();
    }
}

struct OwnershipRun {
    members: Membership,
    sets: ClaimSets,
    ownership: Ownership,
    /// Claim sets of the two peers.
    peers: [ClaimSets; 2],
    flags: [Flags; 2],
    now: Instant,
}

impl OwnershipRun {
    /// Starts with two peers that have these flags.
    fn new(bits: [u8; 2]) -> Self {
        let start = Instant::from_millis(1_000);
        let now = start + LISTEN_PHASE;
        let mut members = Membership::new(config(), start);
        members.own_mut().set_keys(vec![1], start);
        members.own_mut().expire(now);
        let mut sets = ClaimSets::new(1, start);
        for (n, bits) in [1, 2].into_iter().zip(bits) {
            admit(&mut members, NODES[usize::from(n)], mac(n), flags(bits), now);
            sets.add_peer(NODES[usize::from(n)].into(), 7);
        }
        while members.poll().is_some() {}
        let peers = [ClaimSets::new(7, start), ClaimSets::new(7, start)];
        let ownership = Ownership::new(config(), now);
        let mut run = Self { members, sets, ownership, peers, flags: bits.map(flags), now };
        run.units(0xff, 0, 7);
        run.settle();
        run
    }

    fn ownership(&mut self) -> (&mut Ownership, View<'_>) {
        let Self { members, sets, ownership, now, .. } = self;
        (ownership, View { members, sets, now: *now })
    }

    /// Lets time pass, in which other hosts send frames. Peers that are silent fail.
    fn wait(&mut self, n: u8) {
        let end = self.now + wait(n);
        let next =
            |run: &Self| run.ownership.deadline().into_iter().chain(run.members.deadline()).min();
        while let Some(at) = next(self).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.members.frame_received(self.now);
            self.members.own_mut().expire(self.now);
            self.members.check_peers(self.now);
            if self.members.own_mut().is_hello_due(self.now) {
                self.members.send_hello(self.now);
            }
            self.apply_member_effects();
            let (ownership, view) = self.ownership();
            ownership.expire(view);
            self.settle();
            let next = self.ownership.deadline();
            assert!(next.is_none_or(|next| next > self.now), "the next deadline is in the future");
        }
        self.now = end;
    }

    fn units(&mut self, changed: u8, removed: u8, candidates: u8) {
        let removed = addresses(removed);
        self.ownership.remove_units(&removed);
        self.sets.release(&removed);
        let names = NODES.iter().enumerate().filter(|(n, _)| candidates & (1 << n) != 0);
        let candidate =
            |(_, name): (usize, &&str)| Candidate { node: (**name).into(), ..Candidate::default() };
        let all: Arc<[_]> = names.map(candidate).collect();
        let unit = |address| {
            Arc::new(Unit {
                can_serve_here: candidates & 128 == 0,
                failing: candidates & 64 != 0,
                announced_here: candidates & 32 == 0,
                ..Unit::new(address, address, Arc::clone(&all))
            })
        };
        let units = addresses(changed).into_iter().map(unit).collect();
        let (ownership, view) = self.ownership();
        ownership.update_units(units, view);
    }

    /// Receives a frame of a peer, or of a node that does not respond to challenges.
    fn frame(&mut self, node: u8, kind: u8, bits: u8) {
        let index = usize::from(node % 3);
        let Some(set) = self.peers.get_mut(index) else {
            let hello = frame(3, body(0, bits, kind), self.now);
            self.members.admit(mac(3), &hello, self.now);
            return self.apply_member_effects();
        };
        let Frame { body, .. } = frame(0, body(kind, bits, kind), self.now);
        if let Body::Claim(claims) = &body {
            let claims: Vec<_> = claims.iter().map(|claim| (claim.address, claim.rank)).collect();
            set.claim(&claims, self.now);
        } else if let Body::Release { addresses, .. } = &body {
            set.release(addresses);
        }
        let (claim_set, flags) = (set.own().summary(), self.flags[index]);
        let sent =
            frame(1 + node % 3, body, self.now + std::time::Duration::from_nanos(bits.into()));
        let sent = Frame { claim_set, flags, ..sent };
        let admission = self.members.admit(mac(1 + node % 3), &sent, self.now);
        self.apply_member_effects();
        let Admission::Newest { has_returned } = admission else { return };
        let Frame { node: name, body, .. } = &sent;
        let changes = self.sets.receive(name, &sent, self.now);
        if has_returned {
            self.on_return(name);
        }
        let (ownership, view) = self.ownership();
        ownership.on_set_changes(name, body, changes, view);
        if let Body::Release { addresses, .. } = body {
            ownership.on_contested(addresses, view);
        }
        ownership.check_conflicts(name, view);
    }

    fn on_return(&mut self, node: &str) {
        let copy = self.sets.copy(node).into_iter();
        let claims: Vec<_> = copy.flat_map(|copy| copy.claims().keys()).copied().collect();
        self.ownership.note_moves(&claims, self.now);
    }

    fn foreign(&mut self, n: u8, host: u8) {
        let (ownership, view) = self.ownership();
        ownership.on_foreign_frame(address(n), mac(host % 5), host > 127, view);
    }

    /// Reports the new epoch of a peer.
    fn join(&mut self, node: u8, kind: u8) {
        let index = usize::from(node % 2);
        let name = NODES[1 + index];
        self.peers[index] = ClaimSets::new(7, self.now);
        let claims = self.sets.remove_peer(name);
        self.sets.add_peer(name.into(), 7);
        let before = EarlierEpoch { is_leaving: kind > 127, failed: kind & 1 != 0 };
        let (ownership, view) = self.ownership();
        ownership.on_join(Some(before), claims, view);
    }

    fn doubts(&mut self, bits: u8) {
        let (ownership, view) = self.ownership();
        ownership.on_doubts(&addresses(bits), view);
    }

    fn apply_member_effects(&mut self) {
        while let Some(effect) = self.members.poll() {
            let (ownership, view) = self.ownership();
            match effect {
                MemberEffect::Failed { node, mac, last_frame, .. } => {
                    ownership.on_failure(&node, last_frame, Some(mac), view);
                }
                MemberEffect::RemainsFailed { node, mac, announced, .. } => {
                    ownership.leave_to_failed_peer(&node, mac, announced, view);
                }
                MemberEffect::PeerChanged(node) => ownership.mark_affected(view.sets.copy(&node)),
                MemberEffect::OwnStateChanged => ownership.mark_all(),
                MemberEffect::BecameUnheard { node, last_frame } => {
                    ownership.correct_conflicts(&node, last_frame);
                }
                MemberEffect::Returned(node) => self.on_return(&node),
                MemberEffect::Removed(node) => drop(self.sets.remove_peer(&node)),
                MemberEffect::Output(_)
                | MemberEffect::Probe { .. }
                | MemberEffect::ReleaseAll
                | MemberEffect::Joined { .. } => {}
            }
        }
    }

    /// Executes the decisions as the claim machine does.
    fn settle(&mut self) {
        let (ownership, view) = self.ownership();
        assert!(ownership.settle_conflicts(view), "few conflicts need one turn");
        self.execute();
        let (ownership, view) = self.ownership();
        assert!(ownership.evaluate_dirty(view), "few units need one turn");
        self.execute();
        let (ownership, view) = self.ownership();
        assert!(ownership.announce_if_due(view), "few addresses need one turn");
        self.execute();
        assert!(self.sets.is_consistent());
    }

    fn owns(&self, address: std::net::IpAddr) -> bool {
        self.sets.own().owned().contains_key(&address)
    }

    fn execute(&mut self) {
        self.check_effects();
        let decided = self.ownership.take_decisions();
        for address in &decided.hand_over {
            assert!(self.owns(*address), "{address} is owned before it is released");
        }
        for address in decided.hand_over.iter().chain(&decided.contest) {
            if self.owns(*address) {
                self.sets.release(&[*address]);
            }
        }
        for (address, rank) in decided.restate {
            if self.owns(address) {
                self.sets.claim(&[(address, rank)], self.now);
            }
        }
        for (address, rank) in decided.take {
            assert!(self.ownership.has_unit(address), "{address} is a unit");
            assert!(!self.owns(address), "{address} is taken only once");
            self.sets.claim(&[(address, rank)], self.now);
        }
        self.members.own_mut().set_claim_set(self.sets.own().summary());
        for moved in decided.moves {
            assert!(moved.from.as_ref() != Some(&moved.to), "{moved:?} has two nodes");
        }
        assert!(self.ownership.conflicts().count() <= usize::from(ADDRESSES));
    }

    fn check_effects(&mut self) {
        while let Some(effect) = self.ownership.poll() {
            match effect {
                OwnershipEffect::Output(
                    Output::AnnounceSeries(address) | Output::Defend(address),
                ) => {
                    assert!(self.owns(address), "{address} is owned");
                }
                OwnershipEffect::CheckFailedPeer { node, mac, address } => {
                    let is_checked = self.members.suspect_alive(&node, address, self.now);
                    let (ownership, view) = self.ownership();
                    if !is_checked || !ownership.yields_to(&node, address, view) {
                        ownership.defend_against(&node, mac, address, view);
                    }
                }
                OwnershipEffect::Suspect(node) => self.members.suspect_heard(&node, self.now),
                OwnershipEffect::Output(_) => {}
            }
        }
    }
}
