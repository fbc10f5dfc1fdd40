//! Index of the claimants: it equals the claims of all peers after any sequence of inputs.

use proptest::prelude::*;

use super::*;
use crate::wire::hello::{Body, FailingReport, ReleaseReason};

/// Number of addresses in the frames of the peers.
const ADDRESSES: u8 = 5;

/// Returns the addresses whose bit is 1.
fn addresses(bits: u8) -> Vec<IpAddr> {
    (0..ADDRESSES).filter(|n| bits & (1 << n) != 0).map(|n| IpAddr::from([172, 30, 0, n])).collect()
}

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// A peer sends a frame. True if the peer has restarted before.
    Frame(usize, bool, Body),
    /// Another host announces an address with the MAC of a peer.
    ForeignFrame(usize, u8),
    /// Nothing happens for this number of milliseconds, and no peer replies to a challenge.
    Silence(u64),
}

fn body() -> impl Strategy<Value = Body> {
    let bits = 0..1_u8 << ADDRESSES;
    let generations = (0_u32..4, 0_u32..4);
    prop_oneof![
        generations.0.clone().prop_map(|generation| Body::Hello {
            generation,
            accepted_keys: vec![],
            failing: FailingReport::default(),
        }),
        (generations.clone(), bits.clone()).prop_map(|((before, generation), bits)| Body::Claim {
            previous_generation: before,
            generation,
            addresses: addresses(bits),
            preempt_delays: vec![],
        }),
        (generations.clone(), bits.clone(), any::<bool>()).prop_map(
            |((before, generation), bits, refuses)| Body::Release {
                previous_generation: before,
                generation,
                addresses: addresses(bits),
                reason: if refuses {
                    ReleaseReason::NotCandidate
                } else {
                    ReleaseReason::HandedOver
                },
            }
        ),
        (generations.0, bits, 0_u16..2, 1_u16..3).prop_map(|(generation, bits, part, parts)| {
            let addresses = addresses(bits);
            Body::List { generation, part, parts, addresses, preempt_delays: vec![] }
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 1..NODES.len();
    prop_oneof![
        8 => (peer.clone(), prop::bool::weighted(0.1), body())
            .prop_map(|(peer, restarts, body)| Step::Frame(peer, restarts, body)),
        1 => (peer, 0..ADDRESSES).prop_map(|(peer, n)| Step::ForeignFrame(peer, n)),
        2 => (1_u64..2_000).prop_map(Step::Silence),
    ]
}

/// A machine of node1, and the epochs of its peers node2 and node3.
struct Run {
    machine: ClaimMachine,
    now: Instant,
    epochs: [u64; NODES.len()],
    /// True if peers reply to challenges.
    replies: bool,
}

impl Run {
    fn new() -> Self {
        let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
        machine.handle(Input::Keys(vec![1]), Instant::ZERO);
        let units = addresses(0b11_1010).into_iter().map(|address| unit(address, &NODES)).collect();
        set_units(&mut machine, units, Instant::ZERO);
        machine.tick(Instant::from_millis(1_000));
        let epochs = [1; NODES.len()];
        Self { machine, now: Instant::from_millis(1_001), epochs, replies: true }
    }

    fn execute(&mut self, step: Step) {
        match step {
            Step::Frame(peer, restarts, body) => {
                self.epochs[peer] += u64::from(restarts);
                self.receive(peer, body);
            }
            Step::ForeignFrame(peer, n) => {
                let (address, mac) = (IpAddr::from([172, 30, 0, n]), mac(peer));
                self.handle(Input::ForeignFrame { address, mac, announced: true });
            }
            Step::Silence(time) => {
                self.replies = false;
                let end = self.now + ms(time);
                while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
                    self.now = self.now.max(at);
                    self.machine.tick(self.now);
                    self.check();
                    // Other hosts send frames, so that this node may declare its peers failed.
                    self.handle(Input::FrameReceived);
                }
                (self.now, self.replies) = (end, true);
            }
        }
    }

    fn receive(&mut self, peer: usize, body: Body) {
        self.now = self.now + ms(1);
        let frame = Frame {
            node: NODES[peer].into(),
            epoch: self.epochs[peer],
            sequence: 1,
            clock: self.now.as_nanos(),
            interval: ms(50),
            flags: Flags::default(),
            body,
        };
        self.handle(Input::Frame { source: mac(peer), frame });
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        self.check();
        let challenge = |output| {
            let Output::Send { to: Some(to), frame, .. } = output else { return None };
            let Body::Challenge { nonce } = frame.body else { return None };
            Some((usize::from(to.0[5]), nonce))
        };
        let outputs: Vec<_> = std::iter::from_fn(|| self.machine.poll()).collect();
        for (peer, nonce) in outputs.into_iter().filter_map(challenge) {
            if self.replies {
                self.receive(peer, Body::ChallengeReply { nonce });
            }
        }
    }

    fn check(&self) {
        assert!(self.machine.has_consistent_claimants());
        for address in addresses(u8::MAX) {
            let indexed = self.machine.claimants(address).map(|(name, _)| name);
            let has = |peer: &Peer| {
                peer.claims.contains(&address) || peer.claims.saved().contains(&address)
            };
            let peers = self.machine.peers.iter().filter(|(_, peer)| has(peer));
            assert!(indexed.eq(peers.map(|(name, _)| &**name)), "{address}");
        }
    }
}

fn mac(peer: usize) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(peer).expect("a test has few peers")])
}

proptest! {
    #[test]
    fn the_index_has_the_claims_of_all_peers(steps in prop::collection::vec(step(), 1..40)) {
        let mut run = Run::new();
        steps.into_iter().for_each(|step| run.execute(step));
    }
}
