//! Fuzzes the claim sets of two nodes: one claims and releases, and the other one receives its
//! frames, in any order and with losses, and frames with arbitrary contents. The index agrees with
//! the sets, and after a list, the copy equals the set.

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, Claim, Frame, Stretch};

use super::{Bytes, STEPS_MAX, address, addresses, body, rank};
use crate::claim::claim_sets::ClaimSets;

const SENDER: u8 = 1;

/// Runs the steps in `bytes`.
///
/// # Panics
/// If a rule is broken.
pub fn fuzz_claim_sets(bytes: &[u8]) {
    let mut run = SetRun::new();
    let mut bytes = Bytes(bytes);
    for _ in 0..STEPS_MAX {
        let Some([kind, bits, value]) = bytes.take() else { break };
        run.now = run.now + super::wait(value);
        match kind % 9 {
            0 => run.claim(bits, value),
            1 => run.release(bits),
            2 => run.own(bits, value),
            3 => run.receive(bits, false),
            4 => run.receive(bits, true),
            5 => run.forge(bits, value),
            6 => run.stretch(),
            7 => {
                let name = super::NODES[usize::from(SENDER)];
                let _: bool = run.receiver.requests_list(name, run.now);
                run.sender.own_mut().start_list(run.now);
            }
            _ => {
                run.in_transit.pop();
            }
        }
        assert!(run.receiver.is_consistent(), "the index follows from the sets");
    }
    run.list();
}

struct SetRun {
    sender: ClaimSets,
    receiver: ClaimSets,
    in_transit: Vec<Frame>,
    now: Instant,
}

impl SetRun {
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let (sender, mut receiver) = (ClaimSets::new(7, now), ClaimSets::new(1, now));
        receiver.add_peer(super::NODES[usize::from(SENDER)].into(), 7);
        Self { sender, receiver, in_transit: Vec::new(), now }
    }

    fn send(&mut self, body: Body) {
        let claim_set = self.sender.own().summary();
        let frame = Frame { claim_set, ..super::frame(SENDER, body, self.now) };
        self.in_transit.push(frame);
    }

    /// Sends a frame with arbitrary contents.
    fn forge(&mut self, bits: u8, value: u8) {
        let mut frame = super::frame(SENDER, body(value, bits, value), self.now);
        frame.claim_set = self.sender.own().summary();
        frame.claim_set.counter = bits.into();
        frame.claim_set.count ^= u32::from(value % 3);
        self.in_transit.push(frame);
    }

    /// Sends the next stretch of the list.
    fn stretch(&mut self) {
        let (after, last, addresses) = self.sender.own_mut().next_stretch(self.now);
        let claim = |address: std::net::IpAddr| {
            let rank = self.sender.own().owned().get(&address)?.rank;
            Some(Claim { address, rank, preempt_delay: super::wait(0) })
        };
        let claims = addresses.into_iter().filter_map(claim).collect();
        self.send(Body::List(Stretch { after, last, claims }));
    }

    fn claim(&mut self, bits: u8, value: u8) {
        let claims: Vec<_> =
            addresses(bits).into_iter().map(|address| (address, rank(value))).collect();
        self.sender.claim(&claims, self.now);
        self.send(Body::Claim(super::claims(bits, value)));
    }

    fn release(&mut self, bits: u8) {
        let addresses = addresses(bits);
        self.sender.release(&addresses);
        self.send(Body::Release { addresses, contested: false });
    }

    /// Changes the set of the receiver itself.
    fn own(&mut self, bits: u8, value: u8) {
        if value > 127 {
            self.receiver.release(&[address(bits)]);
        } else {
            self.receiver.claim(&[(address(bits), rank(value))], self.now);
        }
    }

    /// Delivers one of the frames in transit.
    fn receive(&mut self, index: u8, is_late: bool) {
        if self.in_transit.is_empty() {
            return;
        }
        let frame = self.in_transit.remove(usize::from(index) % self.in_transit.len());
        if is_late {
            let is_recent = index > 127;
            drop(self.receiver.receive_late(&frame.node, &frame, is_recent, self.now));
        } else {
            drop(self.receiver.receive(&frame.node, &frame, self.now));
        }
    }

    /// Delivers a list of the whole set.
    fn list(&mut self) {
        let claim = |(address, owned): (&_, &crate::claim::Owned)| Claim {
            address: *address,
            rank: owned.rank,
            preempt_delay: super::wait(0),
        };
        let claims = self.sender.own().owned().iter().map(claim).collect();
        self.send(Body::List(Stretch { after: None, last: None, claims }));
        self.receive(u8::try_from(self.in_transit.len() - 1).unwrap_or(0), false);
        let copy = self.receiver.copy(super::NODES[usize::from(SENDER)]).expect("a known peer");
        let known = copy.claims().iter().map(|(address, claim)| (*address, claim.rank));
        let owned = self.sender.own().owned().iter().map(|(address, owned)| (*address, owned.rank));
        assert!(copy.is_complete() && known.eq(owned), "the copy equals the set after a list");
    }
}
