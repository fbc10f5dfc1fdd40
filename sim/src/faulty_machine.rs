//! The real claim machine of one process. A deliberate defect of its inputs or outputs can be
//! added, to verify that the checker detects the defect.

use ferrolb_core::Machine;
use ferrolb_core::election::{Candidate, Unit};
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{
    ADDRESSES_PER_FRAME_MAX, Body, Claim, ClaimRank, ClaimSetSummary, Frame, Stretch,
};
use ferrolb_speaker_core::claim::{
    ClaimConfig, ClaimCounters, ClaimMachine, Input, LISTEN_PHASE, Output,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::detection_times::calm_time;
use super::stated_leases::StatedLeases;

/// Delay of the deadlines of a machine with [`Defect::Late`].
const LATE_DELAY: Duration = Duration::from_millis(150);
/// Detection time that a machine with [`Defect::StatesLongDetectionTime`] states.
pub(super) const LONG_DETECTION_TIME: Duration = Duration::from_secs(60);
/// Maximum detection time that a machine with [`Defect::HidesDetectionTime`] states.
const CALM_DETECTION_TIME: Duration = Duration::from_millis(190);
/// Maximum time for which a machine with [`Defect::WaitsOneSecond`] waits.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// A deliberate defect. The claim machine is the real one; the defect changes its inputs or
/// outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Defect {
    /// Ignores the answer lease: the node replies even if its own most recent hello is too old.
    IgnoresAnswerLease,
    /// Does not receive other nodes' claims for units that it owns, so that it never yields.
    NeverYields,
    /// Detects failures by silence alone: its challenges to members are dropped.
    NeverChallenges,
    /// Claims right after its start, without the listen phase.
    NeverListens,
    /// Releases units silently: its RELEASE frames are dropped, and its later frames describe a
    /// claim set that still contains the units.
    NeverReleases,
    /// Does not receive other nodes' clock values, so that it does not detect a pause that stopped
    /// its own clock.
    IgnoresPeerClocks,
    /// Describes an empty claim set in all its frames.
    RestatesNothing,
    /// Replies to requests for units that it has released.
    NeverStops,
    /// Handles every deadline 150 ms too late.
    Late,
    /// Does not repeat its announcement of an address after another host has claimed or announced
    /// it.
    DefendsWithoutAnnouncing,
    /// Is informed at every deadline that its interface has received a frame, even if there was
    /// none, so that it never becomes isolated.
    NeverIsolated,
    /// Omits from its claims the preempt delays of the addresses.
    OmitsKeepTimes,
    /// Does not receive the information that health checks fail on its own node.
    HidesFailures,
    /// Does not receive the information that its own node is cordoned.
    IgnoresOwnCordon,
    /// Does not receive the frames of foreign hosts that use an address.
    IgnoresForeignHosts,
    /// Neither states a detection time nor receives those of others, as an earlier version.
    StatesNoDetectionTime,
    /// States a detection time of one minute.
    StatesLongDetectionTime,
    /// Waits for a detection time of its own that it has never stated: its frames state that of a
    /// calm node.
    HidesDetectionTime,
    /// Shortens its answer lease only with the fourth frame that states a shorter detection time.
    ShortensLeaseLate,
    /// Waits for its own detection time although a node of an earlier version does not.
    IgnoresEarlierVersions,
    /// Waits for a busy node for twice the time that this node states.
    WaitsTooLong,
    /// Waits for at most a second, whatever other nodes state.
    WaitsOneSecond,
    /// Does not receive any more, once it has fenced itself, that other nodes are unhealthy.
    IgnoresHealthAfterFence,
}

/// A claim machine, and its defect if it has one.
pub(super) struct FaultyMachine {
    name: Box<str>,
    claims: ClaimMachine,
    defect: Option<Defect>,
    /// Addresses that the node has claimed, and never releases with [`Defect::NeverReleases`].
    stated: BTreeMap<IpAddr, ClaimRank>,
    /// Number of CLAIM frames that added addresses to `stated`.
    stated_changes: u32,
    /// Most recent clock value that [`Defect::IgnoresPeerClocks`] has written into a received
    /// frame.
    clock: u64,
    owned: BTreeSet<IpAddr>,
    /// Node name for each source MAC of received frames.
    node_names: BTreeMap<Mac, Box<str>>,
    stated_leases: StatedLeases,
}

impl FaultyMachine {
    /// Creates a claim machine that starts to listen at `now`.
    pub(super) fn new(
        config: ClaimConfig,
        now: Instant,
        keys: Vec<u32>,
        defect: Option<Defect>,
    ) -> Self {
        let mut start = now;
        if defect == Some(Defect::NeverListens) {
            start =
                Instant::from_nanos(now.as_nanos().saturating_sub(LISTEN_PHASE.as_nanos() as u64));
        }
        let name = (*config.node).into();
        let mut claims = ClaimMachine::new(config, start);
        claims.handle(Input::Keys(keys), start);
        Self {
            name,
            claims,
            defect,
            stated: BTreeMap::new(),
            stated_changes: 0,
            clock: 0,
            owned: BTreeSet::new(),
            node_names: BTreeMap::new(),
            stated_leases: StatedLeases::default(),
        }
    }

    pub(super) fn handle(&mut self, mut input: Input, now: Instant) {
        if self.defect == Some(Defect::IgnoresForeignHosts)
            && matches!(input, Input::ForeignFrame { .. })
        {
            return;
        }
        if let Input::Datagram(frame) | Input::Frame { frame, .. } = &mut input {
            self.alter_received_time(frame);
        }
        if let (Some(_), Input::Frame { source, frame }) = (self.defect, &mut input) {
            self.node_names.entry(*source).or_insert_with(|| frame.node.clone());
            self.alter_input(frame, now);
        }
        if let Input::Units { changed, .. } = &mut input {
            for unit in changed {
                match self.defect {
                    Some(Defect::IgnoresOwnCordon) => *unit = self.without_own_cordon(unit),
                    Some(Defect::HidesFailures) => Arc::make_mut(unit).failing = false,
                    _ => {}
                }
            }
        }
        self.claims.handle(input, now);
    }

    fn without_own_cordon(&self, unit: &Unit) -> Arc<Unit> {
        let mut unit = unit.clone();
        let is_own = |candidate: &&mut Candidate| *candidate.node == *self.name;
        for own in Arc::make_mut(&mut unit.candidates).iter_mut().filter(is_own) {
            own.cordoned = false;
        }
        Arc::new(unit)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.defect == Some(Defect::NeverIsolated) {
            self.claims.handle(Input::FrameReceived, now);
        }
        self.claims.tick(now);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        loop {
            let mut output = self.claims.poll()?;
            if self.alter_output(&mut output) {
                return Some(output);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let delay = if self.defect == Some(Defect::Late) { LATE_DELAY } else { Duration::ZERO };
        Some(self.claims.deadline()? + delay)
    }

    pub(super) fn answer_lease(&self) -> Instant {
        if self.defect == Some(Defect::IgnoresAnswerLease) {
            Instant::from_nanos(u64::MAX)
        } else {
            self.stated_leases.end(self.defect, self.claims.members().own().answer_lease_end())
        }
    }

    pub(super) const fn counts(&self) -> ClaimCounters {
        self.claims.counts()
    }

    fn receives_from(&self, mac: Mac) -> bool {
        self.node_names
            .get(&mac)
            .is_some_and(|name| self.claims.members().peers().live().any(|peer| *peer == **name))
    }

    fn alter_input(&mut self, frame: &mut Frame, now: Instant) {
        match self.defect {
            Some(Defect::NeverYields) => {
                if let Body::Claim(claims) | Body::List(Stretch { claims, .. }) = &mut frame.body {
                    claims.retain(|claim| !self.owned.contains(&claim.address));
                }
            }
            Some(Defect::IgnoresPeerClocks) => {
                self.clock = now.as_nanos().max(self.clock + 1);
                frame.clock = self.clock;
            }
            Some(Defect::IgnoresHealthAfterFence) => {
                frame.flags.unhealthy &= self.claims.counts().fences == 0;
            }
            _ => {}
        }
    }

    /// Applies the defect to the detection time in a received frame.
    fn alter_received_time(&self, frame: &mut Frame) {
        let calm = calm_time(frame);
        let time = &mut frame.detection_time;
        match self.defect {
            Some(Defect::StatesNoDetectionTime) => *time = None,
            Some(Defect::IgnoresEarlierVersions) => *time = time.or(Some(calm)),
            Some(Defect::WaitsTooLong) => {
                *time = time.map(|time| if time > calm { time * 2 } else { time });
            }
            Some(Defect::WaitsOneSecond) => *time = time.map(|time| time.min(SHORT_WAIT)),
            _ => {}
        }
    }

    /// Applies the defect to an output, and returns false if the output must be dropped.
    fn alter_output(&mut self, output: &mut Output) -> bool {
        match output {
            Output::Start(address) => {
                self.owned.insert(*address);
            }
            Output::Stop(address) => {
                self.owned.remove(address);
                return self.defect != Some(Defect::NeverStops);
            }
            Output::AnnounceSeries(_) | Output::Defend(_) => {
                return self.defect != Some(Defect::DefendsWithoutAnnouncing);
            }
            Output::Send { to, frame, .. } => {
                self.stated_leases.record(frame);
                return self.alter_frame(*to, frame);
            }
            Output::SendDatagram { frame, .. } => return self.alter_frame(None, frame),
            Output::Moved(_)
            | Output::LivenessProbe { .. }
            | Output::ArpProbe(_)
            | Output::ProbeNeighbors
            | Output::Finished => {}
        }
        true
    }

    fn alter_frame(&mut self, to: Option<Mac>, frame: &mut Frame) -> bool {
        match (self.defect, &mut frame.body) {
            (Some(Defect::StatesNoDetectionTime), _) => {
                frame.detection_time = None;
                true
            }
            (Some(Defect::StatesLongDetectionTime), _) => {
                frame.detection_time = Some(LONG_DETECTION_TIME);
                true
            }
            (Some(Defect::HidesDetectionTime), _) => {
                frame.detection_time = frame.detection_time.min(Some(CALM_DETECTION_TIME));
                true
            }
            (
                Some(Defect::OmitsKeepTimes),
                Body::Claim(claims) | Body::List(Stretch { claims, .. }),
            ) => {
                claims.iter_mut().for_each(|claim| claim.preempt_delay = Duration::ZERO);
                true
            }
            // Challenges to unknown nodes must pass: otherwise no node would accept any other as a
            // member.
            (Some(Defect::NeverChallenges), Body::Challenge { .. }) => {
                !to.is_some_and(|mac| self.receives_from(mac))
            }
            (Some(Defect::NeverReleases), _) => self.hide_releases(frame),
            (Some(Defect::RestatesNothing), _) => {
                let counter = frame.claim_set.counter;
                frame.claim_set = ClaimSetSummary { counter, ..ClaimSetSummary::default() };
                true
            }
            _ => true,
        }
    }

    /// Adds the released addresses to the claim set in a frame. Returns false if the frame must be
    /// dropped.
    fn hide_releases(&mut self, frame: &mut Frame) -> bool {
        match &mut frame.body {
            Body::Release { .. } => return false,
            Body::Claim(claims) => {
                let before = self.stated.clone();
                self.stated.extend(claims.iter().map(|claim| (claim.address, claim.rank)));
                self.stated_changes += u32::from(self.stated != before);
            }
            Body::List(stretch) => {
                let room = ADDRESSES_PER_FRAME_MAX.saturating_sub(stretch.claims.len());
                let is_hidden =
                    |address: &IpAddr| stretch.contains(address) && !self.owned.contains(address);
                let hidden = self.stated.iter().filter(|(address, _)| is_hidden(address));
                let claim = |(address, rank): (&IpAddr, &ClaimRank)| {
                    let (address, rank) = (*address, *rank);
                    Claim { address, rank, preempt_delay: Duration::ZERO }
                };
                let hidden: Vec<_> = hidden.take(room).map(claim).collect();
                stretch.claims.extend(hidden);
                stretch.claims.sort_by_key(|claim| claim.address);
            }
            Body::Hello { .. }
            | Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::ListRequest
            | Body::Doubt(_)
            | Body::PathReport { .. }
            | Body::NodeWatch(_) => {}
        }
        let stated = self.stated.iter().map(|(address, rank)| (*address, *rank));
        frame.claim_set = ClaimSetSummary::new(frame.epoch, self.stated_changes, stated);
        true
    }
}
