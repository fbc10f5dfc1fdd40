//! Index of the claimants: it equals the claims of all peers after any sequence of inputs.

use proptest::prelude::*;

use super::peer::claim_of;
use super::*;

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
    /// A peer sends a frame, and the frame is lost.
    LostFrame(usize, Body),
    /// Another host announces an address with the MAC of a peer.
    ForeignFrame(usize, u8),
    /// Nothing happens for this number of milliseconds, and no peer replies to a challenge.
    Silence(u64),
}

fn body() -> impl Strategy<Value = Body> {
    let bits = 0..1_u8 << ADDRESSES;
    let bound = || prop::option::of((0..ADDRESSES).prop_map(|n| IpAddr::from([172, 30, 0, n])));
    prop_oneof![
        Just(hello()),
        bits.clone().prop_map(|bits| claim(&addresses(bits))),
        (bits.clone(), any::<bool>()).prop_map(|(bits, contested)| {
            Body::Release { addresses: addresses(bits), contested }
        }),
        (bits, bound(), bound()).prop_map(|(bits, after, last)| {
            Body::List(Stretch {
                after,
                last,
                claims: addresses(bits).into_iter().map(|a| claim_of("node2", a)).collect(),
            })
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 1..NODES.len();
    prop_oneof![
        8 => (peer.clone(), prop::bool::weighted(0.1), body())
            .prop_map(|(peer, restarts, body)| Step::Frame(peer, restarts, body)),
        2 => (peer.clone(), body()).prop_map(|(peer, body)| Step::LostFrame(peer, body)),
        1 => (peer, 0..ADDRESSES).prop_map(|(peer, n)| Step::ForeignFrame(peer, n)),
        2 => (1_u64..2_000).prop_map(Step::Silence),
    ]
}

/// A machine of node1, and its peers node2 and node3.
struct Run {
    machine: ClaimMachine,
    now: Instant,
    peers: [TestPeer; NODES.len()],
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
        let peers = std::array::from_fn(new_peer);
        Self { machine, now: Instant::from_millis(1_001), peers, replies: true }
    }

    fn execute(&mut self, step: Step) {
        match step {
            Step::Frame(peer, restarts, body) => {
                if restarts {
                    let epoch = self.peers[peer].epoch + 1;
                    self.peers[peer] = TestPeer { epoch, ..new_peer(peer) };
                }
                self.receive(peer, body);
            }
            Step::LostFrame(peer, body) => drop(self.peers[peer].send(body)),
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
        let frame = self.peers[peer].send(body);
        self.handle(frame);
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
        assert!(self.machine.sets.is_consistent());
        for address in addresses(u8::MAX) {
            let indexed = self.machine.sets.claimants(address).map(|(name, _)| &**name);
            let claims = |name: &&Arc<str>| known_claims(&self.machine, name).contains(&address);
            let peers = self.machine.members().peers().iter().map(|(name, _)| name).filter(claims);
            assert!(indexed.eq(peers.map(|name| &**name)), "{address}");
        }
    }
}

fn new_peer(index: usize) -> TestPeer {
    TestPeer { mac: mac(index), ..TestPeer::new(NODES[index], 1) }
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
