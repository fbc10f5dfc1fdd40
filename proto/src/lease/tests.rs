//! Replicas and an API server that loses requests and responses, on one virtual clock.

use std::collections::BTreeMap;

use super::*;

const MILLIS: fn(u64) -> Duration = Duration::from_millis;

fn config(identity: &str) -> LeaseConfig {
    LeaseConfig {
        identity: identity.into(),
        duration: MILLIS(15_000),
        renew_deadline: MILLIS(10_000),
        retry: MILLIS(2_000),
    }
}

/// The Lease in the API server.
#[derive(Default)]
struct Server {
    record: Option<LeaseRecord>,
    version: u64,
}

impl Server {
    fn write(&mut self, write: LeaseWrite, now: Instant) -> Input {
        if write.version != self.record.as_ref().map(|record| record.version.clone()) {
            return Input::Conflict;
        }
        self.version += 1;
        let record = LeaseRecord {
            holder: write.holder,
            renew_time: now.as_nanos().to_string().into(),
            duration: MILLIS(15_000),
            transitions: write.transitions,
            version: self.version.to_string().into(),
        };
        self.record = Some(record.clone());
        Input::Written(record)
    }
}

/// Outcome of one request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    RequestLost,
    AnswerLost,
}

struct Replica {
    machine: LeaderLease,
    /// The response in transit, and when it arrives.
    answer: Option<(Instant, Input)>,
    /// Until then the replica runs nothing and receives nothing.
    paused_until: Instant,
    /// How far the replica's clock lags behind after it stood still.
    lag: Duration,
    alive: bool,
    left: bool,
}

struct World {
    now: Instant,
    server: Server,
    replicas: BTreeMap<&'static str, Replica>,
    random: u64,
    /// In percent.
    loss: u64,
    /// Step of the simulated time.
    grain: Duration,
}

const LATENCY: Duration = Duration::from_millis(5);
/// How long a driver waits for a response.
const TIMEOUT: Duration = Duration::from_millis(1_500);

impl World {
    fn new(names: &[&'static str], seed: u64) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            server: Server::default(),
            replicas: BTreeMap::new(),
            random: seed * 2 + 1,
            loss: 0,
            grain: MILLIS(1),
        };
        for name in names {
            world.start(name);
        }
        world
    }

    fn start(&mut self, name: &'static str) {
        let replica = Replica {
            machine: LeaderLease::new(config(name), self.now),
            answer: None,
            paused_until: self.now,
            lag: Duration::ZERO,
            alive: true,
            left: false,
        };
        self.replicas.insert(name, replica);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn fate(&mut self) -> Fate {
        match self.random(100) {
            n if n >= self.loss => Fate::Answered,
            n if n % 2 == 0 => Fate::RequestLost,
            _ => Fate::AnswerLost,
        }
    }

    fn ask(&mut self, output: Output) -> (Instant, Input) {
        let fate = self.fate();
        if fate == Fate::RequestLost {
            return (self.now + TIMEOUT, Input::Failed);
        }
        let answer = match output {
            Output::Write(write) => self.server.write(write, self.now),
            Output::Read | Output::Lead(_) | Output::Stop | Output::Released => {
                Input::Read(self.server.record.clone())
            }
        };
        if fate == Fate::AnswerLost {
            (self.now + TIMEOUT, Input::Failed)
        } else {
            (self.now + LATENCY, answer)
        }
    }

    /// Runs one step of one replica.
    fn step(&mut self, name: &'static str) {
        let now = self.now;
        let Some(replica) = self.replicas.get_mut(name) else { return };
        if !replica.alive || now < replica.paused_until {
            return;
        }
        let local = Instant::from_nanos(now.since(Instant::ZERO + replica.lag).as_nanos() as u64);
        if let Some((_, input)) = replica.answer.take_if(|(at, _)| *at <= now) {
            replica.machine.handle(input, local);
        }
        replica.machine.tick(local);
        while let Some(output) =
            self.replicas.get_mut(name).and_then(|replica| replica.machine.poll())
        {
            if let Output::Lead(until) = output {
                assert!(
                    until > local && until <= local + MILLIS(10_000),
                    "it leads until {until:?}"
                );
            }
            if output == Output::Released {
                self.replicas.get_mut(name).unwrap().left = true;
            }
            if matches!(output, Output::Read | Output::Write(_)) {
                let answer = self.ask(output);
                self.replicas.get_mut(name).unwrap().answer = Some(answer);
            }
        }
    }

    /// Runs for this time; panics if two replicas may write at once.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + self.grain;
            for name in self.replicas.keys().copied().collect::<Vec<_>>() {
                self.step(name);
            }
            let leaders = self.leaders();
            assert!(leaders.len() <= 1, "two leaders at {:?}: {leaders:?}", self.now);
        }
    }

    /// Returns the replicas that may write. A paused replica does nothing, whatever its state is.
    fn leaders(&self) -> Vec<&'static str> {
        let writes = |replica: &Replica| {
            replica.alive && self.now >= replica.paused_until && replica.machine.is_leader()
        };
        self.replicas.iter().filter(|(_, replica)| writes(replica)).map(|(name, _)| *name).collect()
    }

    fn leave(&mut self, name: &'static str) {
        let now = self.now;
        self.replicas.get_mut(name).unwrap().machine.handle(Input::Stopping, now);
    }
}

#[test]
fn a_single_replica_on_a_fresh_cluster_leads_after_two_round_trips() {
    let mut world = World::new(&["a"], 1);
    world.run(LATENCY * 2 + MILLIS(3));
    assert_eq!(world.leaders(), ["a"]);
}

#[test]
fn of_two_that_start_together_one_leads_and_stays() {
    let mut world = World::new(&["a", "b"], 1);
    world.run(MILLIS(50));
    let first = world.leaders();
    assert_eq!(first.len(), 1);
    world.run(MILLIS(120_000));
    assert_eq!(world.leaders(), first);
    assert_eq!(world.server.record.as_ref().unwrap().transitions, 0);
}

#[test]
fn a_holder_that_leaves_is_followed_within_one_retry() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.start("b");
    world.run(MILLIS(1_000));
    world.leave("a");
    assert_eq!(world.leaders(), Vec::<&str>::new(), "it stops before it gives the lease back");
    world.run(MILLIS(2_050));
    assert!(world.replicas["a"].left);
    assert_eq!(world.leaders(), ["b"]);
    assert_eq!(world.server.record.as_ref().unwrap().transitions, 1);
}

#[test]
fn a_holder_that_dies_is_followed_when_its_lease_is_over_and_not_before() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.start("b");
    world.run(MILLIS(4_000));
    world.replicas.get_mut("a").unwrap().alive = false;
    world.run(MILLIS(12_000));
    assert_eq!(world.leaders(), Vec::<&str>::new());
    world.run(MILLIS(5_100));
    assert_eq!(world.leaders(), ["b"]);
}

#[test]
fn a_holder_cut_off_from_the_api_server_stops_at_its_deadline() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.loss = 100;
    world.run(MILLIS(7_900));
    assert_eq!(world.leaders(), ["a"]);
    world.run(MILLIS(2_200));
    assert_eq!(world.leaders(), Vec::<&str>::new());
    world.loss = 0;
    world.run(MILLIS(3_600));
    assert_eq!(world.leaders(), ["a"], "the lease is still its own");
}

#[test]
fn a_holder_that_leaves_without_an_api_server_may_end_soon() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.loss = 100;
    world.leave("a");
    world.run(RELEASE_TIMEOUT + MILLIS(1));
    assert!(world.replicas["a"].left);
}

#[test]
fn a_holder_that_was_stopped_longer_than_its_lease_does_not_write_again() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.start("b");
    world.replicas.get_mut("a").unwrap().paused_until = world.now + MILLIS(20_000);
    world.run(MILLIS(40_000));
    assert_eq!(world.leaders(), ["b"]);
}

#[test]
fn a_holder_whose_clock_stood_still_stops_at_its_next_renewal() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.start("b");
    let a = world.replicas.get_mut("a").unwrap();
    (a.paused_until, a.lag) = (world.now + MILLIS(20_000), MILLIS(20_000));
    world.run(MILLIS(19_999));
    assert_eq!(world.leaders(), ["b"]);
    // A replica cannot detect the loss before its next read. Only in this case two replicas may
    // write, for less than the retry time.
    let woken = world.now;
    while world.leaders().len() != 1 || world.now <= woken + MILLIS(2) {
        world.now = world.now + MILLIS(1);
        world.step("a");
        world.step("b");
        assert!(world.now.since(woken) <= MILLIS(2_100), "it still leads");
    }
    assert_eq!(world.leaders(), ["b"]);
}

#[test]
fn a_deleted_lease_is_made_again_by_its_holder_and_by_nobody_else_before_its_end() {
    for since_renewal in (0..2_000).step_by(50) {
        let mut world = World::new(&["a"], 1);
        world.run(MILLIS(5_000));
        world.start("b");
        world.run(MILLIS(4_000 + since_renewal));
        world.server.record = None;
        world.run(MILLIS(60_000));
        assert_eq!(world.leaders(), ["a"]);
    }
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.start("b");
    world.run(MILLIS(4_000));
    world.replicas.get_mut("a").unwrap().alive = false;
    world.server.record = None;
    world.run(MILLIS(14_900));
    assert_eq!(world.leaders(), Vec::<&str>::new());
    world.run(MILLIS(2_200));
    assert_eq!(world.leaders(), ["b"], "the holder is gone, too");
}

#[test]
fn a_holder_that_leaves_a_deleted_lease_may_end_at_once() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.server.record = None;
    world.leave("a");
    world.run(LATENCY * 3);
    assert!(world.replicas["a"].left);
}

#[test]
fn whatever_gets_lost_two_never_lead_and_one_does_in_the_end() {
    for seed in 1..100 {
        let mut world = World::new(&["a", "b", "c"], seed);
        // A replica that has not read any Lease cannot detect that there was one.
        world.run(MILLIS(50));
        world.grain = MILLIS(7);
        for _ in 0..6 {
            if world.random(3) == 0 {
                world.server.record = None;
            }
            world.loss = [0, 30, 60, 95][world.random(4) as usize];
            let pause = world.random(25_000);
            let victim = ["a", "b", "c"][world.random(3) as usize];
            world.replicas.get_mut(victim).unwrap().paused_until = world.now + MILLIS(pause);
            let during = world.random(20_000);
            world.run(MILLIS(during));
        }
        world.loss = 0;
        world.run(MILLIS(45_000));
        assert_eq!(world.leaders().len(), 1, "seed {seed}");
    }
}

#[test]
fn a_lease_changed_by_another_hand_is_renewed_all_the_same() {
    let mut world = World::new(&["a"], 1);
    world.run(MILLIS(5_000));
    world.server.record.as_mut().unwrap().version = "labelled".into();
    world.run(MILLIS(30_000));
    assert_eq!(world.leaders(), ["a"]);
    world.server.record = None;
    world.run(MILLIS(30_000));
    assert_eq!(world.leaders(), ["a"], "a deleted one is made again");
}
