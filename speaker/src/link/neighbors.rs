//! Neighbor tracker of an interface: the hosts that sent frames recently, and the running probes
//! whose replies the claim machine waits for. Owned by the interface's thread. The tracker's memory
//! is bounded, because any host of the segment can add to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

/// Number of hosts of each address family that are remembered. If this node may be isolated, it
/// sends requests to these hosts.
const HOSTS_PER_FAMILY: usize = 4;
/// Time after an ARP probe for an address during which replies to the probe are evaluated.
const ARP_PROBE_LIFETIME: Duration = Duration::from_secs(1);
/// Time after a liveness probe of a silent speaker during which a reply to the probe is evaluated.
const LIVENESS_PROBE_LIFETIME: Duration = Duration::from_secs(2);
/// Time after a request to a witness during which its reply is evaluated.
const REQUEST_LIFETIME: Duration = Duration::from_secs(2);

/// Hosts of one address family, each with an address that the host uses. The host that sent the
/// latest frame is first.
type RecentHosts = [Option<(Mac, IpAddr)>; HOSTS_PER_FAMILY];

/// Neighbor tracker: recent witnesses, running probes, and whether any frame has arrived.
#[derive(Debug, Default)]
pub(super) struct NeighborTracker {
    /// The most recent witnesses: those seen by ARP, and those seen by Neighbor Discovery.
    hosts: [RecentHosts; 2],
    /// True if a frame has arrived since the claim machine was last informed of received frames.
    pub(super) received: bool,
    /// True if a witness was received since the receive filter opened.
    pub(super) witness_received: bool,
    /// Running liveness probes by the MAC of the probed host: the probed address, and the time at
    /// which the probe expires.
    liveness_probes: BTreeMap<Mac, (IpAddr, Instant)>,
    /// Witnesses to which requests were sent, and whose replies are awaited.
    requested: [RecentHosts; 2],
    /// Time at which replies of `requested` are no longer evaluated.
    requests_end: Instant,
    /// Running ARP probes by the probed address: the time at which the probe expires.
    arp_probes: BTreeMap<IpAddr, Instant>,
}

impl NeighborTracker {
    /// Records that a frame has arrived, and its sender if that host can be a witness
    /// ([`ClaimMachine::is_witness`]). A host has one slot, however many addresses it uses. A new
    /// host takes the slot of the host whose latest frame is the oldest.
    ///
    /// [`ClaimMachine::is_witness`]: ferrolb_speaker_core::claim::ClaimMachine::is_witness
    pub(super) fn record(&mut self, mac: Mac, sender: IpAddr, is_witness: bool) {
        self.received = true;
        if sender.is_unspecified() || !is_witness {
            return;
        }
        self.witness_received = true;
        let hosts = &mut self.hosts[usize::from(sender.is_ipv6())];
        let known = hosts.iter().position(|host| host.is_some_and(|(known, _)| known == mac));
        hosts[..=known.unwrap_or(HOSTS_PER_FAMILY - 1)].rotate_right(1);
        hosts[0] = Some((mac, sender));
    }

    /// Returns the most recent witnesses.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (Mac, IpAddr)> + '_ {
        self.hosts.iter().flatten().copied().flatten()
    }

    /// Records that a request is sent to each of the most recent witnesses.
    pub(super) fn start_requests(&mut self, now: Instant) {
        (self.requested, self.requests_end) = (self.hosts, now + REQUEST_LIFETIME);
    }

    /// Returns whether a reply of this host about this address is awaited. The first reply ends the
    /// wait, so that further ones cost nothing.
    pub(super) fn take_request(&mut self, mac: Mac, address: IpAddr, now: Instant) -> bool {
        let mut requested = self.requested.iter_mut().flatten();
        let entry = requested.find(|host| **host == Some((mac, address)));
        entry.is_some_and(|host| host.take().is_some() && now < self.requests_end)
    }

    pub(super) fn start_liveness_probe(&mut self, mac: Mac, address: IpAddr, now: Instant) {
        self.liveness_probes.retain(|_, (_, until)| now < *until);
        self.liveness_probes.insert(mac, (address, now + LIVENESS_PROBE_LIFETIME));
    }

    /// Returns whether a liveness probe of this host for this address is running. A reply about
    /// another address, such as the host's own, proves only that the host's kernel runs, and a
    /// kernel continues to run after a failure of the speaker.
    pub(super) fn is_liveness_probed(&self, mac: Mac, address: IpAddr, now: Instant) -> bool {
        self.liveness_probes
            .get(&mac)
            .is_some_and(|(probed, until)| *probed == address && now < *until)
    }

    pub(super) fn start_arp_probe(&mut self, address: IpAddr, now: Instant) {
        self.arp_probes.retain(|_, until| now < *until);
        self.arp_probes.insert(address, now + ARP_PROBE_LIFETIME);
    }

    pub(super) fn is_arp_probed(&self, address: IpAddr, now: impl FnOnce() -> Instant) -> bool {
        self.arp_probes.get(&address).is_some_and(|until| now() < *until)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn record_frame(tracker: &mut NeighborTracker, mac: u8, sender: [u8; 4]) {
        tracker.record(Mac([2, 0, 0, 0, 0, mac]), sender.into(), true);
    }

    fn recorded_hosts(tracker: &NeighborTracker) -> Vec<u8> {
        tracker.hosts().map(|(mac, _)| mac.0[5]).collect()
    }

    #[test]
    fn the_last_four_hosts_are_recorded_once_each() {
        let mut tracker = NeighborTracker::default();
        for n in [1, 1, 2, 3, 4, 1, 5, 5] {
            record_frame(&mut tracker, n, [10, 0, 0, n]);
        }
        record_frame(&mut tracker, 9, [0; 4]);
        assert_eq!(
            recorded_hosts(&tracker),
            [5, 1, 4, 3],
            "the host with the oldest frame is dropped"
        );
        // The many addresses of one host take no other host's slot.
        (0..9).for_each(|n| record_frame(&mut tracker, 1, [10, 0, 1, n]));
        (1..9)
            .for_each(|n| tracker.record(Mac([2, 0, 0, 0, 0, 9]), Ipv6Addr::from(n).into(), true));
        assert_eq!(recorded_hosts(&tracker), [1, 5, 4, 3, 9]);
        assert_eq!(
            tracker.hosts().next(),
            Some((Mac([2, 0, 0, 0, 0, 1]), [10, 0, 1, 8].into())),
            "the latest address of the host is recorded"
        );
        assert!(tracker.received);
    }

    #[test]
    fn a_member_takes_no_slot_of_a_witness() {
        let mut tracker = NeighborTracker::default();
        tracker.record(Mac([2, 0, 0, 0, 0, 7]), [10, 9, 0, 1].into(), false);
        assert!(!tracker.witness_received, "a frame of a member is no frame of a witness");
        record_frame(&mut tracker, 1, [10, 0, 0, 1]);
        for n in 0..12 {
            tracker.record(Mac([2, 0, 0, 0, 0, 7]), [10, 9, 0, n].into(), false);
        }
        assert_eq!(recorded_hosts(&tracker), [1]);
        assert!(tracker.witness_received, "a frame of the witness was received");
        assert!(tracker.received, "a frame of a member counts as received");
    }

    #[test]
    fn probes_expire() {
        let mut tracker = NeighborTracker::default();
        let (start, mac) = (Instant::from_millis(1_000), Mac([2; 6]));
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        tracker.start_liveness_probe(mac, one, start);
        assert!(
            tracker.is_liveness_probed(mac, one, start)
                && !tracker.is_liveness_probed(mac, one, start + LIVENESS_PROBE_LIFETIME)
        );
        assert!(
            !tracker.is_liveness_probed(mac, two, start),
            "a reply about another address is no reply to the probe"
        );
        tracker.record(mac, one, true);
        tracker.start_requests(start);
        tracker.record(mac, two, true);
        assert!(!tracker.take_request(mac, two, start), "no request was sent to this address");
        assert!(tracker.take_request(mac, one, start));
        assert!(!tracker.take_request(mac, one, start), "the reply was already evaluated");
        tracker.start_requests(start);
        assert!(!tracker.take_request(mac, two, start + REQUEST_LIFETIME));
        tracker.start_arp_probe(one, start);
        assert!(
            tracker.is_arp_probed(one, || start)
                && !tracker.is_arp_probed(one, || start + ARP_PROBE_LIFETIME)
        );
        assert!(!tracker.is_arp_probed(two, || start));
    }
}
