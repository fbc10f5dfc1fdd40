//! Receive queue for ARP, Neighbor Discovery or hello frames: a packet socket with flood limits.
//! The socket also sends the replies. Owned by the interface's thread.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::clock::Clock;
use socket2::SockFilter;
use tracing::warn;

use super::filter;
use super::flood::{BLOCK_LIFETIME, CpuBudget, SourceLimiter};
use super::socket::PacketSocket;
use super::{LinkError, LinkSetup};

/// Minimum time between two log lines about floods of one queue.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Receive queue of one protocol.
#[derive(Debug)]
pub(super) struct RxQueue {
    pub(super) socket: PacketSocket,
    /// True if the latest call of poll(2) found frames to read.
    pub(super) ready: bool,
    /// Number of frames that the current burst has read.
    pub(super) burst: usize,
    index: u32,
    filter: fn(u32) -> Vec<SockFilter>,
    limiter: SourceLimiter,
    log_at: Instant,
}

impl RxQueue {
    /// Opens a socket for frames of `ether_type` that pass `filter`. A host that sends
    /// `frames_per_second_max` or more of them within a second is blocked.
    ///
    /// # Errors
    /// See [`PacketSocket::open`].
    pub(super) fn open(
        index: u32,
        ether_type: u16,
        frames_per_second_max: u32,
        filter: fn(u32) -> Vec<SockFilter>,
    ) -> Result<Self, LinkError> {
        let socket =
            PacketSocket::open(index, ether_type, &filter(index)).map_err(LinkError::Socket)?;
        Ok(Self {
            socket,
            ready: false,
            burst: 0,
            index,
            filter,
            limiter: SourceLimiter::new(frames_per_second_max),
            log_at: Instant::ZERO,
        })
    }

    /// Starts a burst of reads, and unblocks the sources whose block has expired. Returns whether
    /// frames are queued at `now` and the budget allows reading them.
    ///
    /// # Errors
    /// If the kernel rejects a filter.
    pub(super) fn begin_burst(
        &mut self,
        now: Instant,
        budget: &mut CpuBudget,
        exempt: impl Iterator<Item = Mac>,
    ) -> Result<bool, LinkError> {
        let open = budget.is_open(now);
        self.burst = 0;
        if self.limiter.expire(now) {
            self.update_filter(exempt)?;
        }
        Ok(open && self.ready)
    }

    /// Reads one frame, as [`PacketSocket::receive`] does.
    ///
    /// # Errors
    /// See [`PacketSocket::receive`].
    pub(super) fn receive<'a>(
        &mut self,
        buffer: &'a mut [u8],
    ) -> Result<Option<&'a [u8]>, LinkError> {
        let frame = self.socket.receive(buffer).map_err(LinkError::InterfaceDown)?;
        self.burst += usize::from(frame.is_some());
        if let Some(source) = frame.and_then(|frame| frame.get(6..12)?.try_into().ok()) {
            self.limiter.count(Mac(source));
        }
        Ok(frame)
    }

    /// Ends a burst that began at `start`. Blocks a source that sends too many frames. If all
    /// sources together exceed the budget, frames are read less often, and if that is not enough,
    /// only a sample is read. The sources `exempt` are neither blocked nor sampled.
    ///
    /// # Errors
    /// If the kernel rejects a filter.
    pub(super) fn end_burst(
        &mut self,
        start: Instant,
        budget: &mut CpuBudget,
        exempt: impl Iterator<Item = Mac> + Clone,
        link: &LinkSetup,
    ) -> Result<(), LinkError> {
        let now = Clock::now();
        let exhausted = budget.charge(start, now);
        if exhausted {
            self.limiter.raise_level(now);
        }
        let blocked = self.limiter.block(now, |mac| exempt.clone().any(|other| other == mac));
        if blocked {
            self.log_flood(now, link);
        }
        if exhausted || blocked { self.update_filter(exempt) } else { Ok(()) }
    }

    /// Returns whether reading must pause whenever all frames have been read.
    pub(super) fn backs_off(&self) -> bool {
        self.limiter.backs_off()
    }

    fn log_flood(&mut self, now: Instant, link: &LinkSetup) {
        link.metrics.floods.inc();
        if now >= self.log_at {
            self.log_at = now + LOG_INTERVAL;
            let hosts: Vec<_> = self.limiter.blocked().map(|mac| mac.to_string()).collect();
            let (hosts, seconds) = (hosts.join(" "), BLOCK_LIFETIME.as_secs());
            let (link, limit) = (&link.name, self.limiter.frames_per_second_max());
            warn!(%link, hosts, seconds, limit, "flood: frames of hosts that exceed the limit are \
                                                dropped for a while");
        }
    }

    /// Returns the time at which [`RxQueue::begin_burst`] must be called. None: no block or limit
    /// has to end.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.limiter.deadline()
    }

    fn update_filter(&self, exempt: impl Iterator<Item = Mac>) -> Result<(), LinkError> {
        let (blocked, sampling_shift) = (self.limiter.blocked(), self.limiter.sampling_shift());
        let filter =
            filter::with_blocked(blocked, exempt, sampling_shift, (self.filter)(self.index));
        self.socket.set_filter(&filter).map_err(LinkError::Socket)
    }
}
