//! The open connections of a listener, and the choice of the connection that is closed to make room
//! for a new one. Pure.
//!
//! A new connection is never refused. A client that sends its request at once gets a response
//! before its slot is reused. A client that fills the slots with idle connections loses the oldest
//! of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The most open connections of a listener.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The most open connections of one client address. The kubelet needs 5: two probes of the speaker,
/// two probes of gobgpd, and a hook.
pub(super) const PEER_CONNECTIONS_MAX: usize = 8;

/// The limit because of which a connection was closed to make room for a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionLimit {
    /// The client of the new connection has [`PEER_CONNECTIONS_MAX`] connections.
    Peer,
    /// All clients together have [`CONNECTIONS_MAX`] connections.
    All,
}

/// The open connections by ID; a later connection has a higher ID.
#[derive(Debug)]
pub(super) struct Connections<T> {
    open: BTreeMap<u64, OpenConnection<T>>,
    next: u64,
}

#[derive(Debug)]
struct OpenConnection<T> {
    peer: IpAddr,
    /// Whether the request of the connection has arrived.
    request_arrived: Arc<AtomicBool>,
    /// Dropping this value closes the connection.
    _closes: T,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next: 0 }
    }
}

impl<T> Connections<T> {
    /// Takes a slot for a connection of `peer`. Dropping `closes` closes the connection. The
    /// connection sets `request_arrived` when its request has arrived. Returns the ID of the
    /// connection, and the limit because of which another connection was closed, if one was.
    pub(super) fn take(
        &mut self,
        peer: IpAddr,
        request_arrived: Arc<AtomicBool>,
        closes: T,
    ) -> (u64, Option<ConnectionLimit>) {
        let of_peer = self.open.values().filter(|place| place.peer == peer).count();
        let crowded = match (of_peer >= PEER_CONNECTIONS_MAX, self.open.len() >= CONNECTIONS_MAX) {
            (true, _) => Some(ConnectionLimit::Peer),
            (false, true) => Some(ConnectionLimit::All),
            (false, false) => None,
        };
        let may_go = |place: &OpenConnection<T>| match crowded {
            Some(ConnectionLimit::Peer) => place.peer == peer,
            Some(ConnectionLimit::All) => true,
            None => false,
        };
        let candidates = self.open.iter().filter(|(_, place)| may_go(place));
        // Close a connection whose request has not arrived, if there is one. Among several, close
        // the oldest.
        let goes = candidates
            .map(|(id, place)| (place.request_arrived.load(Ordering::Relaxed), *id))
            .min();
        if let Some((_, id)) = goes {
            self.open.remove(&id);
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, OpenConnection { peer, request_arrived, _closes: closes });
        (id, crowded)
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, id: u64) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a slot for a connection whose request has arrived or not.
    fn take(
        places: &mut Connections<()>,
        peer: usize,
        asked: bool,
    ) -> (u64, Option<ConnectionLimit>) {
        let peer = IpAddr::from([10, 0, 0, u8::try_from(peer).unwrap()]);
        places.take(peer, Arc::new(asked.into()), ())
    }

    /// Takes a slot for each client in `taken`, whose request has arrived or not. Returns the
    /// number of open connections, why the last one replaced another, and the IDs of the closed
    /// ones.
    fn after(
        taken: impl IntoIterator<Item = (usize, bool)>,
    ) -> (usize, Option<ConnectionLimit>, Vec<u64>) {
        let mut places = Connections::default();
        let last =
            taken.into_iter().map(|(peer, asked)| take(&mut places, peer, asked)).last().unwrap();
        (
            places.open.len(),
            last.1,
            (0..=last.0).filter(|id| !places.open.contains_key(id)).collect(),
        )
    }

    #[test]
    fn a_client_with_too_many_connections_loses_its_own_oldest_that_has_not_asked() {
        let own = |asked: [bool; PEER_CONNECTIONS_MAX + 1]| {
            [(1, false)].into_iter().chain(asked.map(|asked| (2, asked)))
        };
        let mut asked = [false; PEER_CONNECTIONS_MAX + 1];
        let full = PEER_CONNECTIONS_MAX + 1;
        assert_eq!(after(own(asked)), (full, Some(ConnectionLimit::Peer), vec![1]));
        asked[0] = true;
        assert_eq!(
            after(own(asked)),
            (full, Some(ConnectionLimit::Peer), vec![2]),
            "the first has asked"
        );
        assert_eq!(
            after(own([true; PEER_CONNECTIONS_MAX + 1])),
            (full, Some(ConnectionLimit::Peer), vec![1]),
            "all have asked"
        );
    }

    #[test]
    fn where_all_have_too_many_the_oldest_that_has_not_asked_goes() {
        let all = |asked: usize| (0..=CONNECTIONS_MAX).map(move |number| (number, number < asked));
        assert_eq!(after(all(0)), (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![0]));
        assert_eq!(after(all(3)), (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![3]));
        assert_eq!(
            after(all(CONNECTIONS_MAX)),
            (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![0])
        );
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let mut places = Connections::default();
        for _ in 0..2 * PEER_CONNECTIONS_MAX {
            let (id, crowded) = take(&mut places, 1, false);
            assert_eq!(crowded, None);
            places.remove(id);
        }
        assert_eq!(places.open.len(), 0);
    }
}
