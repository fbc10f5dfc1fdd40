//! Clients on the network segment. A client's neighbor cache changes only by announcements, so that
//! a run detects every move that is not announced.

use std::time::Duration;

use ferrolb_speaker_core::claim::Input;

use super::checker::Rule;
use super::event::Event;
use super::node::DelayedRound;
use super::world::SimWorld;

/// Number of clients: one for each part of a split segment, and one more.
const CLIENT_COUNT: usize = 3;
/// Time that a node waits before each round of an announcement. After a node takes or defends an
/// address, it announces the address once in each round. The speaker uses the same times.
const ROUND_DELAYS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(200),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];
/// Minimum and maximum time between two broadcast frames that clients send.
const BROADCAST_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(300));
/// Cache entry that stands for a foreign host.
pub(super) const FOREIGN_HOST: usize = usize::MAX;

pub(super) struct Client {
    /// Number of the part of a split segment to which the client belongs.
    pub(super) part: u8,
    /// For every unit, the node to which the client sends. None: the cache has no entry.
    pub(super) cache: Vec<Option<usize>>,
}

impl Client {
    pub(super) fn all(units: usize) -> Vec<Self> {
        (0..CLIENT_COUNT).map(|_| Self { part: 0, cache: vec![None; units] }).collect()
    }
}

impl SimWorld {
    /// Fills all clients' caches with the current owners, like the ARP requests of clients whose
    /// caches are empty.
    pub(super) fn fill_caches(&mut self) {
        for client in 0..self.clients.len() {
            for unit in 0..self.units() {
                self.clients[client].cache[unit] =
                    self.owners(self.clients[client].part, unit).first().copied();
            }
        }
    }

    /// Returns the nodes that announce a unit in one part of the segment.
    pub(super) fn owners(&self, part: u8, unit: usize) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.part == part && node.announces(unit))
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn begin_announcing(&mut self, index: usize, unit: usize) {
        let node = &mut self.nodes[index];
        node.announcement_numbers[unit] += 1;
        let announcement = node.announcement_numbers[unit];
        self.queue.push(self.now, Event::Announce { node: index, unit, round: 0, announcement });
    }

    /// Sends one round of an announcement: a gratuitous ARP in the request form and one in the
    /// reply form. A client misses the round only if both are lost.
    pub(super) fn announce(&mut self, index: usize, unit: usize, round: usize, announcement: u32) {
        let node = &mut self.nodes[index];
        if node.announcement_numbers[unit] != announcement {
            return;
        }
        if node.halted.is_some() {
            node.delayed_rounds.push(DelayedRound { unit, round, announcement });
            return;
        }
        let (part, sends_nothing) = (node.part, node.sends_nothing);
        for client in 0..self.clients.len() {
            let lost = self.rng.chance(self.segment.loss * self.segment.loss);
            if self.clients[client].part == part && !lost && !sends_nothing {
                let at = self.now + self.delay();
                self.queue.push(at, Event::Announced { client, unit, node: index });
            }
        }
        let mac = self.nodes[index].mac;
        if !sends_nothing {
            self.proxy_entries[unit] = Some(mac);
            for other in (0..self.nodes.len()).filter(|other| *other != index) {
                if self.nodes[other].part == part {
                    self.send_foreign_arp(other, unit, mac, true);
                }
            }
        }
        if let Some(wait) = ROUND_DELAYS.get(round + 1) {
            let next_round = Event::Announce { node: index, unit, round: round + 1, announcement };
            self.queue.push(self.now + *wait, next_round);
        }
    }

    /// Sends the rounds of announcements that were due while a node was halted.
    pub(super) fn send_delayed_rounds(&mut self, index: usize) {
        for DelayedRound { unit, round, announcement } in
            std::mem::take(&mut self.nodes[index].delayed_rounds)
        {
            self.queue.push(self.now, Event::Announce { node: index, unit, round, announcement });
        }
    }

    /// Sends a broadcast frame of a client to the nodes in its part of the segment.
    pub(super) fn broadcast_from_client(&mut self) {
        let client = self.rng.below(self.clients.len());
        let part = self.clients[client].part;
        for index in 0..self.nodes.len() {
            if self.nodes[index].part == part && !self.segment.no_client_broadcasts {
                let process_number = self.nodes[index].process_number;
                self.receive_foreign_frame(index, process_number, Input::FrameReceived);
            }
        }
        let wait = self.rng.between(BROADCAST_INTERVAL.0, BROADCAST_INTERVAL.1);
        self.queue.push(self.now + wait, Event::ClientBroadcast);
    }

    /// Checks that at the end of a run every client sends to the unit's owner, if the client's part
    /// of the segment has one.
    pub(super) fn check_caches(&mut self, unit: usize) {
        for client in 0..self.clients.len() {
            let owners = self.owners(self.clients[client].part, unit);
            let cached = self.clients[client].cache[unit];
            if let ([owner], Some(other)) = (&owners[..], cached)
                && *owner != other
            {
                let other = if other == FOREIGN_HOST {
                    "the foreign host".to_owned()
                } else {
                    format!("n{other}")
                };
                self.report_violation(
                    Rule::Cache,
                    format!("unit {unit}: client {client} sends to {other}, the owner is n{owner}"),
                );
            }
        }
    }
}
