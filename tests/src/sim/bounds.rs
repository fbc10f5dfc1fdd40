//! What a run may cost at most, and what the throw-away model of the rules cost (`reference/claimsim.md`, "Fixed rules").

/// The bounds of one scenario, times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nobody answers though a candidate that hears its peers works.
    pub orphan: u64,
    /// What the wait of one successor for another may add: that many may be waited for in vain.
    pub turns: u64,
    /// Two answer because one of them took.
    pub hand_over: u64,
    /// Two answer because a fault ended.
    pub heal: u64,
    /// Moves of one unit within five seconds.
    pub burst: usize,
    /// Moves of one unit in the whole run.
    pub moves: Option<usize>,
    /// Times that a node gave up all it had.
    pub fences: Option<u64>,
    /// Only a stranger gives reason to defend an address.
    pub rival: bool,
    /// How often each node loses each other and meets it anew.
    pub meetings: usize,
    /// An address is taken only from an owner that was not heard for as long as a death takes.
    pub no_taking: bool,
}

/// Two hellos, and the time that the second one and its consequences take.
const TWO_HELLOS: u64 = 110;

impl Bounds {
    /// Of a planned change: nobody is without an answer, beyond a frame under way or one that was lost.
    pub const fn planned() -> Self {
        Self {
            orphan: 30,
            turns: 0,
            hand_over: TWO_HELLOS,
            heal: TWO_HELLOS,
            burst: 5,
            moves: None,
            fences: Some(0),
            no_taking: false,
            rival: false,
            meetings: 0,
        }
    }

    /// Of a wire on which nothing happens but loss.
    pub const fn calm() -> Self {
        Self { orphan: 0, moves: Some(0), no_taking: true, ..Self::planned() }
    }

    /// Of a fault that is noticed by silence: suspicion after 150 ms, death after 40 more, a stagger, and a frame's way.
    pub const fn death() -> Self {
        Self { orphan: 250, ..Self::planned() }
    }

    pub const fn orphan(self, orphan: u64) -> Self {
        Self { orphan, ..self }
    }

    /// Where a stranger announces what is held.
    pub const fn rival(self) -> Self {
        Self { rival: true, ..self }
    }

    /// Where many may be unreachable at once, and meet again, so many times.
    pub const fn torn(self, meetings: usize) -> Self {
        Self { turns: 60, meetings, ..self }
    }

    pub const fn heal(self, heal: u64) -> Self {
        Self { heal, ..self }
    }

    pub const fn hand_over(self, hand_over: u64) -> Self {
        Self { hand_over, ..self }
    }

    pub const fn burst(self, burst: usize) -> Self {
        Self { burst, ..self }
    }

    pub const fn moves(self, moves: usize) -> Self {
        Self { moves: Some(moves), ..self }
    }

    pub const fn fences(self, fences: Option<u64>) -> Self {
        Self { fences, ..self }
    }
}

/// The model's nodes, for which the bounds are.
const MODEL_NODES: usize = 4;
/// Each that is waited for in vain is as likely to be there as not: more in a row than so many is no chance any more.
const TURNS_MAX: usize = 16;
/// What of a death is counted in hello intervals: three may be missing, and a frame of the fourth is under way.
const DEATH_INTERVALS: u64 = 4;
const INTERVAL: u64 = 50;

impl Bounds {
    /// The same for a wire of another size: who learns late tries once, so more nodes try more often; of more nodes more may be
    /// unreachable that are waited for; and hellos are rarer where there are many owners.
    pub(super) fn of(self, nodes: usize, units: usize) -> Self {
        let more = nodes.saturating_sub(MODEL_NODES);
        let owners = nodes.min(units).max(OWNERS_FAST);
        let longer = |intervals: u64| INTERVAL * intervals * (owners - OWNERS_FAST) as u64 / OWNERS_FAST as u64;
        let death = if self.orphan >= Self::death().orphan { longer(DEATH_INTERVALS) } else { 0 };
        Self {
            orphan: self.orphan + death + self.turns * more.min(TURNS_MAX) as u64,
            hand_over: self.hand_over + longer(2),
            heal: self.heal + longer(2),
            burst: self.burst + more,
            moves: self.moves.map(|moves| if moves > 0 { moves + more } else { 0 }),
            ..self
        }
    }
}

/// What the model found for a scenario: the worst time without an answer, and the worst double over 60 ms.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub orphan: u64,
    pub double: u64,
}

pub(super) const fn model(orphan: u64, double: u64) -> Option<Model> {
    Some(Model { orphan, double })
}

/// Owners that a wire has before the hello interval grows, so that their hellos never are more than so many times 20 a second.
const OWNERS_FAST: usize = 40;

/// Frames that one node sends to another it loses, and to one it meets: challenges, answers, questions, lists.
const FRAMES_PER_MEETING: usize = 8;

/// How many frames a wire of this size may carry in a run: the owners' hellos and the others', half as many again for what is said
/// besides, a little for a short run; what all say about one that is silent; and what those say who meet.
pub(super) fn frames(nodes: usize, units: usize, meetings: usize, seconds: f64) -> f64 {
    let owners = nodes.min(units).min(OWNERS_FAST);
    let said = (nodes + nodes * nodes * meetings) * FRAMES_PER_MEETING;
    ((owners * 20 + nodes) as f64 * 1.5 + 15.0) * seconds + said as f64
}
