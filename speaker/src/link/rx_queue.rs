//! Receive queue for ARP, Neighbor Discovery or hello frames: a packet socket with flood limits.
//! The socket also sends the replies. Owned by the interface's thread.

use std::time::Duration;
use std::{io, iter};

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::clock::Clock;
use tracing::warn;

use super::filter::{self, Instruction};
use super::flood::{BLOCK_LIFETIME, CpuBudget, SourceLimiter};
use super::socket::PacketSocket;
use super::{LinkError, LinkSetup};

/// Minimum time between two log lines about floods of one queue.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of frames read from one socket before deadlines and other sockets are handled.
pub(super) const BURST_MAX: usize = 64;

/// Receive queue of one protocol.
#[derive(Debug)]
pub(super) struct RxQueue {
    pub(super) socket: PacketSocket,
    /// True if the latest call of poll(2) found frames to read. A paused queue is not polled.
    pub(super) ready: bool,
    /// Number of frames that the current burst has read.
    pub(super) burst: usize,
    /// Start of the current burst.
    pub(super) burst_start: Instant,
    /// BPF program that examines the frames of sources that are not blocked.
    program: Vec<Instruction>,
    pub(super) limiter: SourceLimiter,
    log_at: Instant,
}

impl RxQueue {
    /// Opens a socket for frames of `ether_type` that pass `program`.
    ///
    /// # Errors
    /// See [`PacketSocket::open`].
    pub(super) fn open(
        index: u32,
        ether_type: u16,
        limiter: SourceLimiter,
        program: Vec<Instruction>,
    ) -> Result<Self, LinkError> {
        let socket = PacketSocket::open(index, ether_type, &program).map_err(LinkError::Socket)?;
        let (burst_start, log_at) = (Instant::ZERO, Instant::ZERO);
        Ok(Self { socket, ready: false, burst: 0, burst_start, program, limiter, log_at })
    }

    /// Replaces the program. The flood limits remain.
    ///
    /// # Errors
    /// The kernel's error, such as ENOMEM. The previous program then remains.
    pub(super) fn set_program(&mut self, program: Vec<Instruction>) -> io::Result<()> {
        self.attach(&program, iter::empty())?;
        self.program = program;
        Ok(())
    }

    /// Starts a burst of reads, and ends flood limits that have expired. The sources `exempt` are
    /// neither blocked nor sampled. Returns whether frames may be read.
    ///
    /// # Errors
    /// If the kernel rejects a filter.
    pub(super) fn begin_burst(
        &mut self,
        exempt: impl Iterator<Item = Mac>,
    ) -> Result<bool, LinkError> {
        (self.burst, self.burst_start) = (0, Clock::now());
        if self.limiter.expire(self.burst_start) {
            self.attach(&self.program, exempt).map_err(LinkError::Socket)?;
        }
        Ok(self.ready)
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

    /// Ends a burst: updates the flood limits, and pauses reading during a flood. The sources
    /// `exempt` are neither blocked nor sampled.
    ///
    /// # Errors
    /// If the kernel rejects a filter.
    pub(super) fn end_burst(
        &mut self,
        budget: &mut CpuBudget,
        exempt: impl Iterator<Item = Mac> + Clone,
        link: &LinkSetup,
    ) -> Result<(), LinkError> {
        let (now, all_read) = (Clock::now(), self.burst < BURST_MAX);
        let burst = (self.burst_start, now);
        if self.limiter.end_burst(budget, burst, all_read, exempt.clone()) {
            // The level is 0 if a source was blocked.
            if self.limiter.level == 0 {
                self.log_flood(now, link);
            }
            self.attach(&self.program, exempt).map_err(LinkError::Socket)?;
        }
        Ok(())
    }

    fn log_flood(&mut self, now: Instant, link: &LinkSetup) {
        link.metrics.floods.inc();
        if now >= self.log_at {
            self.log_at = now + LOG_INTERVAL;
            let hosts = self.limiter.blocked.iter().flatten();
            let hosts: Vec<_> = hosts.map(ToString::to_string).collect();
            let (hosts, link, seconds) = (hosts.join(" "), &link.name, BLOCK_LIFETIME.as_secs());
            warn!(%link, hosts, seconds, limit = self.limiter.frames_per_second_max, "flood: frames \
                  of hosts that exceed the limit are dropped for a while");
        }
    }

    /// Attaches a program, preceded by the flood limits.
    fn attach(&self, program: &[Instruction], exempt: impl Iterator<Item = Mac>) -> io::Result<()> {
        let blocked = self.limiter.blocked.iter().flatten().copied();
        let sampling_shift = self.limiter.sampling_shift();
        self.socket.set_filter(&filter::limited(blocked, exempt, sampling_shift, program))
    }
}
