//! Failure detection of one peer: the peer is suspected after missed hellos, and declared failed
//! after challenges without a response. Part of the membership of one interface.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::PathReport;

/// Interval between the challenges to a suspected peer.
const CHALLENGE_EVERY: Duration = Duration::from_millis(15);
/// Number of intervals between two challenges after the time of a failure detection.
const CHECKS_PER_CHALLENGE: u32 = 4;
/// Time after the start of a suspicion during which a loss of frames in the kernel restarts the
/// suspicion.
const DROPPED_FRAMES_WINDOW: Duration = Duration::from_secs(1);
/// Time from the start of a suspicion until the peer is declared failed, if no frame of the peer
/// arrives. The last part of each detection time.
pub(super) const FAILURE_DELAY: Duration = Duration::from_millis(40);
/// The same for a peer that was unheard. It is longer, because this peer reports by the second path
/// alone.
const FAILURE_DELAY_UNHEARD: Duration = Duration::from_millis(120);
/// Time that is added to these delays if a report of the peer has arrived and a further one may
/// follow.
const REPORT_DELAY: Duration = Duration::from_millis(20);
/// Time in which a frame should arrive on the segment after other evidence of it.
const FRAME_DELAY: Duration = Duration::from_millis(20);
/// Time for which announcements with the MAC of a failed peer are ignored, after the peer has not
/// replied to a challenge. Another host may have forged them.
const FORGERY_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the state of a failed peer is kept, counted from the latest sign of life. If the
/// peer returns later, it must pass a challenge, like a newcomer.
const FAILED_PEER_LIFETIME: Duration = Duration::from_secs(3_600);

/// Suspicion that a peer has failed: one round of challenges. An unheard peer is always under
/// suspicion, and between two rounds no challenge has been sent.
#[derive(Debug)]
struct Suspicion {
    /// Start of the suspicion.
    began: Instant,
    /// Start of the round.
    since: Instant,
    next: Instant,
    challenges: u32,
    /// Nonce of the challenges of the round.
    nonce: u64,
    arp_replied: bool,
    /// Latest report of the peer by the second path.
    report: Option<PathReport>,
    /// Address that a failed peer has announced, although this node owns it.
    announced: Option<IpAddr>,
}

impl Suspicion {
    const fn new(nonce: u64, at: Instant) -> Self {
        Self {
            began: at,
            since: at,
            next: at,
            challenges: 0,
            nonce,
            arp_replied: false,
            report: None,
            announced: None,
        }
    }

    /// Returns whether a round of challenges is in progress.
    const fn is_open(&self) -> bool {
        self.challenges > 0
    }

    /// Returns the time at which the round ends, if the peer has sent no frame.
    fn end(&self, is_unheard: bool) -> Instant {
        let report = if self.report.is_some() { REPORT_DELAY } else { Duration::ZERO };
        self.since + failure_delay(is_unheard) + report
    }

    /// Returns whether the peer has proved that it exchanges frames with the segment.
    fn proves_exchange(&self) -> bool {
        self.report.is_some_and(|report| report.proves_exchange(self.arp_replied))
    }
}

/// Returns the duration of a round of challenges to a peer that sends nothing.
const fn failure_delay(is_unheard: bool) -> Duration {
    if is_unheard { FAILURE_DELAY_UNHEARD } else { FAILURE_DELAY }
}

/// Evidence that this node receives frames at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reception {
    /// Time at which the latest frame of any kind was received.
    pub(super) last_frame: Instant,
    /// True if this node acts as if it were alone, because it has received nothing for long.
    pub(super) may_be_alone: bool,
}

/// Challenge to a suspected peer.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) nonce: u64,
    pub(super) announced: Option<IpAddr>,
    /// See [`MemberEffect::Probe`](super::MemberEffect::Probe).
    pub(super) prefers_announced: bool,
    /// True if this node has received no frame at all since the start of the round.
    pub(super) received_nothing: bool,
}

/// Result of a check of a suspected peer.
#[derive(Debug)]
pub(super) enum SuspicionCheck {
    /// The suspicion continues.
    Open {
        /// True if the suspicion has just begun.
        is_new: bool,
        challenge: Option<Challenge>,
    },
    /// The peer exchanges frames with the segment, but they do not arrive at this node.
    Unheard,
    Failed,
}

/// Round of challenges that has ended with a failure.
#[derive(Debug)]
pub(super) struct FailedRound {
    /// True if the peer had been declared failed before, and remains so.
    pub(super) was_failed: bool,
    /// True if a device has replied to ARP for the peer.
    pub(super) arp_replied: bool,
    /// Address that the peer had announced, if that was the reason of the round.
    pub(super) announced: Option<IpAddr>,
}

/// Failure detector of one peer.
#[derive(Debug)]
pub(super) struct Liveness {
    /// Time after its latest frame before which the peer is not declared failed.
    detection_time: Duration,
    /// True if the peer was declared failed. Its state is kept, so that replayed frames of the peer
    /// are detected as stale.
    failed: bool,
    /// True if the peer is alive, but its frames do not arrive on the segment (see
    /// [`super::second_path`]). Then it is not `failed`, and under suspicion.
    unheard: bool,
    /// Time of the latest frame of the peer on the segment.
    last_frame: Instant,
    /// Time of the latest frame, accepted copy of a frame, or proof that the peer is unheard.
    last_seen: Instant,
    suspicion: Option<Suspicion>,
    /// Time at which the failed peer did not reply to challenges that its announcement had caused.
    silent_at: Option<Instant>,
}

impl Liveness {
    pub(super) const fn new(detection_time: Duration, now: Instant) -> Self {
        Self {
            detection_time,
            failed: false,
            unheard: false,
            last_frame: now,
            last_seen: now,
            suspicion: None,
            silent_at: None,
        }
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) const fn is_unheard(&self) -> bool {
        self.unheard
    }

    pub(super) const fn last_frame(&self) -> Instant {
        self.last_frame
    }

    pub(super) const fn last_seen(&self) -> Instant {
        self.last_seen
    }

    pub(super) const fn is_suspected(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Returns whether a round of challenges is in progress.
    pub(super) fn is_challenged(&self) -> bool {
        self.suspicion.as_ref().is_some_and(Suspicion::is_open)
    }

    /// Returns whether the peer is challenged with this nonce, because it is suspected.
    pub(super) fn is_challenged_with(&self, nonce: u64) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.nonce == nonce)
    }

    /// Returns the time of the next check.
    pub(super) fn deadline(&self) -> Instant {
        match &self.suspicion {
            Some(suspicion) => suspicion.next,
            None if self.failed => self.last_seen + FAILED_PEER_LIFETIME,
            None => self.last_frame + self.detection_time.saturating_sub(FAILURE_DELAY),
        }
    }

    /// Records a frame of the peer on the segment, which carries this detection time. Returns
    /// whether the frame has ended a round of challenges.
    pub(super) fn on_frame(&mut self, detection_time: Duration, now: Instant) -> bool {
        let refutes = self.is_challenged();
        *self = Self { silent_at: self.silent_at, ..Self::new(detection_time, now) };
        refutes
    }

    /// Records an accepted copy of a frame, which carries this detection time.
    pub(super) const fn on_copy(&mut self, detection_time: Duration, now: Instant) {
        (self.detection_time, self.last_seen) = (detection_time, now);
    }

    pub(super) fn on_arp_reply(&mut self) {
        if let Some(suspicion) = self.suspicion.as_mut().filter(|suspicion| suspicion.is_open()) {
            suspicion.arp_replied = true;
        }
    }

    /// Handles a report by which the peer responds to a challenge of this node. Returns whether the
    /// next check is due at once.
    pub(super) fn on_report(&mut self, nonce: u64, report: PathReport, now: Instant) -> bool {
        let Some(suspicion) = self.suspicion.as_mut().filter(|it| it.nonce == nonce) else {
            return false;
        };
        suspicion.report = Some(suspicion.report.unwrap_or_default().merged_with(report));
        let is_due = (self.unheard || self.failed) && suspicion.proves_exchange();
        if is_due {
            suspicion.next = now;
        }
        is_due
    }

    /// Restarts the suspicion, because the kernel dropped frames that may have come from the peer.
    /// A suspicion older than [`DROPPED_FRAMES_WINDOW`] continues, so that a flood cannot hide the
    /// failure of a peer. Returns whether the suspicion was restarted.
    pub(super) fn restart(&mut self, now: Instant) -> bool {
        let is_recent =
            |it: &&mut Suspicion| it.is_open() && now.since(it.began) < DROPPED_FRAMES_WINDOW;
        let Some(suspicion) = self.suspicion.as_mut().filter(is_recent) else { return false };
        (suspicion.since, suspicion.next, suspicion.challenges) = (now, now, 0);
        true
    }

    /// Begins a suspicion, whose first check is due at once.
    pub(super) fn suspect(&mut self, nonce: u64, now: Instant) {
        self.suspicion = Some(Suspicion::new(nonce, now));
    }

    /// Suspects the live peer although none of its hellos is missing yet, unless a frame of the
    /// peer arrives within [`FRAME_DELAY`]. Returns whether it did.
    pub(super) fn suspect_heard(&mut self, nonce: u64, now: Instant) -> bool {
        let suspects = !self.failed && self.suspicion.is_none();
        if suspects {
            self.suspicion = Some(Suspicion::new(nonce, now + FRAME_DELAY));
        }
        suspects
    }

    /// Suspects that the failed peer is alive, because it has announced an address which this node
    /// owns. After a round without a reply, further announcements are ignored for
    /// [`FORGERY_INTERVAL`]. Returns whether a new round begins.
    pub(super) fn suspect_alive(&mut self, address: IpAddr, nonce: u64, now: Instant) -> bool {
        let is_due = self.silent_at.is_none_or(|at| now.since(at) >= FORGERY_INTERVAL);
        let begins = self.suspicion.is_none() && is_due;
        if begins {
            let announced = Some(address);
            self.suspicion = Some(Suspicion { announced, ..Suspicion::new(nonce, now) });
        }
        begins
    }

    /// Checks the peer under a suspicion, which begins if there is none. An owner is not declared
    /// failed before its stated time, whatever caused the suspicion. Returns `None` if no check is
    /// due.
    pub(super) fn check(
        &mut self,
        nonce: u64,
        is_owner: bool,
        reception: Reception,
        now: Instant,
    ) -> Option<SuspicionCheck> {
        let is_first = !(self.unheard || self.failed);
        let suspicion = self.suspicion.get_or_insert_with(|| Suspicion::new(nonce, now));
        if now < suspicion.next {
            return None;
        }
        if suspicion.proves_exchange()
            && (!is_first || now >= suspicion.since + failure_delay(self.unheard))
        {
            return Some(SuspicionCheck::Unheard);
        }
        // If no frame at all arrives, the receive path of this node may have failed.
        let received_nothing = reception.last_frame < suspicion.since;
        let proves_nothing = received_nothing && !reception.may_be_alone;
        let round_end = suspicion.end(self.unheard);
        let stated_end = self.last_seen + self.detection_time;
        let end = if is_owner { round_end.max(stated_end) } else { round_end };
        if now >= end && !proves_nothing {
            return Some(SuspicionCheck::Failed);
        }
        let is_new = suspicion.challenges == 0 && is_first;
        suspicion.challenges += 1;
        let next = now + CHALLENGE_EVERY;
        suspicion.next = if now < end { next.min(end) } else { next };
        // If this node receives nothing, it challenges less often, but checks just as often whether
        // a witness has replied.
        let is_over = now >= suspicion.since + FAILURE_DELAY;
        let is_due = !is_over || suspicion.challenges.is_multiple_of(CHECKS_PER_CHALLENGE);
        let challenge = is_due.then_some(Challenge {
            nonce: suspicion.nonce,
            announced: suspicion.announced,
            // The peer may have released the addresses that it claimed when it was last heard.
            prefers_announced: suspicion.challenges.is_multiple_of(2),
            received_nothing,
        });
        Some(SuspicionCheck::Open { is_new, challenge })
    }

    /// Records that the peer is unheard. The next round of challenges begins at `next`.
    pub(super) fn on_unheard(&mut self, nonce: u64, next: Instant, now: Instant) {
        self.suspicion = Some(Suspicion::new(nonce, next));
        self.last_seen = now;
        (self.failed, self.unheard) = (false, true);
    }

    /// Declares the peer failed, or lets it remain so.
    pub(super) fn fail(&mut self, now: Instant) -> FailedRound {
        let suspicion = self.suspicion.take();
        let arp_replied = suspicion.as_ref().is_some_and(|suspicion| suspicion.arp_replied);
        let announced = suspicion.and_then(|suspicion| suspicion.announced);
        let was_failed = self.failed;
        if was_failed {
            self.silent_at = Some(now).filter(|_| !arp_replied);
        }
        (self.failed, self.unheard) = (true, false);
        FailedRound { was_failed, arp_replied, announced }
    }
}
