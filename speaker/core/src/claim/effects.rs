//! Effects of one part of the claim machine on the others. Part of the claim machine of one
//! interface.

use ferrolb_proto::Instant;

use super::membership::MemberEffect;
use super::ownership::OwnershipEffect;
use super::{ClaimMachine, Output};

impl ClaimMachine {
    /// Applies all effects, each before the next one.
    pub(super) fn apply_effects(&mut self, now: Instant) {
        loop {
            if let Some(effect) = self.ownership.poll() {
                self.apply_ownership_effect(effect, now);
            } else if let Some(effect) = self.membership.poll() {
                self.apply_member_effect(effect, now);
            } else {
                return;
            }
        }
    }

    fn apply_ownership_effect(&mut self, effect: OwnershipEffect, now: Instant) {
        match effect {
            OwnershipEffect::Output(output) => self.outputs.push_back(output),
            OwnershipEffect::Suspect(node) => self.membership.suspect_heard(&node, now),
            OwnershipEffect::CheckFailedPeer { node, mac, address } => {
                let is_checked = self.membership.suspect_alive(&node, address, now);
                let (ownership, view) = self.ownership(now);
                if !is_checked || !ownership.yields_to(&node, address, view) {
                    ownership.defend_against(&node, mac, address, view);
                }
            }
        }
    }

    fn apply_member_effect(&mut self, effect: MemberEffect, now: Instant) {
        let (ownership, view) = self.ownership(now);
        match effect {
            MemberEffect::Output(output) => self.outputs.push_back(output),
            MemberEffect::Probe { node, mac, announced, prefers_announced } => {
                let copy = view.sets.copy(&node);
                let taken = copy.and_then(|copy| copy.shared().first()).copied();
                let claimed = copy.and_then(|copy| copy.claims().keys().next()).copied();
                let preferred = announced.filter(|_| prefers_announced);
                let address = preferred.or(taken).or(claimed).or(announced);
                self.outputs.push_back(Output::LivenessProbe { node, mac, address });
            }
            MemberEffect::OwnStateChanged => ownership.mark_all(),
            MemberEffect::ReleaseAll => self.release_all(now),
            MemberEffect::Joined { node, epoch, before } => {
                // The new epoch of a node voids the claims of its previous epoch.
                let claims = self.sets.remove_peer(&node);
                self.sets.add_peer(node, epoch);
                let (ownership, view) = self.ownership(now);
                ownership.on_join(before, claims, view);
            }
            MemberEffect::PeerChanged(node) => ownership.mark_affected(view.sets.copy(&node)),
            MemberEffect::Failed { node, mac, last_frame, arp_replied } => {
                let proxy = Some(mac).filter(|_| arp_replied);
                ownership.on_failure(&node, last_frame, proxy, view);
            }
            MemberEffect::Returned(node) => self.on_return(&node, &[], now),
            MemberEffect::BecameUnheard { node, last_frame } => {
                ownership.correct_conflicts(&node, last_frame);
            }
            MemberEffect::RemainsFailed { node, mac, announced, arp_replied } => {
                if arp_replied {
                    ownership.leave_to_failed_peer(&node, mac, announced, view);
                } else if let Some(address) = announced {
                    ownership.defend_against(&node, mac, address, view);
                }
            }
            MemberEffect::Removed(node) => {
                let _: Vec<_> = self.sets.remove_peer(&node);
            }
        }
    }
}
