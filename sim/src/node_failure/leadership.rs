//! Leadership of the replicas of the controller: each one runs the real machine of the leader
//! lease against the Lease of the API server.

use std::time::Duration;

use ferrolb_controller_core::lease::{
    LeaderLease, LeaseConfig, LeaseInput, LeaseOutput, LeaseRecord, LeaseWrite,
};
use ferrolb_core::Machine;
use ferrolb_proto::Instant;

use super::queue::Event;
use super::world::World;
use crate::scenario::ms;

const LEASE_DURATION: Duration = ms(15_000);
const RENEW_DEADLINE: Duration = ms(10_000);
const RETRY_INTERVAL: Duration = ms(2_000);
/// Time after a change of the leader in which a standby may not know it: one read of the Lease.
const LEADER_IS_NEW: Duration = ms(3_000);

/// A request about the Lease.
#[derive(Clone, Debug)]
pub(super) enum LeaseRequest {
    /// The replica could not reach the API server.
    Unsent,
    Read,
    Write(LeaseWrite),
}

/// Leadership of one replica.
pub(super) struct Leadership {
    machine: LeaderLease,
    identity: Box<str>,
    wake_at: Option<Instant>,
    /// Result that has arrived while the process stood still.
    inbox: Option<LeaseInput>,
    /// Time until which the replica may write, if it has the lease.
    pub(super) held_until: Option<Instant>,
    /// True if the replica has the lease, and has listed all objects since.
    pub(super) is_active: bool,
    /// Node of the replica that leads, if it is another one.
    pub(super) leading_node: Option<usize>,
}

impl Leadership {
    pub(super) fn new(replica: usize, process: u32, now: Instant) -> Self {
        let identity: Box<str> = format!("controller{replica}_{process}").into();
        let config = LeaseConfig {
            identity: identity.clone(),
            duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry: RETRY_INTERVAL,
        };
        Self {
            machine: LeaderLease::new(config, now),
            identity,
            wake_at: None,
            inbox: None,
            held_until: None,
            is_active: false,
            leading_node: None,
        }
    }
}

impl World {
    /// Returns the replica that has the lease, according to the API server.
    pub(super) fn leader(&self) -> Option<usize> {
        let holder = &self.lease.as_ref()?.holder;
        self.replicas.iter().position(|it| it.leadership.identity == *holder)
    }

    /// Returns whether another replica may not know who leads.
    pub(super) fn leader_is_new(&self) -> bool {
        self.now.since(self.latest_leader_change) < LEADER_IS_NEW
    }

    /// The deadline of the lease may have passed.
    pub(super) fn wake_lease(&mut self, replica: usize) {
        if self.replicas[replica].leadership.wake_at != Some(self.now) {
            return;
        }
        self.replicas[replica].leadership.wake_at = None;
        if self.runs(replica) {
            self.tick_lease(replica);
        }
    }

    pub(super) fn tick_lease(&mut self, replica: usize) {
        let (leadership, now) = (&mut self.replicas[replica].leadership, self.now);
        leadership.machine.tick(now);
        if let Some(input) = leadership.inbox.take() {
            leadership.machine.handle(input, now);
        }
        self.drive_lease(replica);
    }

    fn drive_lease(&mut self, replica: usize) {
        while let Some(output) = self.replicas[replica].leadership.machine.poll() {
            match output {
                LeaseOutput::Read => self.request_lease(replica, LeaseRequest::Read),
                LeaseOutput::Write(write) => {
                    self.request_lease(replica, LeaseRequest::Write(write));
                }
                LeaseOutput::Lead(until) => self.lead(replica, until),
                LeaseOutput::Stop => self.stop_leading(replica),
                LeaseOutput::Follow(leader) => self.follow(replica, &leader),
                LeaseOutput::Released => {}
            }
        }
        let leadership = &mut self.replicas[replica].leadership;
        let Some(deadline) = leadership.machine.deadline() else { return };
        if leadership.wake_at.is_none_or(|at| deadline < at) {
            let at = deadline.max(self.now) + self.rng.between(Duration::ZERO, ms(2));
            leadership.wake_at = Some(at);
            self.queue.push(at, Event::LeaseWake(replica));
        }
    }

    fn request_lease(&mut self, replica: usize, request: LeaseRequest) {
        let (request, wait) = if self.reaches_api(replica) {
            (request, self.rng.between(ms(2), ms(20)))
        } else {
            (LeaseRequest::Unsent, self.rng.between(ms(10), ms(3_000)))
        };
        let process = self.replicas[replica].process;
        self.queue.push(self.now + wait, Event::LeaseEnd { replica, process, request });
    }

    /// Ends a request. One that was sent has its effect even if the process has stopped meanwhile.
    pub(super) fn end_lease_request(
        &mut self,
        replica: usize,
        process: u32,
        request: LeaseRequest,
    ) {
        let input = match request {
            LeaseRequest::Unsent => LeaseInput::Failed,
            LeaseRequest::Read => LeaseInput::Read(self.lease.clone()),
            LeaseRequest::Write(write) => self.write_lease(write),
        };
        if self.replicas[replica].process != process {
            return;
        }
        if self.runs(replica) {
            self.replicas[replica].leadership.machine.handle(input, self.now);
            self.drive_lease(replica);
        } else {
            self.replicas[replica].leadership.inbox = Some(input);
        }
    }

    /// Stores the Lease, unless it has changed since it was read.
    fn write_lease(&mut self, write: LeaseWrite) -> LeaseInput {
        let (version, holder) =
            self.lease.as_ref().map(|it| (it.version.clone(), it.holder.clone())).unzip();
        if version != write.version {
            return LeaseInput::Conflict;
        }
        if holder.as_ref() != Some(&write.holder) {
            self.note(|_| format!("{} has the lease", write.holder));
            self.latest_leader_change = self.now;
        }
        let time: Box<str> = self.now.as_nanos().to_string().into();
        let record = LeaseRecord {
            holder: write.holder,
            renew_time: time.clone(),
            duration: LEASE_DURATION,
            transitions: write.transitions,
            version: time,
        };
        self.lease = Some(record.clone());
        LeaseInput::Written(record)
    }

    /// Releases the lease of a replica that ends in order.
    pub(super) fn release_lease(&mut self) {
        if let Some(record) = &mut self.lease {
            record.holder = "".into();
            record.version = self.now.as_nanos().to_string().into();
            self.latest_leader_change = self.now;
        }
    }

    /// A replica has the lease until a time. A new leader lists all objects again.
    fn lead(&mut self, replica: usize, until: Instant) {
        let it = &mut self.replicas[replica];
        if it.leadership.held_until.replace(until).is_some() {
            return;
        }
        it.leadership.leading_node = None;
        it.term += 1;
        // The actions that the replica has begun begin again.
        it.begun.clear();
        let wait = self.rng.between(ms(50), ms(500));
        self.list_after(replica, wait);
    }

    fn list_after(&mut self, replica: usize, wait: Duration) {
        let (process, term) = (self.replicas[replica].process, self.replicas[replica].term);
        self.after(wait, move |world| {
            let it = &world.replicas[replica];
            if (it.process, it.term) != (process, term) {
                return;
            }
            if !world.receives_objects(replica) {
                return world.list_after(replica, RETRY_INTERVAL);
            }
            world.replicas[replica].leadership.is_active = true;
            world.receive_all(replica);
            world.drive_failures(replica);
        });
    }

    fn stop_leading(&mut self, replica: usize) {
        self.note(|_| format!("controller{replica} does not lead any more"));
        let it = &mut self.replicas[replica];
        (it.leadership.held_until, it.leadership.is_active) = (None, false);
        it.term += 1;
        it.reset();
    }

    /// A replica has read that another one has taken or renewed the lease.
    fn follow(&mut self, replica: usize, leader: &str) {
        let leader = self.replicas.iter().find(|it| *it.leadership.identity == *leader);
        let node = leader.map(|it| it.node);
        let leading_node = &mut self.replicas[replica].leadership.leading_node;
        if std::mem::replace(leading_node, node) != node {
            self.evaluate_soon(replica);
        }
        if let Some(node) = node {
            self.refute_silence_of_leader(replica, node);
        }
    }
}
