//! Where frames of ARP, of Neighbor Discovery or of other speakers come in and answers go out: a
//! packet socket, and a guard against floods. Owned by the link's thread.

use std::io;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::clock::Clock;
use socket2::SockFilter;
use tracing::warn;

use super::Setup;
use super::filter;
use super::flood::{BLOCK_LIFETIME, Guard, Quota};
use super::socket::PacketSocket;

/// How often the log is told of a flood, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// One protocol's way in.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) socket: PacketSocket,
    /// The last wait found something to read.
    pub(super) ready: bool,
    /// How many frames this turn's burst has read.
    pub(super) burst: usize,
    index: u32,
    filter: fn(u32) -> Vec<SockFilter>,
    guard: Guard,
    log_at: Instant,
}

impl Inlet {
    /// Opens a socket for frames of `ether_type` that pass `filter`. A host that sends more than
    /// `most` of them per second is blocked.
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub(super) fn open(index: u32, ether_type: u16, most: u32, filter: fn(u32) -> Vec<SockFilter>) -> io::Result<Self> {
        let socket = PacketSocket::open(index, ether_type, &filter(index))?;
        Ok(Self { socket, ready: false, burst: 0, index, filter, guard: Guard::new(most), log_at: Instant::ZERO })
    }

    /// Whether there is something to read at `now`, and it may be read.
    ///
    /// # Errors
    /// When the kernel does not take a filter.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        quota: &mut Quota,
        spared: impl Iterator<Item = Mac>,
    ) -> io::Result<bool> {
        let open = quota.is_open(now);
        self.burst = 0;
        if self.guard.release(now) {
            self.block(spared)?;
        }
        Ok(open && self.ready)
    }

    /// Reads one frame, as [`PacketSocket::receive`] does.
    ///
    /// # Errors
    /// As there.
    pub(super) fn receive<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let frame = self.socket.receive(buffer)?;
        self.burst += usize::from(frame.is_some());
        if let Some(source) = frame.and_then(|frame| frame.get(6..12)?.try_into().ok()) {
            self.guard.note(Mac(source));
        }
        Ok(frame)
    }

    /// A burst was read since `start`. A source that sends too much is blocked; where all together
    /// are too much, frames are read less often, and then in part. Neither concerns the sources
    /// `spared`.
    ///
    /// # Errors
    /// When the kernel does not take a filter.
    pub(super) fn end(
        &mut self,
        start: Instant,
        quota: &mut Quota,
        spared: impl Iterator<Item = Mac> + Clone,
        link: &Setup,
    ) -> io::Result<()> {
        let now = Clock::now();
        let too_much = quota.spend(start, now);
        if too_much {
            self.guard.tighten(now);
        }
        let blocked = self.guard.block(now, |mac| spared.clone().any(|other| other == mac));
        if blocked {
            self.say_flood(now, link);
        }
        if too_much || blocked { self.block(spared) } else { Ok(()) }
    }

    /// Whether reading is to rest.
    pub(super) fn rests(&self) -> bool {
        self.guard.rests()
    }

    fn say_flood(&mut self, now: Instant, link: &Setup) {
        link.metrics.floods.inc();
        if now >= self.log_at {
            self.log_at = now + LOG_INTERVAL;
            let hosts: Vec<_> = self.guard.blocked().map(|mac| mac.to_string()).collect();
            let (hosts, seconds) = (hosts.join(" "), BLOCK_LIFETIME.as_secs());
            let (link, most) = (&link.name, self.guard.most());
            warn!(%link, hosts, seconds, most, "a flood: hosts that send more frames in a second are not heard for a while");
        }
    }

    /// When [`Inlet::begin`] has to be asked again, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.guard.deadline()
    }

    fn block(&self, spared: impl Iterator<Item = Mac>) -> io::Result<()> {
        let (blocked, thin) = (self.guard.blocked(), self.guard.thin());
        self.socket.filter(&filter::without(blocked, spared, thin, (self.filter)(self.index)))
    }
}
