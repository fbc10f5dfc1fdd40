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

/// Hosts of one address family, each with an address that the host uses. The host that sent the
/// latest frame is first.
type RecentHosts = [Option<(Mac, IpAddr)>; HOSTS_PER_FAMILY];

/// Neighbor tracker: recent witnesses, running probes, and whether any frame has arrived.
#[derive(Debug, Default)]
pub(super) struct NeighborTracker {
    /// The most recent witnesses: those seen by ARP, and those seen by Neighbor Discovery.
    hosts: [RecentHosts; 2],
    /// Whether a frame has arrived of which the claim machine was not informed yet.
    pub(super) received: bool,
    /// Running liveness probes by the MAC of the probed host: the probed address, and the time at
    /// which the probe expires.
    liveness_probes: BTreeMap<Mac, (IpAddr, Instant)>,
    /// Running ARP probes by the probed address: the time at which the probe expires.
    arp_probes: BTreeMap<IpAddr, Instant>,
}

impl NeighborTracker {
    /// Records that a frame has arrived, and its sender if that host can be a witness
    /// ([`ClaimMachine::is_witness`]). A host has one slot, however many addresses it uses. A new
    /// host takes the slot of the host whose latest frame is the oldest.
    ///
    /// [`ClaimMachine::is_witness`]: ferrolb_proto::claim::ClaimMachine::is_witness
    pub(super) fn record(&mut self, mac: Mac, sender: IpAddr, is_witness: bool) {
        self.received = true;
        if sender.is_unspecified() || !is_witness {
            return;
        }
        let hosts = &mut self.hosts[usize::from(sender.is_ipv6())];
        let known = hosts.iter().position(|host| host.is_some_and(|(known, _)| known == mac));
        hosts[..=known.unwrap_or(HOSTS_PER_FAMILY - 1)].rotate_right(1);
        hosts[0] = Some((mac, sender));
    }

    /// Returns the most recent witnesses.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (Mac, IpAddr)> + '_ {
        self.hosts.iter().flatten().copied().flatten()
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
            .is_some_and(|(asked, until)| *asked == address && now < *until)
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

    fn note(ears: &mut NeighborTracker, mac: u8, sender: [u8; 4]) {
        ears.record(Mac([2, 0, 0, 0, 0, mac]), sender.into(), true);
    }

    fn known(ears: &NeighborTracker) -> Vec<u8> {
        ears.hosts().map(|(mac, _)| mac.0[5]).collect()
    }

    #[test]
    fn the_last_four_hosts_are_remembered_each_once_and_probes_are_not() {
        let mut ears = NeighborTracker::default();
        for n in [1, 1, 2, 3, 4, 1, 5, 5] {
            note(&mut ears, n, [10, 0, 0, n]);
        }
        note(&mut ears, 9, [0; 4]);
        assert_eq!(known(&ears), [5, 1, 4, 3], "the one that was not heard for longest has gone");
        // The many addresses of one host take no other host's slot.
        (0..9).for_each(|n| note(&mut ears, 1, [10, 0, 1, n]));
        (1..9).for_each(|n| ears.record(Mac([2, 0, 0, 0, 0, 9]), Ipv6Addr::from(n).into(), true));
        assert_eq!(known(&ears), [1, 5, 4, 3, 9]);
        assert_eq!(
            ears.hosts().next(),
            Some((Mac([2, 0, 0, 0, 0, 1]), [10, 0, 1, 8].into())),
            "it has this one now"
        );
        assert!(ears.received);
    }

    #[test]
    fn however_much_a_member_announces_it_takes_no_place_of_a_host() {
        let mut ears = NeighborTracker::default();
        note(&mut ears, 1, [10, 0, 0, 1]);
        for n in 0..12 {
            ears.record(Mac([2, 0, 0, 0, 0, 7]), [10, 9, 0, n].into(), false);
        }
        assert_eq!(known(&ears), [1]);
        assert!(ears.received, "it was heard all the same");
    }

    #[test]
    fn what_is_listened_for_ends() {
        let mut ears = NeighborTracker::default();
        let (start, mac) = (Instant::from_millis(1_000), Mac([2; 6]));
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        ears.start_liveness_probe(mac, one, start);
        assert!(
            ears.is_liveness_probed(mac, one, start)
                && !ears.is_liveness_probed(mac, one, start + LIVENESS_PROBE_LIFETIME)
        );
        assert!(
            !ears.is_liveness_probed(mac, two, start),
            "its kernel's word about another address is no word about this one"
        );
        ears.start_arp_probe(one, start);
        assert!(
            ears.is_arp_probed(one, || start)
                && !ears.is_arp_probed(one, || start + ARP_PROBE_LIFETIME)
        );
        assert!(!ears.is_arp_probed(two, || start));
    }
}
