//! The open connections of a listener, and the choice of the connection that is closed to make room
//! for a new one. Pure.
//!
//! A new connection is never refused. Each open connection has a slot. A client that sends its
//! request at once gets a response before its slot is reused. A client that fills the slots with
//! idle connections loses the oldest of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The maximum number of open connections of a listener.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// The maximum number of open connections of one client address. The kubelet needs 5: two probes of
/// the speaker, two probes of gobgpd, and a hook.
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
    /// True after the request of the connection has arrived.
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
        let of_peer = self.open.values().filter(|connection| connection.peer == peer).count();
        let exceeded_limit =
            match (of_peer >= PEER_CONNECTIONS_MAX, self.open.len() >= CONNECTIONS_MAX) {
                (true, _) => Some(ConnectionLimit::Peer),
                (false, true) => Some(ConnectionLimit::All),
                (false, false) => None,
            };
        let may_close = |connection: &OpenConnection<T>| match exceeded_limit {
            Some(ConnectionLimit::Peer) => connection.peer == peer,
            Some(ConnectionLimit::All) => true,
            None => false,
        };
        let candidates = self.open.iter().filter(|(_, connection)| may_close(connection));
        // Close a connection whose request has not arrived, if there is one. Among several, close
        // the oldest.
        let to_close = candidates
            .map(|(id, connection)| (connection.request_arrived.load(Ordering::Relaxed), *id))
            .min();
        if let Some((_, id)) = to_close {
            self.open.remove(&id);
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, OpenConnection { peer, request_arrived, _closes: closes });
        (id, exceeded_limit)
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, id: u64) {
        self.open.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a slot for a connection of client 10.0.0.`peer`.
    fn take(
        connections: &mut Connections<()>,
        peer: usize,
        request_arrived: bool,
    ) -> (u64, Option<ConnectionLimit>) {
        let peer = IpAddr::from([10, 0, 0, u8::try_from(peer).unwrap()]);
        connections.take(peer, Arc::new(request_arrived.into()), ())
    }

    /// Takes a slot for each of these connections, each with its client and whether its request has
    /// arrived. Returns the number of open connections, the limit because of which the last one
    /// replaced another, and the IDs of the closed ones.
    fn after_connections(
        new: impl IntoIterator<Item = (usize, bool)>,
    ) -> (usize, Option<ConnectionLimit>, Vec<u64>) {
        let mut connections = Connections::default();
        let last = new
            .into_iter()
            .map(|(peer, request_arrived)| take(&mut connections, peer, request_arrived))
            .last()
            .unwrap();
        (
            connections.open.len(),
            last.1,
            (0..=last.0).filter(|id| !connections.open.contains_key(id)).collect(),
        )
    }

    #[test]
    fn a_client_above_its_limit_loses_its_oldest_idle_connection() {
        let requests_of_client = |request_arrived: [bool; PEER_CONNECTIONS_MAX + 1]| {
            [(1, false)]
                .into_iter()
                .chain(request_arrived.map(|request_arrived| (2, request_arrived)))
        };
        let mut request_arrived = [false; PEER_CONNECTIONS_MAX + 1];
        let full = PEER_CONNECTIONS_MAX + 1;
        assert_eq!(
            after_connections(requests_of_client(request_arrived)),
            (full, Some(ConnectionLimit::Peer), vec![1])
        );
        request_arrived[0] = true;
        assert_eq!(
            after_connections(requests_of_client(request_arrived)),
            (full, Some(ConnectionLimit::Peer), vec![2]),
            "the request of the first connection has arrived"
        );
        assert_eq!(
            after_connections(requests_of_client([true; PEER_CONNECTIONS_MAX + 1])),
            (full, Some(ConnectionLimit::Peer), vec![1]),
            "the requests of all connections have arrived"
        );
    }

    #[test]
    fn above_the_total_limit_the_oldest_idle_connection_is_closed() {
        let all = |arrived_count: usize| {
            (0..=CONNECTIONS_MAX).map(move |number| (number, number < arrived_count))
        };
        assert_eq!(
            after_connections(all(0)),
            (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![0])
        );
        assert_eq!(
            after_connections(all(3)),
            (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![3])
        );
        assert_eq!(
            after_connections(all(CONNECTIONS_MAX)),
            (CONNECTIONS_MAX, Some(ConnectionLimit::All), vec![0])
        );
    }

    #[test]
    fn an_ended_connection_frees_its_slot() {
        let mut connections = Connections::default();
        for _ in 0..2 * PEER_CONNECTIONS_MAX {
            let (id, exceeded_limit) = take(&mut connections, 1, false);
            assert_eq!(exceeded_limit, None);
            connections.remove(id);
        }
        assert_eq!(connections.open.len(), 0);
    }
}
