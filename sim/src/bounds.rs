//! Bounds for the outages and moves of a run, and the results of the prototype, which was an
//! earlier simulation of the ownership protocol's rules.

/// Bounds for one scenario; times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct ScenarioBounds {
    /// Maximum time for which a unit has no owner although a candidate receives its peers' frames.
    pub unowned: u64,
    /// True if a unit may have no owner for longer, by as much as the detection time that its owner
    /// had stated is longer than the one of a calm node.
    pub waits_for_stated_time: bool,
    /// Additional time for which a unit may have no owner, for each candidate that is unreachable
    /// when its turn to claim comes.
    pub per_unreachable_candidate: u64,
    /// Maximum time for which a unit has two owners after a node took it.
    pub double_owner_after_take: u64,
    /// Maximum time for which a unit has two owners after a fault has ended.
    pub double_owner_after_fault: u64,
    /// Maximum number of moves of one unit within five seconds.
    pub burst: usize,
    /// Maximum number of moves of one unit in the whole run. None: only `burst` limits the moves.
    pub moves: Option<usize>,
    /// Maximum number of fences of all nodes together. A fence is the release of all units by a
    /// node that has stalled. None: fences are not checked.
    pub fences: Option<u64>,
    /// True if the checker limits the rate of address defenses. This requires a scenario in which
    /// only a foreign host causes address defenses.
    pub defenses: bool,
    /// Number of times that every node loses every other node and finds it again.
    pub reunions: usize,
    /// Maximum time for which unhealthy nodes own a unit although a healthy candidate works. None:
    /// not checked.
    pub unhealthy_owner: Option<u64>,
    /// True if a node may take an address only from an owner that was silent for at least the time
    /// of a failure detection.
    pub takes_only_after_failure: bool,
}

/// Duration of two hello intervals and a margin for delivery and processing, in milliseconds.
pub(super) const TWO_HELLOS_MS: u64 = 110;

impl ScenarioBounds {
    /// Bounds for a planned change: a unit has no owner only while a frame is in transit or a lost
    /// frame is repeated.
    pub const fn planned() -> Self {
        Self {
            unowned: 30,
            waits_for_stated_time: false,
            per_unreachable_candidate: 0,
            double_owner_after_take: TWO_HELLOS_MS,
            double_owner_after_fault: TWO_HELLOS_MS,
            burst: 5,
            moves: None,
            fences: Some(0),
            unhealthy_owner: None,
            takes_only_after_failure: false,
            defenses: false,
            reunions: 0,
        }
    }

    /// Bounds for a network segment on which frames are lost, but which has no other fault.
    pub const fn calm() -> Self {
        Self { unowned: 0, moves: Some(0), takes_only_after_failure: true, ..Self::planned() }
    }

    /// Bounds for a node failure that other nodes detect by missing hellos: suspicion after 150 ms,
    /// failure after 40 ms more, a stagger, and a frame's delay.
    pub const fn failure() -> Self {
        Self { unowned: 250, ..Self::planned() }
    }

    pub const fn unowned(self, unowned: u64) -> Self {
        Self { unowned, ..self }
    }

    /// Allows a unit of an owner that was late to have no owner for longer, as its frames stated.
    pub const fn waits_for_stated_time(self) -> Self {
        Self { waits_for_stated_time: true, ..self }
    }

    /// Limits the rate of address defenses, for a scenario in which a foreign host announces an
    /// owned address.
    pub const fn checks_defenses(self) -> Self {
        Self { defenses: true, ..self }
    }

    /// Allows a scenario in which all nodes lose each other at once and find each other again,
    /// `reunions` times.
    pub const fn reunions(self, reunions: usize) -> Self {
        Self { per_unreachable_candidate: 60, reunions, ..self }
    }

    pub const fn double_owner_after_fault(self, double_owner_after_fault: u64) -> Self {
        Self { double_owner_after_fault, ..self }
    }

    pub const fn double_owner_after_take(self, double_owner_after_take: u64) -> Self {
        Self { double_owner_after_take, ..self }
    }

    pub const fn burst(self, burst: usize) -> Self {
        Self { burst, ..self }
    }

    pub const fn unhealthy_owner(self, unhealthy_owner: u64) -> Self {
        Self { unhealthy_owner: Some(unhealthy_owner), ..self }
    }

    pub const fn moves(self, moves: usize) -> Self {
        Self { moves: Some(moves), ..self }
    }

    pub const fn fences(self, fences: Option<u64>) -> Self {
        Self { fences, ..self }
    }
}

/// Number of nodes in the prototype. The bounds of the scenarios apply to this number of nodes.
const PROTOTYPE_NODES: usize = 4;
/// Maximum number of unreachable candidates in a row for which a bound is extended. Each candidate
/// is reachable with a probability of one half, so more in a row are practically impossible.
const UNREACHABLE_CANDIDATES_MAX: usize = 16;
/// Failure detection time in hello intervals: three hellos may be missing, and the fourth may be in
/// transit.
const FAILURE_INTERVALS: u64 = 4;
const HELLO_INTERVAL_MS: u64 = 50;

impl ScenarioBounds {
    /// Scales the bounds to a segment of another size. More nodes allow more moves, because each
    /// node that receives a change late takes a unit once. More nodes also allow longer times
    /// without an owner, because more of them may be unreachable when their turns come. With many
    /// owners, hello intervals are longer, and so are the times that depend on them.
    pub(super) fn scaled_to(self, nodes: usize, units: usize) -> Self {
        let more = nodes.saturating_sub(PROTOTYPE_NODES);
        let owners = nodes.min(units).max(OWNERS_AT_SHORT_INTERVAL_MAX);
        let longer_intervals = |intervals: u64| {
            HELLO_INTERVAL_MS * intervals * (owners - OWNERS_AT_SHORT_INTERVAL_MAX) as u64
                / OWNERS_AT_SHORT_INTERVAL_MAX as u64
        };
        let failure_extra = if self.unowned >= Self::failure().unowned {
            longer_intervals(FAILURE_INTERVALS)
        } else {
            0
        };
        Self {
            unowned: self.unowned
                + failure_extra
                + self.per_unreachable_candidate * more.min(UNREACHABLE_CANDIDATES_MAX) as u64,
            double_owner_after_take: self.double_owner_after_take + longer_intervals(2),
            double_owner_after_fault: self.double_owner_after_fault + longer_intervals(2),
            burst: self.burst + more,
            moves: self.moves.map(|moves| if moves > 0 { moves + more } else { 0 }),
            ..self
        }
    }
}

/// Results of the prototype for a scenario, in milliseconds: the longest time without an owner, and
/// the longest time with two owners, of which only times above 60 ms count.
#[derive(Clone, Copy, Debug)]
pub struct PrototypeResult {
    pub unowned: u64,
    pub double_owner: u64,
}

pub(super) const fn prototype_result(unowned: u64, double_owner: u64) -> Option<PrototypeResult> {
    Some(PrototypeResult { unowned, double_owner })
}

/// Maximum number of owners that all send a hello every 50 ms. With more owners, the hello interval
/// grows, so that all owners together send at most 20 times this number of hellos per second.
const OWNERS_AT_SHORT_INTERVAL_MAX: usize = 40;

/// Maximum number of frames that a node sends to another node when it loses that node or finds it
/// again: challenges, responses, requests for lists, and lists.
const FRAMES_PER_REUNION: usize = 8;

/// Returns the maximum number of frames in a run of `seconds` on a segment with `nodes` and
/// `units`, which is the sum of:
///
/// - the hellos of owners and of other nodes, and half of their number for other frames;
/// - a margin of 15 frames per second;
/// - the frames of one failure detection by all nodes, and of each reunion of two nodes.
pub(super) fn frames_max(nodes: usize, units: usize, reunions: usize, seconds: f64) -> f64 {
    let owners = nodes.min(units).min(OWNERS_AT_SHORT_INTERVAL_MAX);
    let reunion_frames = (nodes + nodes * nodes * reunions) * FRAMES_PER_REUNION;
    ((owners * 20 + nodes * 5) as f64 * 1.5 + 15.0) * seconds + reunion_frames as f64
}
