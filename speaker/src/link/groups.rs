//! Memberships of an interface in solicited-node multicast groups (RFC 4291 section 2.7.1). Without
//! them, solicitations for IPv6 addresses do not arrive: the network card filters by group, and MLD
//! reports the groups to snooping switches. One task per interface, started by [`super::LinkSet`],
//! maintains the memberships. The kernel keeps a membership as long as its socket is open.
//!
//! One socket can join a few hundred groups, limited by `net.core.optmem_max`, so a task opens as
//! many sockets as needed. Addresses with the same last three bytes share a group. The kernel needs
//! a third of a second for ten thousand groups, so the task joins them on another thread than the
//! main loop's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::ndp;
use ferrolb_speaker_core::event::Event;
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

/// Maximum number of sockets of one interface: enough for ten thousand groups even with the
/// kernel's smallest limit for a socket.
const SOCKETS_MAX: usize = 64;
/// Time after which a failed join is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Desired multicast memberships of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DesiredGroups {
    /// The addresses for which the interface must receive solicitations.
    pub(super) addresses: Arc<BTreeSet<Ipv6Addr>>,
    /// An IPv6 address of the interface itself. If this address changes, the task joins all groups
    /// again, because the kernel drops all memberships when the last IPv6 address is removed. A
    /// fall of the MTU below 1,280 bytes removes all addresses.
    pub(super) source: Option<Ipv6Addr>,
}

/// Maintains the memberships of an interface until the sender of `wanted` is dropped. Reports the
/// addresses whose group could not be joined, as the event [`Event::GroupsNotJoined`].
pub(super) async fn maintain(
    link: u32,
    name: Box<str>,
    mut wanted: watch::Receiver<DesiredGroups>,
    events: mpsc::Sender<Event>,
) {
    let mut groups = GroupMemberships::new(link);
    // None before the first report, so that the first report is always sent and replaces that of an
    // earlier task.
    let mut reported: Option<Arc<[Ipv6Addr]>> = None;
    loop {
        let latest = wanted.borrow_and_update().clone();
        let joining = spawn_blocking(move || {
            let outcome = groups.apply(&latest);
            (groups, outcome)
        });
        let (memberships, (not_joined, why)) = match joining.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The task was cancelled, because the process ends.
            Err(_) => return,
        };
        groups = memberships;
        let all_joined = not_joined.is_empty();
        if reported.as_ref() != Some(&not_joined) {
            if let Some(why) = why {
                let count = not_joined.len();
                warn!(link = %name, count, %why, "could not join solicited-node multicast groups: \
                                                  neighbor solicitations for these addresses may \
                                                  not reach this interface");
            }
            reported = Some(Arc::clone(&not_joined));
            if events.send(Event::GroupsNotJoined { link, addresses: not_joined }).await.is_err() {
                return;
            }
        }
        let changed = if all_joined {
            Ok(wanted.changed().await)
        } else {
            timeout(RETRY_DELAY, wanted.changed()).await
        };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

/// Current multicast memberships of one interface.
#[derive(Debug)]
struct GroupMemberships {
    index: u32,
    source: Option<Ipv6Addr>,
    sockets: Vec<Socket>,
    /// Joined groups, each with the index of its socket in `sockets`.
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl GroupMemberships {
    const fn new(index: u32) -> Self {
        Self { index, source: None, sockets: Vec::new(), joined: BTreeMap::new() }
    }

    /// Joins the groups of the addresses in `wanted`, and leaves all other groups. Returns the
    /// addresses whose group could not be joined, ascending, and the latest error.
    fn apply(&mut self, wanted: &DesiredGroups) -> (Arc<[Ipv6Addr]>, Option<io::Error>) {
        let rejoin = wanted.source.is_some() && wanted.source != self.source;
        self.source = wanted.source;
        let groups: BTreeSet<Ipv6Addr> =
            wanted.addresses.iter().copied().map(ndp::solicited_node_group).collect();
        let mut why = None;
        for (group, socket_index) in self
            .joined
            .extract_if(.., |group, _| rejoin || !groups.contains(group))
            .collect::<Vec<_>>()
        {
            // This call fails if the interface no longer exists; then the membership does not exist
            // either.
            let _ = self.sockets[socket_index].leave_multicast_v6(&group, self.index);
            // Each group is joined again at once, and not after all groups have been left, so that
            // solicitations are lost only for a moment.
            if groups.contains(&group) {
                why = self.join(group).err().or(why);
            }
        }
        for group in groups {
            if !self.joined.contains_key(&group) {
                why = self.join(group).err().or(why);
            }
        }
        let not_joined =
            |address: &&Ipv6Addr| !self.joined.contains_key(&ndp::solicited_node_group(**address));
        let not_joined = if why.is_some() {
            wanted.addresses.iter().filter(not_joined).copied().collect()
        } else {
            Arc::default()
        };
        (not_joined, why)
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let mut outcome = Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        // The newest socket is most likely to have room for the group. Older sockets, which may
        // have left groups since, are tried only if the newest one is full.
        for socket_index in (0..self.sockets.len()).rev() {
            outcome = self.sockets[socket_index].join_multicast_v6(&group, self.index);
            match &outcome {
                Err(error) if is_full(error) => {}
                Err(_) => return outcome,
                Ok(()) => {
                    self.joined.insert(group, socket_index);
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

/// Returns whether the error means that the socket has no room for another group.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}
