//! Changes of the units: a machine that receives only the changes has the same state as one that
//! receives all units every time, and evaluates all of them.

use ferrolb_core::election::SoftRules;
use proptest::prelude::*;

use super::peer::claim_of;
use super::*;

/// Number of addresses that can be units.
const ADDRESSES: u8 = 6;

fn address(n: u8) -> IpAddr {
    IpAddr::from([172, 30, 0, n])
}

/// Returns the addresses whose bit is 1.
fn addresses(bits: u8) -> Vec<IpAddr> {
    (0..ADDRESSES).filter(|n| bits & (1 << n) != 0).map(address).collect()
}

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// The units become those of these facts, by address.
    Units([Option<UnitFacts>; ADDRESSES as usize]),
    /// The peer claims addresses. Their health checks fail on it if the flag is true.
    Claim(u8, bool),
    /// The peer releases addresses. A foreign host uses them if the flag is true.
    Release(u8, bool),
    Drain(bool),
    /// Nothing but hellos of the peer for a multiple of 40 ms.
    Wait(u8),
}

#[derive(Clone, Copy, Debug)]
struct UnitFacts {
    /// Bits of the candidates node1, node2 and node3.
    candidates: u8,
    cordoned: u8,
    serves: bool,
    failing: bool,
    announced_here: bool,
}

fn unit_facts() -> impl Strategy<Value = UnitFacts> {
    (0_u8..8, 0_u8..8, any::<bool>(), any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        |(candidates, cordoned, serves, failing, announced_here)| UnitFacts {
            candidates,
            cordoned,
            serves,
            failing,
            announced_here,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let bits = 0..1_u8 << ADDRESSES;
    prop_oneof![
        3 => prop::array::uniform6(prop::option::weighted(0.7, unit_facts())).prop_map(Step::Units),
        2 => (bits.clone(), any::<bool>()).prop_map(|(bits, fails)| Step::Claim(bits, fails)),
        2 => (bits, any::<bool>()).prop_map(|(bits, contested)| Step::Release(bits, contested)),
        1 => any::<bool>().prop_map(Step::Drain),
        3 => (0_u8..40).prop_map(Step::Wait),
    ]
}

fn new_unit(n: u8, facts: UnitFacts) -> Arc<Unit> {
    let has = |bits: u8, index: usize| bits & (1 << index) != 0;
    let names = NODES.into_iter().enumerate().filter(|(index, _)| has(facts.candidates, *index));
    let candidate = |(index, name): (usize, &str)| Candidate {
        node: name.into(),
        cordoned: has(facts.cordoned, index),
        ..Candidate::default()
    };
    Arc::new(Unit {
        can_serve_here: facts.serves,
        failing: facts.failing,
        announced_here: facts.announced_here,
        ..Unit::new(address(n), address(n), names.map(candidate).collect())
    })
}

/// A machine of node1 with the peer node2, and its time.
struct Run {
    machine: ClaimMachine,
    now: Instant,
    peer: TestPeer,
    outputs: Vec<Output>,
}

impl Run {
    fn new() -> Self {
        let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
        machine.handle(Input::Keys(vec![1]), Instant::ZERO);
        let now = Instant::from_millis(900);
        let peer = TestPeer::admitted("node2", 7, &mut machine, now);
        Self { machine, now, peer, outputs: Vec::new() }
    }

    fn receive(&mut self, body: Body) {
        let frame = self.peer.send(body);
        self.handle(frame);
    }

    fn handle(&mut self, input: Input) {
        self.machine.handle(input, self.now);
        self.outputs.extend(std::iter::from_fn(|| self.machine.poll()));
    }

    /// Executes a step. If `replaces_all` is true, the machine receives all units instead of the
    /// changed ones.
    fn execute(&mut self, step: &Step, replaces_all: bool) {
        match step {
            Step::Units(facts) => {
                let units = (0..).zip(facts).filter_map(|(n, facts)| Some(new_unit(n, (*facts)?)));
                let Input::Units { mut changed, removed } =
                    replace_units(&self.machine, units.collect())
                else {
                    unreachable!()
                };
                let is_new = |unit: &Arc<Unit>| {
                    self.machine.ownership.unit(unit.address).is_none_or(|known| known != unit)
                };
                changed.retain(|unit| replaces_all || is_new(unit));
                self.handle(Input::Units { changed, removed });
                if replaces_all {
                    self.machine.ownership.mark_all();
                }
                self.tick();
            }
            Step::Claim(bits, fails) => {
                let soft_rules = SoftRules::FAILING.when(*fails).bits();
                let claim = |address| {
                    let claim = claim_of("node2", address);
                    Claim { rank: ClaimRank { soft_rules, ..claim.rank }, ..claim }
                };
                self.receive(Body::Claim(addresses(*bits).into_iter().map(claim).collect()));
            }
            Step::Release(bits, contested) => {
                let (addresses, contested) = (addresses(*bits), *contested);
                self.receive(Body::Release { addresses, contested });
            }
            Step::Drain(draining) => {
                let state = NodeState { draining: *draining, ..NodeState::default() };
                self.handle(Input::NodeState(state));
            }
            Step::Wait(count) => (0..*count).for_each(|_| self.wait()),
        }
        self.wait();
    }

    /// Receives a hello of the peer, and runs the machine for 40 ms.
    fn wait(&mut self) {
        self.receive(hello());
        let end = self.now + ms(40);
        while let Some(at) = self.machine.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tick();
        }
        self.now = end;
    }

    fn tick(&mut self) {
        self.machine.tick(self.now);
        self.outputs.extend(std::iter::from_fn(|| self.machine.poll()));
    }

    /// Returns the state that decides about the units, as text.
    fn state(&mut self) -> String {
        let ownership = self.machine.ownership.state(self.now);
        let ClaimMachine { membership, sets, .. } = &self.machine;
        format!("{ownership}{membership:#?}{sets:#?}")
    }
}

proptest! {
    #[test]
    fn changes_have_the_effect_of_all_units(steps in prop::collection::vec(step(), 1..30)) {
        let (mut changes, mut all) = (Run::new(), Run::new());
        for step in &steps {
            changes.execute(step, false);
            all.execute(step, true);
            prop_assert_eq!(&changes.outputs, &all.outputs);
            prop_assert_eq!(changes.state(), all.state(), "after {:?}", step);
        }
    }
}
