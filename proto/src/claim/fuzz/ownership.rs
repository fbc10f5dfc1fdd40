//! Fuzzes the ownership with claims of two peers, changes of the units, conflicts and waits. This
//! node takes only units that it does not own, releases only owned ones, and announces only owned
//! ones; its deadlines advance.

use std::sync::Arc;

use super::{Bytes, NODES, STEPS_MAX, address, addresses, body, config, flags, frame, mac, wait};
use crate::Instant;
use crate::claim::claim_sets::ClaimSets;
use crate::claim::membership::{EarlierEpoch, Membership, admit};
use crate::claim::ownership::{Ownership, OwnershipEffect, View};
use crate::claim::{LISTEN_PHASE, Output};
use crate::election::{Candidate, Unit};
use crate::wire::hello::{Body, Frame};

/// Runs the steps in `bytes`.
///
/// # Panics
/// If a rule is broken.
pub fn fuzz_ownership(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let Some([first, second]) = bytes.take() else { return };
    let mut run = OwnershipRun::new(first, second);
    for _ in 0..STEPS_MAX {
        let Some([kind, a, b, c]) = bytes.take() else { return };
        match kind % 7 {
            0 => run.wait(a),
            1 => run.units(a, b, c),
            2 | 3 => run.frame(a, b, c),
            4 => run.foreign(a, b),
            5 => run.failure(a, b),
            _ => run.doubts(a),
        }
        run.settle();
    }
}

struct OwnershipRun {
    members: Membership,
    sets: ClaimSets,
    ownership: Ownership,
    now: Instant,
}

impl OwnershipRun {
    /// Starts with two peers that have these flags.
    fn new(first: u8, second: u8) -> Self {
        let start = Instant::from_millis(1_000);
        let now = start + LISTEN_PHASE;
        let mut members = Membership::new(config(), start);
        members.set_keys(vec![1], start);
        members.expire(now);
        let mut sets = ClaimSets::new(1, start);
        for (n, bits) in [(1, first), (2, second)] {
            admit(&mut members, NODES[usize::from(n)], mac(n), flags(bits), now);
            sets.add_peer(NODES[usize::from(n)].into(), 7);
        }
        while members.poll().is_some() {}
        let mut run = Self { members, sets, ownership: Ownership::new(config(), now), now };
        run.units(0xff, 0, 7);
        run.settle();
        run
    }

    fn ownership(&mut self) -> (&mut Ownership, View<'_>) {
        let Self { members, sets, ownership, now } = self;
        (ownership, View { members, sets, now: *now })
    }

    fn wait(&mut self, n: u8) {
        let end = self.now + wait(n);
        while let Some(at) = self.ownership.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.members.expire(self.now);
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

    /// Receives a frame of a peer, whose claim set need not agree with the frame.
    fn frame(&mut self, node: u8, kind: u8, bits: u8) {
        let node = 1 + node % 2;
        let Frame { node: name, body, .. } = frame(node, body(kind, bits, kind), self.now);
        let mut sent = frame(node, body.clone(), self.now);
        sent.claim_set.count = kind.into();
        let changes = self.sets.receive(&name, &sent, self.now);
        let (ownership, view) = self.ownership();
        ownership.on_set_changes(&name, &body, changes, view);
        match body {
            Body::Hello { .. } => ownership.check_conflicts(&name, view),
            Body::Release { addresses, .. } => ownership.on_contested(&addresses, view),
            Body::Claim(_)
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::PathReport { .. } => {}
        }
    }

    fn foreign(&mut self, n: u8, host: u8) {
        let (ownership, view) = self.ownership();
        ownership.on_foreign_frame(address(n), mac(host % 4), host > 127, view);
    }

    /// Reports the failure, the return or the new epoch of a peer.
    fn failure(&mut self, node: u8, kind: u8) {
        let (name, mac) = (NODES[usize::from(1 + node % 2)], mac(1 + node % 2));
        let is_failed = kind & 4 != 0;
        let (ownership, view) = self.ownership();
        match kind % 4 {
            0 => ownership.on_failure(name, view.now, Some(mac).filter(|_| is_failed), view),
            1 => ownership.correct_conflicts(name, view.now),
            2 => ownership.leave_to_failed_peer(name, mac, Some(address(kind)), view),
            _ => {
                let claims = self.sets.remove_peer(name);
                self.sets.add_peer(name.into(), 7);
                let before = EarlierEpoch { is_leaving: kind > 127, failed: is_failed };
                let (ownership, view) = self.ownership();
                ownership.on_join(Some(before), claims, view);
            }
        }
    }

    fn doubts(&mut self, bits: u8) {
        let (ownership, view) = self.ownership();
        ownership.on_doubts(&addresses(bits), view);
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

    fn execute(&mut self) {
        self.check_effects();
        let decided = self.ownership.take_decisions();
        for address in decided.hand_over.iter().chain(&decided.contest) {
            self.sets.release(&[*address]);
        }
        for (address, rank) in decided.restate {
            if self.sets.own().owned().contains_key(&address) {
                self.sets.claim(&[(address, rank)], self.now);
            }
        }
        for (address, rank) in decided.take {
            assert!(self.ownership.has_unit(address), "{address} is a unit");
            self.sets.claim(&[(address, rank)], self.now);
        }
        self.members.set_claim_set(self.sets.own().summary());
        for moved in decided.moves {
            assert!(moved.from.as_ref() != Some(&moved.to), "{moved:?} has two nodes");
        }
        assert!(self.ownership.conflicts().count() <= usize::from(super::ADDRESSES));
    }

    fn check_effects(&mut self) {
        while let Some(effect) = self.ownership.poll() {
            match effect {
                OwnershipEffect::Output(
                    Output::AnnounceSeries(address) | Output::Defend(address),
                ) => {
                    assert!(self.sets.own().owned().contains_key(&address), "{address} is owned");
                }
                OwnershipEffect::CheckFailedPeer { node, mac, address } => {
                    let (ownership, view) = self.ownership();
                    if !ownership.yields_to(&node, address, view) {
                        ownership.defend_against(&node, mac, address, view);
                    }
                }
                OwnershipEffect::Output(_) | OwnershipEffect::Suspect(_) => {}
            }
        }
    }
}
