//! The solicited-node groups that a link is in (RFC 4291 section 2.7.1), so that questions for IPv6 addresses reach it: the network
//! card takes them, and MLD tells switches that look. One task a link keeps them, started by the link set; the kernel keeps a
//! membership as long as its socket.
//!
//! One socket takes some hundred groups, by `net.core.optmem_max`: there are as many as are needed. Addresses with the same last three
//! bytes have one group. Ten thousand take the kernel a third of a second, so they are joined beside the main loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::ndp;
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::event::Event;

/// The most sockets for one link: room for ten thousand groups where the kernel gives a socket the least.
const SOCKETS_MAX: usize = 64;
/// How long after a group could not be joined it is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// What a link is to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The addresses whose questions it is to hear.
    pub(super) addresses: Arc<BTreeSet<Ipv6Addr>>,
    /// An address of the link's own. With the last one goes all that the link was in, as when its MTU falls below 1,280 bytes.
    pub(super) source: Option<Ipv6Addr>,
}

/// Keeps a link in the groups that are wanted, until nobody wants anything of it. Which addresses it cannot hear goes out as an event.
pub(super) async fn keep(link: u32, name: Box<str>, mut wanted: watch::Receiver<Wanted>, events: mpsc::Sender<Event>) {
    let mut groups = Groups::new(link);
    // What a former task of this link said is forgotten by the first word of this one.
    let mut told: Option<Arc<[Ipv6Addr]>> = None;
    loop {
        let latest = wanted.borrow_and_update().clone();
        let joining = spawn_blocking(move || {
            let outcome = groups.listen_for(&latest);
            (groups, outcome)
        });
        let (kept, (unheard, why)) = match joining.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends.
            Err(_) => return,
        };
        groups = kept;
        let all_heard = unheard.is_empty();
        if told.as_ref() != Some(&unheard) {
            if let Some(why) = why {
                let count = unheard.len();
                warn!(link = %name, count, %why, "IPv6 addresses whose questions may not reach this link: groups not joined");
            }
            told = Some(Arc::clone(&unheard));
            if events.send(Event::Unheard { link, addresses: unheard }).await.is_err() {
                return;
            }
        }
        let changed = if all_heard { Ok(wanted.changed().await) } else { timeout(RETRY_DELAY, wanted.changed()).await };
        if let Ok(Err(_)) = changed {
            return;
        }
    }
}

/// What one link is in.
#[derive(Debug)]
struct Groups {
    index: u32,
    source: Option<Ipv6Addr>,
    sockets: Vec<Socket>,
    /// Each group with the place of its socket.
    joined: BTreeMap<Ipv6Addr, usize>,
}

impl Groups {
    const fn new(index: u32) -> Self {
        Self { index, source: None, sockets: Vec::new(), joined: BTreeMap::new() }
    }

    /// Leaves the groups of all other addresses and joins those of these; the answer is which of them have a group that could not be
    /// joined, ascending, and why the last of those.
    fn listen_for(&mut self, wanted: &Wanted) -> (Arc<[Ipv6Addr]>, Option<io::Error>) {
        let anew = wanted.source.is_some() && wanted.source != self.source;
        self.source = wanted.source;
        let groups: BTreeSet<Ipv6Addr> = wanted.addresses.iter().copied().map(ndp::group).collect();
        let mut why = None;
        for (group, place) in self.joined.extract_if(.., |group, _| anew || !groups.contains(group)).collect::<Vec<_>>()
        {
            // It fails where the link has gone, and the membership with it.
            let _ = self.sockets[place].leave_multicast_v6(&group, self.index);
            // At once, and not when all are left: a question is missed for a moment only.
            if groups.contains(&group) {
                why = self.join(group).err().or(why);
            }
        }
        for group in groups {
            if !self.joined.contains_key(&group) {
                why = self.join(group).err().or(why);
            }
        }
        let unheard = |address: &&Ipv6Addr| !self.joined.contains_key(&ndp::group(**address));
        let unheard =
            if why.is_some() { wanted.addresses.iter().filter(unheard).copied().collect() } else { Arc::default() };
        (unheard, why)
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
