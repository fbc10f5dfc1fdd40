//! Queue of future events of a run in a deterministic order: by true time, then by the order of
//! insertion.

use super::entry::Entry;
use super::world::SimWorld;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Frame;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::rc::Rc;

/// A frame of the ownership protocol in transit.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) source: Mac,
    /// Id of the key that signed the frame.
    pub(super) key: u32,
    pub(super) frame: Frame,
    /// Signed bytes of the frame. None in runs that do not pass frames through the codec.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) path: Path,
}

/// Path of a frame between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The network segment.
    Segment,
    /// UDP, through the segment or another network.
    Second,
}

/// Delivery of a frame to a node. The delivery succeeds if the same process still runs and the node
/// is still in the same part of the segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) at: Instant,
    pub(super) node: usize,
    pub(super) process_number: u32,
    pub(super) part: u8,
}

pub(super) enum Event {
    /// A frame reaches a node.
    Frame { arrival: Delivery, packet: Rc<Packet> },
    /// A host replies to an ARP request of a node.
    ArpReply { node: usize, process_number: u32, mac: Mac },
    /// A client replies to a request of a node.
    ClientReply { node: usize, process_number: u32 },
    /// A node receives an ARP frame in which the host with the MAC `mac` uses a unit's first
    /// address.
    ForeignArp { node: usize, process_number: u32, unit: usize, mac: Mac, announced: bool },
    /// The deadline of a node's machine may have passed.
    Wake(usize),
    /// A node's answer lease may have expired.
    AnswerLease(usize),
    /// A node sends one round of the announcement of a unit's first address.
    Announce { node: usize, unit: usize, round: usize, announcement: u32 },
    /// A node's announcement reaches a client.
    Announced { client: usize, unit: usize, node: usize },
    /// A client sends a broadcast frame.
    ClientBroadcast,
    /// An action on the world, such as a fault or its end.
    Action(Box<dyn FnOnce(&mut SimWorld)>),
}

/// Content of a queue entry: an event, or a frame with all its deliveries. With a thousand nodes,
/// one entry per delivery would make a heap of millions of entries.
enum Pending {
    Event(Event),
    /// The remaining deliveries of a frame in reverse order. Each has its number in the queue's
    /// order of insertion.
    FrameDeliveries(Vec<(u64, Delivery)>, Rc<Packet>),
}

#[derive(Default)]
pub(super) struct EventQueue {
    heap: BinaryHeap<Entry<Pending>>,
    count: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.count += 1;
        self.heap.push(Entry { at, number: self.count, value: Pending::Event(event) });
    }

    /// Inserts a frame with all its deliveries. They have the same order as separately inserted
    /// events.
    pub(super) fn push_frame(&mut self, arrivals: Vec<Delivery>, packet: Packet) {
        let mut remaining: Vec<(u64, Delivery)> = (self.count + 1..).zip(arrivals).collect();
        self.count += remaining.len() as u64;
        remaining.sort_unstable_by_key(|(number, arrival)| Reverse((arrival.at, *number)));
        if let Some(&(number, Delivery { at, .. })) = remaining.last() {
            self.heap.push(Entry {
                at,
                number,
                value: Pending::FrameDeliveries(remaining, Rc::new(packet)),
            });
        }
    }

    /// Returns the next event, if it happens at or before `until`.
    pub(super) fn pop(&mut self, until: Instant) -> Option<(Instant, Event)> {
        let mut entry = self.heap.peek_mut().filter(|entry| entry.at <= until)?;
        let at = entry.at;
        if let Pending::FrameDeliveries(remaining, packet) = &mut entry.value
            && let [.., (next_number, Delivery { at: next_at, .. }), (_, arrival)] = remaining[..]
        {
            let event = Event::Frame { arrival, packet: Rc::clone(packet) };
            remaining.pop();
            (entry.at, entry.number) = (next_at, next_number);
            return Some((at, event));
        }
        let event = match PeekMut::pop(entry).value {
            Pending::Event(event) => event,
            Pending::FrameDeliveries(remaining, packet) => {
                Event::Frame { arrival: remaining.last()?.1, packet }
            }
        };
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_ordered_by_time_then_insertion() {
        let mut queue = EventQueue::default();
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
