//! Tests of the leader lease: simulated replicas, and an API server that loses requests and
//! responses, on a virtual clock.

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

/// The API server with its only object, the Lease.
#[derive(Default)]
struct Server {
    record: Option<LeaseRecord>,
    version: u64,
}

impl Server {
    fn write(&mut self, write: LeaseWrite, now: Instant) -> LeaseInput {
        if write.version != self.record.as_ref().map(|record| record.version.clone()) {
            return LeaseInput::Conflict;
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
        LeaseInput::Written(record)
    }
}

/// Outcome of one request to the API server.
#[derive(Clone, Copy, PartialEq)]
enum RequestOutcome {
    Replied,
    RequestLost,
    ReplyLost,
}

struct Replica {
    machine: LeaderLease,
    /// The response in transit, and the time at which it arrives.
    reply: Option<(Instant, LeaseInput)>,
    /// Time until which the replica runs nothing and receives nothing.
    paused_until: Instant,
    /// The time by which the replica's clock is slow because it stood still during a pause.
    lag: Duration,
    running: bool,
    released: bool,
}

/// The replicas and their API server, on a virtual clock.
struct Simulation {
    now: Instant,
    server: Server,
    replicas: BTreeMap<&'static str, Replica>,
    random: u64,
    /// Probability that a request or its response is lost, in percent.
    loss: u64,
    /// Time by which each step advances the virtual clock.
    step_length: Duration,
}

/// Time from a request to its response.
const LATENCY: Duration = Duration::from_millis(5);
/// Time after which a driver stops waiting for a response.
const TIMEOUT: Duration = Duration::from_millis(1_500);

impl Simulation {
    fn new(names: &[&'static str], seed: u64) -> Self {
        let mut simulation = Self {
            now: Instant::ZERO,
            server: Server::default(),
            replicas: BTreeMap::new(),
            random: seed * 2 + 1,
            loss: 0,
            step_length: MILLIS(1),
        };
        for name in names {
            simulation.start(name);
        }
        simulation
    }

    fn start(&mut self, name: &'static str) {
        let replica = Replica {
            machine: LeaderLease::new(config(name), self.now),
            reply: None,
            paused_until: self.now,
            lag: Duration::ZERO,
            running: true,
            released: false,
        };
        self.replicas.insert(name, replica);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn next_outcome(&mut self) -> RequestOutcome {
        match self.random(100) {
            n if n >= self.loss => RequestOutcome::Replied,
            n if n % 2 == 0 => RequestOutcome::RequestLost,
            _ => RequestOutcome::ReplyLost,
        }
    }

    /// Handles a request of a replica. Returns the time at which its response arrives, and the
    /// response.
    fn send_request(&mut self, output: LeaseOutput) -> (Instant, LeaseInput) {
        let outcome = self.next_outcome();
        if outcome == RequestOutcome::RequestLost {
            return (self.now + TIMEOUT, LeaseInput::Failed);
        }
        let reply = match output {
            LeaseOutput::Write(write) => self.server.write(write, self.now),
            LeaseOutput::Read
            | LeaseOutput::Lead(_)
            | LeaseOutput::Stop
            | LeaseOutput::Follow(_)
            | LeaseOutput::Released => LeaseInput::Read(self.server.record.clone()),
        };
        if outcome == RequestOutcome::ReplyLost {
            (self.now + TIMEOUT, LeaseInput::Failed)
        } else {
            (self.now + LATENCY, reply)
        }
    }

    /// Runs one step of one replica: passes a response that has arrived, and sends its next
    /// request.
    fn step(&mut self, name: &'static str) {
        let now = self.now;
        let Some(replica) = self.replicas.get_mut(name) else { return };
        if !replica.running || now < replica.paused_until {
            return;
        }
        let local = Instant::from_nanos(now.since(Instant::ZERO + replica.lag).as_nanos() as u64);
        if let Some((_, input)) = replica.reply.take_if(|(at, _)| *at <= now) {
            replica.machine.handle(input, local);
        }
        replica.machine.tick(local);
        while let Some(output) =
            self.replicas.get_mut(name).and_then(|replica| replica.machine.poll())
        {
            if let LeaseOutput::Lead(until) = output {
                assert!(
                    until > local && until <= local + MILLIS(10_000),
                    "the leader may write until {until:?}, and the time is {local:?}"
                );
            }
            if output == LeaseOutput::Released {
                self.replicas.get_mut(name).unwrap().released = true;
            }
            if matches!(output, LeaseOutput::Read | LeaseOutput::Write(_)) {
                let reply = self.send_request(output);
                self.replicas.get_mut(name).unwrap().reply = Some(reply);
            }
        }
    }

    /// Runs all replicas for `duration`. Panics if two replicas may write at once.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + self.step_length;
            for name in self.replicas.keys().copied().collect::<Vec<_>>() {
                self.step(name);
            }
            let leaders = self.leaders();
            assert!(leaders.len() <= 1, "at {:?}, these replicas may write: {leaders:?}", self.now);
        }
    }

    /// Returns the replicas that may write. A paused replica does nothing, whatever its state is.
    fn leaders(&self) -> Vec<&'static str> {
        let writes = |replica: &Replica| {
            replica.running && self.now >= replica.paused_until && replica.machine.is_leader()
        };
        self.replicas.iter().filter(|(_, replica)| writes(replica)).map(|(name, _)| *name).collect()
    }

    fn stop(&mut self, name: &'static str) {
        let now = self.now;
        self.replicas.get_mut(name).unwrap().machine.handle(LeaseInput::Stopping, now);
    }
}

#[test]
fn a_single_replica_on_a_new_cluster_leads_after_two_round_trips() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(LATENCY * 2 + MILLIS(3));
    assert_eq!(simulation.leaders(), ["a"]);
}

#[test]
fn one_of_two_replicas_that_start_together_leads_and_stays() {
    let mut simulation = Simulation::new(&["a", "b"], 1);
    simulation.run(MILLIS(50));
    let first = simulation.leaders();
    assert_eq!(first.len(), 1);
    simulation.run(MILLIS(120_000));
    assert_eq!(simulation.leaders(), first);
    assert_eq!(simulation.server.record.as_ref().unwrap().transitions, 0);
}

#[test]
fn a_stopping_leader_is_replaced_within_one_retry() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.start("b");
    simulation.run(MILLIS(1_000));
    simulation.stop("a");
    assert_eq!(
        simulation.leaders(),
        Vec::<&str>::new(),
        "the leader stops writing before it releases the lease"
    );
    simulation.run(MILLIS(2_050));
    assert!(simulation.replicas["a"].released);
    assert_eq!(simulation.leaders(), ["b"]);
    assert_eq!(simulation.server.record.as_ref().unwrap().transitions, 1);
}

#[test]
fn a_failed_leader_is_replaced_when_its_lease_expires() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.start("b");
    simulation.run(MILLIS(4_000));
    simulation.replicas.get_mut("a").unwrap().running = false;
    simulation.run(MILLIS(12_000));
    assert_eq!(simulation.leaders(), Vec::<&str>::new());
    simulation.run(MILLIS(5_100));
    assert_eq!(simulation.leaders(), ["b"]);
}

#[test]
fn a_leader_without_api_server_stops_at_its_renew_deadline() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.loss = 100;
    simulation.run(MILLIS(7_900));
    assert_eq!(simulation.leaders(), ["a"]);
    simulation.run(MILLIS(2_200));
    assert_eq!(simulation.leaders(), Vec::<&str>::new());
    simulation.loss = 0;
    simulation.run(MILLIS(3_600));
    assert_eq!(simulation.leaders(), ["a"], "the lease still names the replica");
}

#[test]
fn a_stopping_leader_without_api_server_ends_after_a_timeout() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.loss = 100;
    simulation.stop("a");
    simulation.run(RELEASE_TIMEOUT + MILLIS(1));
    assert!(simulation.replicas["a"].released);
}

#[test]
fn a_leader_paused_beyond_its_lease_does_not_write_again() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.start("b");
    simulation.replicas.get_mut("a").unwrap().paused_until = simulation.now + MILLIS(20_000);
    simulation.run(MILLIS(40_000));
    assert_eq!(simulation.leaders(), ["b"]);
}

#[test]
fn a_leader_whose_clock_stood_still_stops_at_its_next_renewal() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.start("b");
    let a = simulation.replicas.get_mut("a").unwrap();
    (a.paused_until, a.lag) = (simulation.now + MILLIS(20_000), MILLIS(20_000));
    simulation.run(MILLIS(19_999));
    assert_eq!(simulation.leaders(), ["b"]);
    // Replica a cannot detect before its next request that b leads. Only in this case, two replicas
    // may write at once, for less than the retry time.
    let resumed = simulation.now;
    while simulation.leaders().len() != 1 || simulation.now <= resumed + MILLIS(2) {
        simulation.now = simulation.now + MILLIS(1);
        simulation.step("a");
        simulation.step("b");
        assert!(
            simulation.now.since(resumed) <= MILLIS(2_100),
            "the old leader stops within the retry time"
        );
    }
    assert_eq!(simulation.leaders(), ["b"]);
}

#[test]
fn only_the_leader_creates_a_deleted_lease_again_at_once() {
    for since_renewal in (0..2_000).step_by(50) {
        let mut simulation = Simulation::new(&["a"], 1);
        simulation.run(MILLIS(5_000));
        simulation.start("b");
        simulation.run(MILLIS(4_000 + since_renewal));
        simulation.server.record = None;
        simulation.run(MILLIS(60_000));
        assert_eq!(simulation.leaders(), ["a"]);
    }
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.start("b");
    simulation.run(MILLIS(4_000));
    simulation.replicas.get_mut("a").unwrap().running = false;
    simulation.server.record = None;
    simulation.run(MILLIS(14_900));
    assert_eq!(simulation.leaders(), Vec::<&str>::new());
    simulation.run(MILLIS(2_200));
    assert_eq!(simulation.leaders(), ["b"], "b leads after the lease's duration");
}

#[test]
fn a_stopping_leader_of_a_deleted_lease_ends_at_once() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.server.record = None;
    simulation.stop("a");
    simulation.run(LATENCY * 3);
    assert!(simulation.replicas["a"].released);
}

#[test]
fn with_random_losses_at_most_one_leads_and_finally_one_does() {
    for seed in 1..100 {
        let mut simulation = Simulation::new(&["a", "b", "c"], seed);
        // Let a replica read the Lease first: without a read, it could not detect the deletion.
        simulation.run(MILLIS(50));
        simulation.step_length = MILLIS(7);
        for _ in 0..6 {
            if simulation.random(3) == 0 {
                simulation.server.record = None;
            }
            simulation.loss = [0, 30, 60, 95][simulation.random(4) as usize];
            let pause = simulation.random(25_000);
            let paused = ["a", "b", "c"][simulation.random(3) as usize];
            simulation.replicas.get_mut(paused).unwrap().paused_until =
                simulation.now + MILLIS(pause);
            let length = simulation.random(20_000);
            simulation.run(MILLIS(length));
        }
        simulation.loss = 0;
        simulation.run(MILLIS(45_000));
        assert_eq!(simulation.leaders().len(), 1, "one replica leads with the seed {seed}");
    }
}

#[test]
fn a_lease_edited_by_another_client_is_renewed() {
    let mut simulation = Simulation::new(&["a"], 1);
    simulation.run(MILLIS(5_000));
    simulation.server.record.as_mut().unwrap().version = "labelled".into();
    simulation.run(MILLIS(30_000));
    assert_eq!(simulation.leaders(), ["a"]);
    simulation.server.record = None;
    simulation.run(MILLIS(30_000));
    assert_eq!(simulation.leaders(), ["a"], "the leader creates a deleted Lease again");
}
