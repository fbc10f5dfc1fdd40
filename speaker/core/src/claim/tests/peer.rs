//! A peer of which only the frames exist.

use ferrolb_core::election::SoftRules;

use super::*;

pub(super) fn hello() -> Body {
    Body::Hello { accepted_keys: vec![] }
}

/// Returns the claim of an address with the order of a node, and without soft rules.
pub(super) fn claim_of(node: &str, address: IpAddr) -> Claim {
    let rank = ClaimRank { order: order(node, &address.to_string()), ..ClaimRank::default() };
    Claim { address, rank, preempt_delay: Duration::ZERO }
}

/// Claims addresses with the order of node2.
pub(super) fn claim(addresses: &[IpAddr]) -> Body {
    Body::Claim(addresses.iter().map(|address| claim_of("node2", *address)).collect())
}

/// Claims an address with this rank.
pub(super) fn claim_with(address: IpAddr, soft_rules: SoftRules, order: u32) -> Body {
    let rank = ClaimRank { soft_rules: soft_rules.bits(), order, ..ClaimRank::default() };
    Body::Claim(vec![Claim { address, rank, preempt_delay: Duration::ZERO }])
}

pub(super) fn hand_over(addresses: &[IpAddr]) -> Body {
    Body::Release { addresses: addresses.to_vec(), contested: false }
}

/// A peer of which only the frames exist, with its claim set.
#[derive(Clone, Debug)]
pub(super) struct TestPeer {
    pub(super) name: Box<str>,
    pub(super) epoch: u64,
    pub(super) mac: Mac,
    pub(super) clock: u64,
    pub(super) counter: u32,
    pub(super) owned: BTreeMap<IpAddr, ClaimRank>,
}

impl TestPeer {
    pub(super) fn new(name: &str, epoch: u64) -> Self {
        let mac = Mac([2, 0, 0, 0, 0, 2]);
        Self { name: name.into(), epoch, mac, clock: 0, counter: 0, owned: BTreeMap::new() }
    }

    /// Returns a peer that a machine has admitted.
    pub(super) fn admitted(
        name: &str,
        epoch: u64,
        machine: &mut ClaimMachine,
        now: Instant,
    ) -> Self {
        let mut peer = Self::new(name, epoch);
        peer.admit(machine, now);
        peer
    }

    /// Sends a hello, and responds to the challenge.
    pub(super) fn admit(&mut self, machine: &mut ClaimMachine, now: Instant) {
        machine.handle(self.send(hello()), now);
        while let Some(output) = machine.poll() {
            if let Output::Send { to: Some(_), frame, .. } = output
                && let Body::Challenge { nonce } = frame.body
            {
                machine.handle(self.send(Body::ChallengeReply { nonce }), now);
            }
        }
    }

    /// Returns the whole claim set as a list of one stretch.
    pub(super) fn list(&self) -> Body {
        let claim = |(address, rank): (&IpAddr, &ClaimRank)| {
            let (address, rank) = (*address, *rank);
            Claim { address, rank, preempt_delay: Duration::ZERO }
        };
        let claims = self.owned.iter().map(claim).collect();
        Body::List(Stretch { after: None, last: None, claims })
    }

    /// Sends a frame: changes the claim set, and returns the frame as input of a receiver.
    pub(super) fn send(&mut self, body: Body) -> Input {
        self.clock += 1;
        let owned = self.owned.clone();
        match &body {
            Body::Claim(claims) => {
                self.owned.extend(claims.iter().map(|claim| (claim.address, claim.rank)))
            }
            Body::Release { addresses, .. } => {
                self.owned.retain(|address, _| !addresses.contains(address));
            }
            Body::Hello { .. }
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::PathReport { .. }
            | Body::NodeWatch(_) => {}
        }
        self.counter += u32::from(owned != self.owned);
        let frame = Frame {
            node: self.name.clone(),
            epoch: self.epoch,
            clock: self.clock,
            claim_set: ClaimSetSummary::new(self.epoch, self.counter, self.owned.clone()),
            interval: ms(50),
            detection_time: None,
            flags: Flags::default(),
            body,
        };
        Input::Frame { source: self.mac, frame }
    }
}

/// Returns the addresses that a machine knows as claims of a peer.
pub(super) fn known_claims(machine: &ClaimMachine, peer: &str) -> Vec<IpAddr> {
    let copy = machine.sets.copy(peer).expect("the machine knows the peer");
    copy.claims().keys().copied().collect()
}
