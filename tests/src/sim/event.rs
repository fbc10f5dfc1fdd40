//! What will happen, in the one order in which it will: by true time, then by when it was put there.

use super::world::World;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Frame;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::rc::Rc;

/// A frame of ours on its way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) source: Mac,
    /// The key that signed it.
    pub(super) key: u32,
    pub(super) frame: Frame,
    /// Its signed bytes, in the runs that take every frame through the codec.
    pub(super) bytes: Option<Vec<u8>>,
}

/// Where a frame is expected: it gets there if the node still lives the same life in the same part of the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) at: Instant,
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) part: u8,
}

pub(super) enum Event {
    /// A frame reaches a node.
    Frame { arrival: Arrival, packet: Rc<Packet> },
    /// Something answers the ARP request of a node.
    ArpAnswer { node: usize, life: u32, mac: Mac },
    /// A frame that is none of ours reaches a node.
    Heard { node: usize, life: u32 },
    /// An ARP frame that says who has a unit's first address reaches a node.
    Foreign { node: usize, life: u32, unit: usize, mac: Mac, announced: bool },
    /// A node's deadline may have come.
    Wake(usize),
    /// A node's gate may have shut.
    Gate(usize),
    /// A node tells the wire of an address again.
    Announce { node: usize, unit: usize, round: usize, announcement: u32 },
    /// An announcement reaches a client.
    Told { client: usize, unit: usize, node: usize },
    /// A client says something to all.
    Chatter,
    /// A fault, or its end.
    Act(Box<dyn FnOnce(&mut World)>),
}

/// An event, or a frame with all its arrivals: an entry for each would make a heap of millions where a thousand nodes speak.
enum Pending {
    Event(Event),
    /// The arrivals that are left, the next one last, each with its number.
    Flight(Vec<(u64, Arrival)>, Rc<Packet>),
}

struct Entry {
    at: Instant,
    number: u64,
    pending: Pending,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, because the heap gives its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    count: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.heap.push(Entry { at, number: self.count, pending: Pending::Event(event) });
    }

    /// Puts a frame there with all its arrivals, in the order in which they would be put there one by one.
    pub(super) fn push_frame(&mut self, arrivals: Vec<Arrival>, packet: Packet) {
        let mut left: Vec<(u64, Arrival)> = (self.count + 1..).zip(arrivals).collect();
        self.count += left.len() as u64;
        left.sort_unstable_by_key(|(number, arrival)| Reverse((arrival.at, *number)));
        if let Some(&(number, Arrival { at, .. })) = left.last() {
            self.heap.push(Entry { at, number, pending: Pending::Flight(left, Rc::new(packet)) });
        }
    }

    /// The next event, if it happens at or before `until`.
    pub(super) fn pop(&mut self, until: Instant) -> Option<(Instant, Event)> {
        let mut entry = self.heap.peek_mut().filter(|entry| entry.at <= until)?;
        let at = entry.at;
        if let Pending::Flight(left, packet) = &mut entry.pending
            && let [.., (next, Arrival { at: next_at, .. }), (_, arrival)] = left[..]
        {
            let event = Event::Frame { arrival, packet: Rc::clone(packet) };
            left.pop();
            (entry.at, entry.number) = (next_at, next);
            return Some((at, event));
        }
        let event = match PeekMut::pop(entry).pending {
            Pending::Event(event) => event,
            Pending::Flight(left, packet) => Event::Frame { arrival: left.last()?.1, packet },
        };
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_of_one_time_in_the_order_they_were_put() {
        let mut queue = Queue::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (9, 3)] {
            queue.push(Instant::from_millis(at), Event::Wake(node));
        }
        let until = Instant::from_millis(5);
        let order: Vec<_> = std::iter::from_fn(|| match queue.pop(until)? {
            (_, Event::Wake(node)) => Some(node),
            _ => None,
        })
        .collect();
        assert_eq!(order, [1, 0, 2]);
    }
}
