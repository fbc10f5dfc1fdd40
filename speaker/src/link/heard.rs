//! What frames of ARP and Neighbor Discovery tell beside questions to us: which hosts there are, and what they have. Owned by
//! the link's thread; a fixed amount of memory, since every frame of the wire passes here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

/// How many hosts of each family are remembered, to be asked whether anything is heard at all.
const HOSTS: usize = 4;
/// How long after a question whether anyone has an address its answers are listened for.
const CHECK_LIFETIME: Duration = Duration::from_secs(1);
/// How long after a probe of a silent speaker its answer is listened for.
const PROBE_LIFETIME: Duration = Duration::from_secs(2);

/// Hosts, each with an address that it has.
type Places = [Option<(Mac, IpAddr)>; HOSTS];

/// What was heard, and what is listened for.
#[derive(Debug, Default)]
pub(super) struct Ears {
    /// The hosts that were heard last, by ARP and by Neighbor Discovery, in no order; and whose place the next one takes.
    hosts: [(Places, usize); 2],
    /// Something was heard since the machine was last told.
    pub(super) heard: bool,
    /// Hosts of whom an answer about this address is of interest, and until when.
    probed: BTreeMap<Mac, (IpAddr, Instant)>,
    /// Addresses that someone may have, and until when an answer counts.
    checked: BTreeMap<IpAddr, Instant>,
}

impl Ears {
    /// Remembers who sent a frame.
    pub(super) fn note(&mut self, mac: Mac, sender: IpAddr) {
        self.heard = true;
        if sender.is_unspecified() {
            return;
        }
        let (hosts, next) = &mut self.hosts[usize::from(sender.is_ipv6())];
        let host = Some((mac, sender));
        if !hosts.contains(&host) {
            hosts[*next] = host;
            *next = (*next + 1) % HOSTS;
        }
    }

    /// The hosts that were heard last.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (Mac, IpAddr)> + '_ {
        self.hosts.iter().flat_map(|(hosts, _)| hosts).copied().flatten()
    }

    pub(super) fn probe(&mut self, mac: Mac, address: IpAddr, now: Instant) {
        self.probed.retain(|_, (_, until)| now < *until);
        self.probed.insert(mac, (address, now + PROBE_LIFETIME));
    }

    /// Whether an answer of this host about this address is awaited. Its answers about others, say its own, tell of its kernel
    /// only, which outlives its speaker.
    pub(super) fn is_probed(&self, mac: Mac, address: IpAddr, now: Instant) -> bool {
        self.probed.get(&mac).is_some_and(|(asked, until)| *asked == address && now < *until)
    }

    pub(super) fn check(&mut self, address: IpAddr, now: Instant) {
        self.checked.retain(|_, until| now < *until);
        self.checked.insert(address, now + CHECK_LIFETIME);
    }

    pub(super) fn is_checked(&self, address: IpAddr, now: impl FnOnce() -> Instant) -> bool {
        self.checked.get(&address).is_some_and(|until| now() < *until)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn note(ears: &mut Ears, mac: u8, sender: [u8; 4]) {
        ears.note(Mac([2, 0, 0, 0, 0, mac]), sender.into());
    }

    #[test]
    fn the_last_four_hosts_are_remembered_each_once_and_probes_are_not() {
        let mut ears = Ears::default();
        for n in [1, 1, 2, 1, 3, 4, 5, 5] {
            note(&mut ears, n, [10, 0, 0, n]);
        }
        note(&mut ears, 9, [0; 4]);
        // The many IPv6 addresses of one host take no other's place.
        (0..9).for_each(|n| ears.note(Mac([2, 0, 0, 0, 0, 9]), Ipv6Addr::from(n).into()));
        let mut known: Vec<_> = ears.hosts().map(|(mac, _)| mac.0[5]).collect();
        known.sort_unstable();
        assert_eq!(known, [2, 3, 4, 5, 9, 9, 9, 9]);
        assert!(ears.heard);
    }

    #[test]
    fn what_is_listened_for_ends() {
        let mut ears = Ears::default();
        let (start, mac) = (Instant::from_millis(1_000), Mac([2; 6]));
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        ears.probe(mac, one, start);
        assert!(ears.is_probed(mac, one, start) && !ears.is_probed(mac, one, start + PROBE_LIFETIME));
        assert!(!ears.is_probed(mac, two, start), "its kernel's word about another address is no word about this one");
        ears.check(one, start);
        assert!(ears.is_checked(one, || start) && !ears.is_checked(one, || start + CHECK_LIFETIME));
        assert!(!ears.is_checked(two, || start));
    }
}
