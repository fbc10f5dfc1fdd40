//! Queue of future events in a deterministic order: by time, then by the order of insertion.

use super::actions::ActionInProgress;
use super::leadership::LeaseRequest;
use super::world::World;
use crate::entry::Entry;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Pod, Speaker};
use std::collections::BinaryHeap;
use std::sync::Arc;

/// An input of a watcher on its way. It arrives if the same process still runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arrival {
    /// The reply of `target` to a challenge.
    Reply { target: usize, nonce: u64, is_leaving: bool },
    /// The end of a probe of the kubelet of `target`.
    Probed { target: usize, replied: bool },
}

pub(super) enum Event {
    /// The deadline of a watcher.
    Wake(usize),
    /// A challenge reaches its target.
    Challenge {
        watcher: usize,
        process: u32,
        target: usize,
        nonce: u64,
    },
    Arrival {
        watcher: usize,
        process: u32,
        arrival: Arrival,
    },
    /// The contact of a node with another one may have begun or ended.
    Contact {
        node: usize,
        other: usize,
    },
    /// The contacts of a node have changed.
    Contacts(usize),
    /// A speaker writes its status.
    Write {
        node: usize,
        process: u32,
    },
    /// The API server stores a status.
    Stored(usize, Arc<Speaker>),
    /// The replicas of the controller receive a status.
    Seen(usize, Arc<Speaker>),
    /// The replicas learn whether a Node is Ready.
    ReadySeen(usize, bool),
    /// The replicas receive the pod of a node's speaker, or that there is none.
    PodSeen(usize, Option<Arc<Pod>>),
    /// A replica computes the evidence.
    Evaluate(usize),
    /// The deadline of a replica.
    ReplicaWake(usize),
    /// The deadline of a replica's lease.
    LeaseWake(usize),
    /// A request of a replica about the Lease ends.
    LeaseEnd {
        replica: usize,
        process: u32,
        request: LeaseRequest,
    },
    ActionSend(ActionInProgress),
    ActionEnd(ActionInProgress),
    /// The kubelet of a node synchronizes the state of its pods.
    Sync(usize),
    /// The node controller of Kubernetes checks the heartbeats of a node.
    Heartbeat {
        node: usize,
        period: u32,
    },
    /// A fault or its end.
    Action(Box<dyn FnOnce(&mut World)>),
}

#[derive(Default)]
pub(super) struct Queue {
    entries: BinaryHeap<Entry<Event>>,
    latest_number: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.latest_number += 1;
        self.entries.push(Entry { at, number: self.latest_number, value: event });
    }

    /// Removes the next event that is due at or before `end`.
    pub(super) fn pop(&mut self, end: Instant) -> Option<(Instant, Event)> {
        if self.entries.peek()?.at > end {
            return None;
        }
        let entry = self.entries.pop()?;
        Some((entry.at, entry.value))
    }
}
