//! The solicited-node groups that a link is in (RFC 4291 section 2.7.1), so that questions for IPv6 addresses reach it: the network
//! card takes them, and MLD tells switches that look. Owned by the link set; the kernel keeps a membership as long as its socket.
//!
//! One socket takes some hundred groups, by `net.core.optmem_max`: there are as many as are needed. Addresses with the same last three
//! bytes have one group.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use ferrolb_proto::wire::ndp;
use socket2::{Domain, Socket, Type};

/// The most sockets for one link: room for ten thousand groups where the kernel gives a socket the least.
const SOCKETS_MAX: usize = 64;

/// What one link is in.
#[derive(Debug)]
pub(super) struct Groups {
    index: u32,
    sockets: Vec<Socket>,
    /// Each group with the place of its socket.
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl Groups {
    pub(super) const fn new(index: u32) -> Self {
        Self { index, sockets: Vec::new(), joined: BTreeMap::new() }
    }

    /// Leaves the groups of all other addresses and joins those of these; the answer is how many groups could not be joined, and why
    /// the last of them.
    pub(super) fn listen_for(&mut self, addresses: &BTreeSet<Ipv6Addr>) -> (usize, Option<io::Error>) {
        let wanted: BTreeSet<Ipv6Addr> = addresses.iter().map(|address| ndp::group(*address)).collect();
        for (group, place) in self.joined.extract_if(.., |group, _| !wanted.contains(group)) {
            // It fails where the link has gone, and the membership with it.
            let _ = self.sockets[place].leave_multicast_v6(&group, self.index);
        }
        let (mut failed, mut why) = (0, None);
        for group in wanted {
            if !self.joined.contains_key(&group)
                && let Err(error) = self.join(group)
            {
                (failed, why) = (failed + 1, Some(error));
            }
        }
        (failed, why)
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let mut outcome = Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        // The last one has room most likely; what others have lost counts only when that is full.
        for place in (0..self.sockets.len()).rev() {
            outcome = self.sockets[place].join_multicast_v6(&group, self.index);
            match &outcome {
                Err(error) if is_full(error) => {}
                Err(_) => return outcome,
                Ok(()) => {
                    self.joined.insert(group, place);
                    return outcome;
                }
            }
        }
        if self.sockets.len() == SOCKETS_MAX {
            return outcome;
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
        socket.join_multicast_v6(&group, self.index)?;
        self.joined.insert(group, self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }
}

/// The socket has no room for another group.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}
