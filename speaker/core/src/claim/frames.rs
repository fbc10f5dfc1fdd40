//! Received frames and datagrams, and other inputs that concern several parts. Part of the claim
//! machine of one interface.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};

use super::ClaimMachine;
use super::claim_sets::SetChanges;
use super::membership::Admission;

impl ClaimMachine {
    /// Applies a change of the units. Only the changed units are evaluated again.
    pub(super) fn update_units(
        &mut self,
        changed: Vec<Arc<Unit>>,
        removed: &[IpAddr],
        now: Instant,
    ) {
        self.ownership.remove_units(removed);
        self.release(removed, now);
        let (ownership, view) = self.ownership(now);
        ownership.update_units(changed, view);
    }

    /// Handles a frame of another interface of this node on the same segment.
    pub(super) fn on_sibling_frame(&mut self, is_active: bool, now: Instant) {
        if is_active && !self.membership.own().is_standby() {
            self.release_all(now);
            self.ownership.mark_all();
        }
        self.membership.own_mut().on_sibling_frame(is_active, now);
    }

    /// Handles a frame of another node on the segment.
    pub(super) fn receive(&mut self, source: Mac, frame: Frame, now: Instant) {
        let admission = self.membership.admit(source, &frame, now);
        self.apply_effects(now);
        let changes = match admission {
            Admission::Dropped => return,
            Admission::Newest { has_returned } => {
                let changes = self.sets.receive(&frame.node, &frame, now);
                if has_returned {
                    self.on_return(&frame.node, &changes.claimed, now);
                }
                changes
            }
            Admission::Late { is_recent } => {
                let changes = self.sets.receive_late(&frame.node, &frame, is_recent, now);
                let Some(changes) = changes else { return self.membership.count_stale() };
                changes
            }
        };
        self.membership.on_segment_frame(source, &frame.node, &frame.body, now);
        self.apply_effects(now);
        self.on_body(&frame.node, frame.body, changes, now);
    }

    /// Handles a datagram of the second path.
    pub(super) fn receive_datagram(&mut self, frame: Frame, now: Instant) {
        let received = self.membership.receive_datagram(frame, now);
        self.apply_effects(now);
        let Some(frame) = received else { return };
        if frame.body == Body::ListRequest {
            return self.sets.own_mut().start_list(now);
        }
        let changes = self.sets.receive(&frame.node, &frame, now);
        self.on_body(&frame.node, frame.body, changes, now);
    }

    /// Handles the body of a frame that has arrived by either path, except challenges and their
    /// responses. `changes` are those of the peer's claim set by the frame.
    fn on_body(&mut self, node: &str, body: Body, changes: SetChanges, now: Instant) {
        let (ownership, view) = self.ownership(now);
        ownership.on_set_changes(node, &body, changes, view);
        self.apply_effects(now);
        if self.sets.requests_list(node, now) {
            if let Some(mac) = self.membership.peers().mac_of(node) {
                self.send(Some(mac), Body::ListRequest, now);
            }
        } else if matches!(body, Body::Hello { .. }) {
            let (ownership, view) = self.ownership(now);
            ownership.check_conflicts(node, view);
        }
        let (ownership, view) = self.ownership(now);
        match body {
            Body::Hello { accepted_keys } => self.membership.on_accepts(node, &accepted_keys),
            Body::Release { addresses, contested: true } => {
                ownership.on_contested(&addresses, view);
            }
            Body::ListRequest => self.sets.own_mut().start_list(now),
            Body::Doubt(addresses) => ownership.on_doubts(&addresses, view),
            Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::PathReport { .. }
            | Body::NodeWatch(_)
            | Body::Claim(_)
            | Body::Release { contested: false, .. }
            | Body::List(_) => {}
        }
    }

    /// Handles the return of a peer that was declared failed. The peer may never have stopped
    /// announcing its addresses, so it counts as their owner again. `claimed` are those that its
    /// frame has added.
    pub(super) fn on_return(&mut self, node: &str, claimed: &[IpAddr], now: Instant) {
        let copy = self.sets.copy(node).into_iter();
        let claims = copy.flat_map(|copy| copy.claims().keys()).copied();
        let claims: Vec<_> = claims.filter(|address| !claimed.contains(address)).collect();
        self.ownership.note_moves(&claims, now);
    }
}
