//! ARP on the simulated segment: announcements, and the replies of nodes to requests.

use super::*;

impl Segment {
    /// Delivers an announcement to the other nodes, if announcements arrive.
    pub(super) fn announce(&mut self, from: usize, address: IpAddr) {
        let mac = self.nodes[from].mac;
        if !self.announcements_arrive || self.nodes[from].partitioned {
            return;
        }
        let others = (0..self.nodes.len()).filter(|index| *index != from);
        for index in others.filter(|index| self.exchanges_arp(*index)).collect::<Vec<_>>() {
            let now = self.nodes[index].clock(self.now);
            let input = Input::ForeignFrame { address, mac, announced: true };
            self.nodes[index].machine.handle(input, now);
            self.handle_outputs(index);
        }
    }

    /// Delivers the replies of the owners to an ARP probe, if announcements arrive.
    pub(super) fn reply_to_probe(&mut self, index: usize, address: IpAddr) {
        if !self.announcements_arrive || !self.exchanges_arp(index) {
            return;
        }
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            let mac = self.nodes[other].mac;
            if self.exchanges_arp(other) && self.nodes[other].announced.contains(&address) {
                let now = self.nodes[index].clock(self.now);
                let input = Input::ForeignFrame { address, mac, announced: false };
                self.nodes[index].machine.handle(input, now);
            }
        }
    }

    fn exchanges_arp(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        node.up && !node.partitioned && !node.receives_nothing && !node.is_mute && !node.stalled
    }

    /// Executes a liveness probe: the peer replies if it has the address, and otherwise the proxy.
    pub(super) fn probe_liveness(&mut self, index: usize, address: Option<IpAddr>, mac: Mac) {
        let own = self.nodes[index].mac;
        let replies = |target: &usize| {
            let node = &self.nodes[*target];
            let has_address = address.is_none_or(|address| node.announced.contains(&address));
            node.mac == mac && has_address && self.exchanges_arp(*target)
        };
        let is_reachable = self.exchanges_arp(index);
        let target = (0..self.nodes.len()).find(replies).filter(|_| is_reachable);
        if target.is_some() || self.proxy {
            let now = self.nodes[index].clock(self.now);
            self.nodes[index].machine.handle(Input::ArpReply(mac), now);
        }
        let Some(target) = target else { return };
        let now = self.nodes[target].clock(self.now);
        if self.nodes[target].machine.members().peers().awaits_request_from(own, now) {
            self.nodes[target].machine.handle(Input::RequestAnswered(own), now);
            self.handle_outputs(target);
        }
    }
}
