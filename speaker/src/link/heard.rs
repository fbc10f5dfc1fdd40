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

/// Hosts, each with an address that it has; the one that was heard last comes first.
type Places = [Option<(Mac, IpAddr)>; HOSTS];

/// What was heard, and what is listened for.
#[derive(Debug, Default)]
pub(super) struct Ears {
    /// The witnesses that were heard last, by ARP and by Neighbor Discovery.
    hosts: [Places; 2],
    /// Something was heard since the machine was last told.
    pub(super) heard: bool,
    /// Hosts of whom an answer about this address is of interest, and until when.
    probed: BTreeMap<Mac, (IpAddr, Instant)>,
    /// Addresses that someone may have, and until when an answer counts.
    checked: BTreeMap<IpAddr, Instant>,
}

impl Ears {
    /// Remembers who sent a frame, if that host can be a witness ([`Claims::is_witness`]). A host
    /// has one place, whatever addresses it has; a new one takes the place of the one that was not
    /// heard for longest.
    ///
    /// [`Claims::is_witness`]: ferrolb_proto::claim::Claims::is_witness
    pub(super) fn note(&mut self, mac: Mac, sender: IpAddr, is_witness: bool) {
        self.heard = true;
        if sender.is_unspecified() || !is_witness {
            return;
        }
        let hosts = &mut self.hosts[usize::from(sender.is_ipv6())];
        let known = hosts.iter().position(|host| host.is_some_and(|(known, _)| known == mac));
        hosts[..=known.unwrap_or(HOSTS - 1)].rotate_right(1);
        hosts[0] = Some((mac, sender));
    }

    /// The witnesses that were heard last.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (Mac, IpAddr)> + '_ {
        self.hosts.iter().flatten().copied().flatten()
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
        ears.note(Mac([2, 0, 0, 0, 0, mac]), sender.into(), true);
    }

    fn known(ears: &Ears) -> Vec<u8> {
        ears.hosts().map(|(mac, _)| mac.0[5]).collect()
    }

    #[test]
    fn the_last_four_hosts_are_remembered_each_once_and_probes_are_not() {
        let mut ears = Ears::default();
        for n in [1, 1, 2, 3, 4, 1, 5, 5] {
            note(&mut ears, n, [10, 0, 0, n]);
        }
        note(&mut ears, 9, [0; 4]);
        assert_eq!(known(&ears), [5, 1, 4, 3], "the one that was not heard for longest has gone");
        // The many addresses of one host take no other's place.
        (0..9).for_each(|n| note(&mut ears, 1, [10, 0, 1, n]));
        (1..9).for_each(|n| ears.note(Mac([2, 0, 0, 0, 0, 9]), Ipv6Addr::from(n).into(), true));
        assert_eq!(known(&ears), [1, 5, 4, 3, 9]);
        assert_eq!(ears.hosts().next(), Some((Mac([2, 0, 0, 0, 0, 1]), [10, 0, 1, 8].into())), "it has this one now");
        assert!(ears.heard);
    }

    #[test]
    fn however_much_a_member_announces_it_takes_no_place_of_a_host() {
        let mut ears = Ears::default();
        note(&mut ears, 1, [10, 0, 0, 1]);
        for n in 0..12 {
            ears.note(Mac([2, 0, 0, 0, 0, 7]), [10, 9, 0, n].into(), false);
        }
        assert_eq!(known(&ears), [1]);
        assert!(ears.heard, "it was heard all the same");
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
