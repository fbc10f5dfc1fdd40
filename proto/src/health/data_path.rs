//! Whether the data path of one node works: what its kube-proxy says of itself, asked again and again, becomes a judgement that
//! does not waver. One machine per speaker, run by the driver that asks.
//!
//! What a judgement does is soft: it orders nodes and never leaves an address unannounced. An answer that kube-proxy is late counts
//! after `fall` in a row. Silence counts only after [`SILENCE_MAX`]: the kernel's rules outlive the process that made them, so a
//! kube-proxy that is restarted, and one that has yet to make its rules, moves nothing. Where kube-proxy was never heard of, neither
//! here nor elsewhere, there is none, and nothing is judged.

mod words;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::api::DataPathState;
use crate::range::Family;
use crate::{Instant, Machine};

/// How long kube-proxy may be away or without rules, having worked, before that counts; and how long what it said last of the node's
/// eligibility holds when it says nothing more.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long after the start a Node may be not Ready, or its gobgpd without routes, as after a boot,
/// before a kube-proxy that never worked is judged.
pub const SETTLE_MAX: Duration = Duration::from_secs(60);

/// What kube-proxy's health is good for (`--kube-proxy-health`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It counts where kube-proxy is there, or works on another node.
    Auto,
    /// A node without a kube-proxy that works is not healthy.
    Required,
    /// It is not asked for.
    Off,
}

/// What a machine is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What kube-proxy's health is good for.
    pub mode: Mode,
    /// How many bad rounds in a row make a healthy data path unhealthy.
    pub fall: u32,
    /// How many good rounds in a row make an unhealthy one healthy.
    pub rise: u32,
}

/// Address families, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl FromIterator<IpAddr> for Families {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut families = Self::default();
        for address in addresses {
            match Family::of(address) {
                Family::V4 => families.v4 = true,
                Family::V6 => families.v6 = true,
            }
            if families.v4 && families.v6 {
                break;
            }
        }
        families
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "no family",
        })
    }
}

/// What else counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// This Node is Ready.
    pub ready: bool,
    /// Another node says that its data path was asked after and works.
    pub elsewhere: bool,
    /// gobgpd had no routes when the speaker started: no traffic comes by BGP yet, so there is time
    /// to look for a kube-proxy.
    pub unrouted: bool,
    /// The families of what is announced.
    pub needed: Families,
}

/// What kube-proxy says of its rules for each family: whether they are up to date; none: it has made none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// IPv4.
    pub v4: Option<bool>,
    /// IPv6.
    pub v6: Option<bool>,
}

impl Rules {
    /// The needed families whose rules are so.
    fn that_are(self, wanted: Option<bool>, needed: Families) -> Families {
        Families { v4: needed.v4 && self.v4 == wanted, v6: needed.v6 && self.v6 == wanted }
    }
}

/// What came of `GET /livez` on kube-proxy's health server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Livez {
    /// kube-proxy answered.
    Answered {
        /// It is not late with what changed (200, not 503).
        live: bool,
        /// What it says of each family; none: before Kubernetes 1.33 it says nothing of them.
        rules: Option<Rules>,
    },
    /// Nobody listens.
    Refused,
    /// No answer in time, or none of a kube-proxy: what went wrong, for a person.
    Failed(Box<str>),
}

/// What came of one round of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The health server that was asked.
    pub server: SocketAddr,
    /// What it says of kube-proxy.
    pub livez: Livez,
    /// What `GET /healthz` says in `nodeEligible`; none: nothing.
    pub eligible: Option<bool>,
    /// Where nobody listens there: what a Service's health check node port says in `serviceProxyHealthy`; none: nothing.
    pub witness: Option<bool>,
}

/// What a round is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// kube-proxy works.
    Good,
    /// It does not, or whatever answers is no kube-proxy.
    Bad,
    /// It is there, and has yet to make the rules of a needed family.
    Starting,
    /// Nobody is there.
    Refused,
}

impl Round {
    /// What the round is worth where these families are needed.
    #[must_use]
    pub fn outcome(&self, needed: Families) -> Outcome {
        let none = Families::default();
        match (&self.livez, self.witness) {
            (Livez::Answered { live: true, rules: None }, _) | (Livez::Refused, Some(true)) => Outcome::Good,
            (Livez::Answered { live: true, rules: Some(rules) }, _) => {
                if rules.that_are(Some(false), needed) != none {
                    Outcome::Bad
                } else if rules.that_are(None, needed) != none {
                    Outcome::Starting
                } else {
                    Outcome::Good
                }
            }
            (Livez::Answered { live: false, .. } | Livez::Failed(_), _) | (Livez::Refused, Some(false)) => Outcome::Bad,
            (Livez::Refused, None) => Outcome::Refused,
        }
    }

    /// Whether it was kube-proxy that answered.
    const fn is_of_kube_proxy(&self) -> bool {
        matches!(self.livez, Livez::Answered { .. }) || self.witness.is_some()
    }
}

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// What else counts is so from now on.
    Situation(Situation),
    /// A round was asked.
    Round(Round),
}

/// What is thought of the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// What is known.
    pub state: DataPathState,
    /// Why, for a person: the same text as long as the reason is the same.
    pub message: Box<str>,
    /// kube-proxy says that the node is not to be sent traffic: it is about to be deleted.
    pub ineligible: bool,
}

impl Judgement {
    /// Whether the other nodes are told to announce first.
    #[must_use]
    pub const fn unhealthy(&self) -> bool {
        matches!(self.state, DataPathState::Unknown | DataPathState::Unhealthy)
    }

    /// Whether it was asked after and works.
    #[must_use]
    pub const fn checked(&self) -> bool {
        matches!(self.state, DataPathState::Healthy)
    }
}

/// What the last round found, and since when all rounds have.
#[derive(Clone, Debug)]
struct Found {
    outcome: Outcome,
    text: Box<str>,
    since: Instant,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct DataPath {
    config: Config,
    start: Instant,
    situation: Situation,
    /// The Node was Ready, or had time to be, and a round was asked.
    settled: bool,
    /// kube-proxy was heard of on this node.
    known: bool,
    /// Whether it works; none: it never did.
    works: Option<bool>,
    /// Good rounds in a row.
    good: u32,
    /// Bad rounds since the last good one. A round in which nobody was there is no bad one and no good one, so [`Hysteresis`], which knows two
    /// kinds, does not count these.
    ///
    /// [`Hysteresis`]: super::hysteresis::Hysteresis
    bad: u32,
    /// Since the last good round: when nobody was there, or had no rules yet, for the first time.
    away_since: Option<Instant>,
    ineligible: bool,
    /// Since when nobody says whether the node is eligible.
    unsaid_since: Option<Instant>,
    found: Option<Found>,
    /// What is said of the reason.
    shown: Box<str>,
    said: Judgement,
    output: Option<Judgement>,
}

impl DataPath {
    /// A machine that knows nothing yet. Its first judgement, where it is another than [`Judgement::default`], can be polled at once.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let mut path = Self {
            config,
            start: now,
            situation: Situation::default(),
            settled: false,
            known: false,
            works: None,
            good: 0,
            bad: 0,
            away_since: None,
            ineligible: false,
            unsaid_since: None,
            found: None,
            shown: Box::default(),
            said: Judgement::default(),
            output: None,
        };
        path.judge(now);
        path
    }

    /// What else counts, as it was last told.
    #[must_use]
    pub const fn situation(&self) -> Situation {
        self.situation
    }

    fn state(&self, now: Instant) -> DataPathState {
        match (self.config.mode, self.works) {
            (Mode::Off, _) => DataPathState::NotChecked,
            (_, Some(true)) => DataPathState::Healthy,
            (_, Some(false)) => DataPathState::Unhealthy,
            (_, None) if !self.settled || self.may_be_booting(now) => DataPathState::Unknown,
            (Mode::Auto, None) if !self.known && !self.situation.elsewhere => DataPathState::NotChecked,
            (_, None) => DataPathState::Unhealthy,
        }
    }

    /// Nobody has heard of a kube-proxy, and one may still start: a Node stays Ready while it
    /// reboots, if that is quick.
    fn may_be_booting(&self, now: Instant) -> bool {
        let unheard = self.config.mode == Mode::Auto && !self.known && !self.situation.elsewhere;
        self.situation.unrouted && unheard && now < self.start + SETTLE_MAX
    }

    fn round(&mut self, round: &Round, now: Instant) {
        self.known |= round.is_of_kube_proxy();
        let outcome = round.outcome(self.situation.needed);
        self.weigh(outcome, now);
        let text = round.finding(self.situation.needed);
        if self.found.as_ref().is_none_or(|found| found.text != text) {
            self.found = Some(Found { outcome, text, since: now });
        }
        match round.eligible {
            Some(eligible) => (self.ineligible, self.unsaid_since) = (!eligible, None),
            None => {
                let since = *self.unsaid_since.get_or_insert(now);
                self.ineligible &= now.since(since) < SILENCE_MAX;
            }
        }
    }

    fn weigh(&mut self, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Good {
            (self.bad, self.away_since) = (0, None);
            self.good = self.good.saturating_add(1);
            if self.works.is_none() || self.good >= self.config.rise {
                self.works = Some(true);
            }
            return;
        }
        self.good = 0;
        let over = if outcome == Outcome::Bad {
            self.bad = self.bad.saturating_add(1);
            self.bad >= self.config.fall
        } else {
            now.since(*self.away_since.get_or_insert(now)) >= SILENCE_MAX
        };
        if over && self.works.is_some() {
            self.works = Some(false);
        }
    }

    /// A new reason of a state that stays is said only when it has held for a while: one that comes and goes is no news.
    fn judge(&mut self, now: Instant) {
        let ready = self.situation.ready || now >= self.start + SETTLE_MAX;
        self.settled |= ready && self.found.is_some();
        let state = self.state(now);
        if let Some(Found { outcome, text, since }) = &self.found {
            let speaks_for_it = (*outcome == Outcome::Good) == (state == DataPathState::Healthy);
            let holds = state != self.said.state || self.shown.is_empty() || now.since(*since) >= SILENCE_MAX;
            if speaks_for_it && holds {
                self.shown.clone_from(text);
            }
        }
        let judgement = Judgement { state, message: self.message(state), ineligible: self.ineligible };
        if judgement != self.said {
            self.said = judgement.clone();
            self.output = Some(judgement);
        }
    }
}

impl Machine for DataPath {
    type Input = Input;
    /// Each new judgement; only the latest of those not polled is kept.
    type Output = Judgement;

    fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Situation(situation) => self.situation = situation,
            Input::Round(round) => self.round(&round, now),
        }
        self.judge(now);
    }

    fn tick(&mut self, now: Instant) {
        self.judge(now);
    }

    fn poll(&mut self) -> Option<Judgement> {
        self.output.take()
    }

    fn deadline(&self) -> Option<Instant> {
        let waits = self.found.is_some() && self.said.state == DataPathState::Unknown;
        (waits && self.config.mode != Mode::Off).then(|| self.start + SETTLE_MAX)
    }
}

#[cfg(test)]
mod tests;
