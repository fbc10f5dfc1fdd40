//! The open connections of a listener, and the one that is closed for a new one. Pure.
//!
//! A new connection is never refused. A client that sends its request at once is served before its
//! place is taken; a client that fills the places with idle connections loses the oldest of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections that a listener serves at once.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// Those of one client address. The kubelet's probes of a speaker and its gobgpd, and a hook, are
/// 5.
pub(super) const PEER_CONNECTIONS_MAX: usize = 8;

/// Why a connection was closed for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowded {
    /// Its client has too many.
    Peer,
    /// All clients have too many together.
    All,
}

/// The open connections, by age.
#[derive(Debug)]
pub(super) struct Places<T> {
    open: BTreeMap<u64, Place<T>>,
    next: u64,
}

#[derive(Debug)]
struct Place<T> {
    peer: IpAddr,
    /// Its request has arrived.
    asked: Arc<AtomicBool>,
    /// Closes the connection when it is dropped.
    _closes: T,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next: 0 }
    }
}

impl<T> Places<T> {
    /// Takes a place for a connection of `peer`. Dropping `closes` closes the connection; `asked`
    /// is set when its request has arrived. Returns the place, and why another one was closed for
    /// it.
    pub(super) fn take(&mut self, peer: IpAddr, asked: Arc<AtomicBool>, closes: T) -> (u64, Option<Crowded>) {
        let of_peer = self.open.values().filter(|place| place.peer == peer).count();
        let crowded = match (of_peer >= PEER_CONNECTIONS_MAX, self.open.len() >= CONNECTIONS_MAX) {
            (true, _) => Some(Crowded::Peer),
            (false, true) => Some(Crowded::All),
            (false, false) => None,
        };
        let may_go = |place: &Place<T>| match crowded {
            Some(Crowded::Peer) => place.peer == peer,
            Some(Crowded::All) => true,
            None => false,
        };
        let candidates = self.open.iter().filter(|(_, place)| may_go(place));
        // Connections without a request go first, and of those the oldest.
        let goes = candidates.map(|(id, place)| (place.asked.load(Ordering::Relaxed), *id)).min();
        if let Some((_, id)) = goes {
            self.open.remove(&id);
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, Place { peer, asked, _closes: closes });
        (id, crowded)
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: u64) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a place, for a connection whose request has arrived or not.
    fn take(places: &mut Places<()>, peer: usize, asked: bool) -> (u64, Option<Crowded>) {
        let peer = IpAddr::from([10, 0, 0, u8::try_from(peer).unwrap()]);
        places.take(peer, Arc::new(asked.into()), ())
    }

    /// Takes a place for each client in `taken`, whose request has arrived or not. Returns how many
    /// places there are, why the last one needed that of another, and which places are gone.
    fn after(taken: impl IntoIterator<Item = (usize, bool)>) -> (usize, Option<Crowded>, Vec<u64>) {
        let mut places = Places::default();
        let last = taken.into_iter().map(|(peer, asked)| take(&mut places, peer, asked)).last().unwrap();
        (places.open.len(), last.1, (0..=last.0).filter(|id| !places.open.contains_key(id)).collect())
    }

    #[test]
    fn a_client_with_too_many_connections_loses_its_own_oldest_that_has_not_asked() {
        let own =
            |asked: [bool; PEER_CONNECTIONS_MAX + 1]| [(1, false)].into_iter().chain(asked.map(|asked| (2, asked)));
        let mut asked = [false; PEER_CONNECTIONS_MAX + 1];
        let full = PEER_CONNECTIONS_MAX + 1;
        assert_eq!(after(own(asked)), (full, Some(Crowded::Peer), vec![1]));
        asked[0] = true;
        assert_eq!(after(own(asked)), (full, Some(Crowded::Peer), vec![2]), "the first has asked");
        assert_eq!(
            after(own([true; PEER_CONNECTIONS_MAX + 1])),
            (full, Some(Crowded::Peer), vec![1]),
            "all have asked"
        );
    }

    #[test]
    fn where_all_have_too_many_the_oldest_that_has_not_asked_goes() {
        let all = |asked: usize| (0..=CONNECTIONS_MAX).map(move |number| (number, number < asked));
        assert_eq!(after(all(0)), (CONNECTIONS_MAX, Some(Crowded::All), vec![0]));
        assert_eq!(after(all(3)), (CONNECTIONS_MAX, Some(Crowded::All), vec![3]));
        assert_eq!(after(all(CONNECTIONS_MAX)), (CONNECTIONS_MAX, Some(Crowded::All), vec![0]));
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let mut places = Places::default();
        for _ in 0..2 * PEER_CONNECTIONS_MAX {
            let (id, crowded) = take(&mut places, 1, false);
            assert_eq!(crowded, None);
            places.leave(id);
        }
        assert_eq!(places.open.len(), 0);
    }
}
