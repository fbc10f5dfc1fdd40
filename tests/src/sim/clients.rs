//! The clients on the wire: their caches learn from announcements alone, so that every move has to be told.

use super::event::Event;
use super::node::Repeat;
use super::truth::Rule;
use super::world::World;
use std::time::Duration;

/// One for each part that the wire is torn into, and one more.
const CLIENTS: usize = 3;
/// When an address is announced after it was taken or defended, as the speaker's announcer does it.
const ROUNDS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(200),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];
/// Between two things that clients say to all.
const CHATTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// What stands in a cache for a host that is no node of ours.
pub(super) const STRANGER: usize = usize::MAX;

pub(super) struct Client {
    /// Which part of a torn wire it is on.
    pub(super) part: u8,
    /// Which node it sends to, for every unit.
    pub(super) cache: Vec<Option<usize>>,
}

impl Client {
    pub(super) fn all(units: usize) -> Vec<Self> {
        (0..CLIENTS).map(|_| Self { part: 0, cache: vec![None; units] }).collect()
    }
}

impl World {
    /// All clients ask for all units, as they do when they have no entry yet.
    pub(super) fn clients_ask(&mut self) {
        for client in 0..self.clients.len() {
            for unit in 0..self.units() {
                self.clients[client].cache[unit] = self.owners(self.clients[client].part, unit).first().copied();
            }
        }
    }

    /// The nodes that answer for a unit in one part of the wire.
    pub(super) fn owners(&self, part: u8, unit: usize) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.part == part && node.answers_for(unit)).map(|(index, _)| index).collect()
    }

    pub(super) fn begin_announcing(&mut self, index: usize, unit: usize) {
        let node = &mut self.nodes[index];
        node.announcements[unit] += 1;
        let announcement = node.announcements[unit];
        self.queue.push(self.now, Event::Announce { node: index, unit, round: 0, announcement });
    }

    /// One round of an announcement: both forms of a gratuitous ARP, so a client misses it only if both are lost.
    pub(super) fn announce(&mut self, index: usize, unit: usize, round: usize, announcement: u32) {
        let node = &mut self.nodes[index];
        if node.announcements[unit] != announcement {
            return;
        }
        if node.halted.is_some() {
            node.repeats.push(Repeat { unit, round, announcement });
            return;
        }
        let (part, mute) = (node.part, node.mute);
        for client in 0..self.clients.len() {
            let lost = self.chance.happens(self.wire.loss * self.wire.loss);
            if self.clients[client].part == part && !lost && !mute {
                let at = self.now + self.delay();
                self.queue.push(at, Event::Told { client, unit, node: index });
            }
        }
        let mac = self.nodes[index].mac;
        if !mute {
            self.proxied[unit] = Some(mac);
            for other in self.owners(part, unit).into_iter().filter(|other| *other != index) {
                self.tell_of(other, unit, mac, true);
            }
        }
        if let Some(wait) = ROUNDS.get(round + 1) {
            let again = Event::Announce { node: index, unit, round: round + 1, announcement };
            self.queue.push(self.now + *wait, again);
        }
    }

    /// Makes the announcements that a node could not make while it stood still.
    pub(super) fn catch_up_announcing(&mut self, index: usize) {
        for Repeat { unit, round, announcement } in std::mem::take(&mut self.nodes[index].repeats) {
            self.queue.push(self.now, Event::Announce { node: index, unit, round, announcement });
        }
    }

    /// A client says something to all on its part of the wire.
    pub(super) fn chatter(&mut self) {
        let client = self.chance.below(self.clients.len());
        let part = self.clients[client].part;
        for index in 0..self.nodes.len() {
            if self.nodes[index].part == part && !self.wire.quiet {
                self.hear(index, self.nodes[index].life);
            }
        }
        let wait = self.chance.between(CHATTER.0, CHATTER.1);
        self.queue.push(self.now + wait, Event::Chatter);
    }

    /// At the end every client sends to the owner, if the part of the wire that it is on has one.
    pub(super) fn check_caches(&mut self, unit: usize) {
        for client in 0..self.clients.len() {
            let owners = self.owners(self.clients[client].part, unit);
            let cached = self.clients[client].cache[unit];
            if let ([owner], Some(other)) = (&owners[..], cached)
                && *owner != other
            {
                let other = if other == STRANGER { "the stranger".to_owned() } else { format!("n{other}") };
                self.violate(
                    Rule::Cache,
                    format!("unit {unit}: client {client} sends to {other}, the owner is n{owner}"),
                );
            }
        }
    }
}
