//! Fuzzes the membership with frames and datagrams of three nodes, which may forge anything but a
//! signature, and with waits. The effects agree with the state: each peer joins before it fails, it
//! fails before it returns, and its deadlines advance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Frame};

use super::{Bytes, NODES, STEPS_MAX, body, config, flags, frame, mac, wait};
use crate::claim::membership::{Admission, MemberEffect, Membership};
use crate::claim::{LISTEN_PHASE, NodeState, Output};

/// Runs the steps in `bytes`.
///
/// # Panics
/// If a rule is broken.
pub fn fuzz_membership(bytes: &[u8]) {
    let mut run = MemberRun::new();
    let mut bytes = Bytes(bytes);
    for _ in 0..STEPS_MAX {
        let Some([kind, a, b, c]) = bytes.take() else { return };
        match kind % 8 {
            0 => run.wait(a),
            1 | 2 => run.frame(a, b, c),
            3 => run.datagram(a, b, c),
            4 => run.membership.on_arp_reply(mac(a % 4)),
            5 => run.own(a, b),
            6 => run.suspect(a, b),
            _ => run.reply(a),
        }
        run.check();
    }
}

struct MemberRun {
    membership: Membership,
    now: Instant,
    /// The peers that have joined, each with whether it has failed.
    failed: BTreeMap<Arc<str>, bool>,
    /// Nonce of the latest challenge to each MAC.
    nonces: BTreeMap<u8, u64>,
    /// Epoch in the latest frame of each node.
    epochs: [u64; NODES.len()],
}

impl MemberRun {
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let mut membership = Membership::new(config(), now);
        membership.own_mut().set_keys(vec![1], now);
        membership.own_mut().expire(now + LISTEN_PHASE);
        let mut run = Self {
            membership,
            now: now + LISTEN_PHASE,
            failed: BTreeMap::new(),
            nonces: BTreeMap::new(),
            epochs: [7; NODES.len()],
        };
        run.check();
        run
    }

    fn wait(&mut self, n: u8) {
        // The state of a failed peer is kept for an hour.
        let end = self.now + if n == u8::MAX { Duration::from_secs(3_700) } else { wait(n) };
        while let Some(at) = self.membership.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tick();
            let next = self.membership.deadline();
            assert!(next.is_none_or(|next| next > self.now), "the next deadline is in the future");
        }
        self.now = end;
        self.tick();
    }

    fn tick(&mut self) {
        self.membership.check_answer_lease(self.now);
        self.membership.own_mut().expire(self.now);
        self.membership.check_silence(self.now);
        self.membership.check_peers(self.now);
        let _: bool = self.membership.own_mut().has_left(self.now);
        if self.membership.own_mut().is_hello_due(self.now) {
            self.membership.send_hello(self.now);
        }
        self.check();
    }

    fn frame(&mut self, node: u8, kind: u8, value: u8) {
        // The clock of a node may leap, and frames may overtake each other.
        let clock =
            self.now.as_nanos().saturating_add_signed(i64::from(value as i8) << (kind % 32));
        let sent = frame(node, body(kind, value, value), self.now);
        let claim_set = ClaimSetSummary { count: (value % 2).into(), ..ClaimSetSummary::default() };
        let epoch = 7 + u64::from(value & 3 == 3);
        self.epochs[usize::from(node) % NODES.len()] = epoch;
        self.admit(node, &Frame { clock, claim_set, epoch, flags: flags(value), ..sent });
    }

    /// Responds to the latest challenge of a node.
    fn reply(&mut self, node: u8) {
        let Some(nonce) = self.nonces.get(&(node % 4)).copied() else { return };
        let epoch = self.epochs[usize::from(node) % NODES.len()];
        let frame = frame(node, Body::ChallengeReply { nonce }, self.now);
        self.admit(node, &Frame { epoch, ..frame });
    }

    fn admit(&mut self, node: u8, frame: &Frame) {
        self.membership.frame_received(self.now);
        let admission = self.membership.admit(mac(node % 4), frame, self.now);
        if let Admission::Newest { has_returned: true } = admission {
            assert_eq!(self.failed.insert((*frame.node).into(), false), Some(true));
        }
        self.check();
        if admission == Admission::Dropped {
            return;
        }
        self.membership.on_segment_frame(mac(node % 4), &frame.node, &frame.body, self.now);
    }

    fn datagram(&mut self, node: u8, kind: u8, value: u8) {
        let nonce = self.nonces.get(&(node % 4)).copied();
        let sent = match (body(kind, value, value), nonce) {
            (Body::PathReport { report, .. }, Some(nonce)) => Body::PathReport { nonce, report },
            (sent, _) => sent,
        };
        drop(self.membership.receive_datagram(frame(node, sent, self.now), self.now));
    }

    /// Changes the state of this node.
    fn own(&mut self, kind: u8, value: u8) {
        let is_set = value > 127;
        match kind % 10 {
            0 => {
                let count = (value % 2).into();
                self.membership
                    .own_mut()
                    .set_claim_set(ClaimSetSummary { count, ..Default::default() });
                self.membership.adjust_pace();
            }
            1 => {
                let state = NodeState { draining: is_set, ..NodeState::default() };
                self.membership.own_mut().set_node_state(state, self.now);
            }
            2 => self.membership.set_main_loop_stalled(is_set, self.now),
            3 => self.membership.own_mut().on_sibling_frame(is_set, self.now),
            4 => self.membership.on_frames_dropped(self.now),
            5 => self.membership.own_mut().set_keys(vec![u32::from(value % 3)], self.now),
            6 => self.membership.on_request(mac(value % 4), self.now),
            7 => self.membership.on_accepts(NODES[1], &[value.into()]),
            8 if value > 250 => self.membership.own_mut().leave(self.now),
            _ => self.membership.on_reply(self.now),
        }
    }

    fn suspect(&mut self, node: u8, n: u8) {
        let name = NODES[usize::from(node) % NODES.len()];
        if n > 127 {
            self.membership.suspect_heard(name, self.now);
        } else {
            self.membership.suspect_alive(name, super::address(n), self.now);
        }
    }

    /// Reads the effects, and compares them with the state.
    fn check(&mut self) {
        while let Some(effect) = self.membership.poll() {
            match effect {
                MemberEffect::Joined { node, before, .. } => {
                    let known = self.failed.insert(node, false);
                    assert_eq!(known, before.map(|before| before.failed));
                }
                MemberEffect::Failed { node, .. } => {
                    assert_eq!(self.failed.insert(node, true), Some(false));
                }
                MemberEffect::Returned(node) => {
                    assert_eq!(self.failed.insert(node, false), Some(true));
                }
                MemberEffect::RemainsFailed { node, .. } => assert!(self.failed[&node]),
                MemberEffect::Removed(node) => assert_eq!(self.failed.remove(&node), Some(true)),
                MemberEffect::Output(Output::Send { to: Some(to), frame, .. }) => {
                    if let Body::Challenge { nonce } = frame.body {
                        self.nonces.insert(to.0[5], nonce);
                    }
                }
                MemberEffect::ReleaseAll => {
                    self.membership.own_mut().set_claim_set(ClaimSetSummary::default());
                }
                MemberEffect::Output(_)
                | MemberEffect::Probe { .. }
                | MemberEffect::OwnStateChanged
                | MemberEffect::PeerChanged(_)
                | MemberEffect::BecameUnheard { .. } => {}
            }
        }
        let live = self.membership.peers().live();
        let expected = self.failed.iter().filter(|(_, failed)| !**failed).map(|(name, _)| &**name);
        assert!(live.eq(expected), "the effects name the live peers");
        assert!(self.membership.peers().unheard().all(|name| !self.failed[name]));
        assert_eq!(self.membership.peers().count(), self.failed.len());
    }
}
