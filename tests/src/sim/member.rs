//! The real claim machine of one process, or one that is broken on purpose at its boundary, to see that the checker notices.

use ferrolb_proto::claim::{Claims, Config, Counts, Input, LISTEN, Output};
use ferrolb_proto::election::Unit;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};
use ferrolb_proto::{Instant, Machine};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How late a machine of [`Broken::Late`] sees its deadlines.
const LATE: Duration = Duration::from_millis(150);

/// A machine with one rule taken away. The machine itself is the real one: what goes in or comes out is bent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Broken {
    /// Answers whether its own last hello is young or not.
    IgnoresGate,
    /// Does not hear of others' claims for what it holds itself.
    NeverYields,
    /// Takes silence for death: its challenges do not leave.
    NeverAsks,
    /// Claims without having listened.
    NeverListens,
    /// Gives up without a word: no RELEASE, and its hellos go on naming the claim set of before.
    NeverReleases,
    /// Does not see the clocks of the others, so that a pause in which its own stood still goes unnoticed.
    BlindToClocks,
    /// Its hellos say that it holds nothing.
    RestatesNothing,
    /// Goes on to answer for what it gave up.
    NeverStops,
    /// Does everything too late.
    Late,
    /// Tells no client of an address that it defended.
    DefendsInSilence,
    /// Believes that it hears something all the time.
    NeverDeaf,
    /// Says of no claim that it is best left where it is.
    ForgetsMoves,
    /// Does not say that its health checks fail.
    HidesFailures,
    /// Does not see that it is cordoned itself.
    ThinksItselfSound,
}

/// A machine and how it is broken, if it is.
pub(super) struct Member {
    name: Box<str>,
    claims: Claims,
    broken: Option<Broken>,
    /// The generation of the last CLAIM or list, which [`Broken::NeverReleases`] repeats.
    stated: u32,
    /// The latest clock that [`Broken::BlindToClocks`] put into a frame.
    clock: u64,
    held: BTreeSet<IpAddr>,
    /// Whose frames came from where.
    sources: BTreeMap<Mac, Box<str>>,
}

impl Member {
    /// A machine that starts to listen at `now`.
    pub(super) fn new(config: Config, now: Instant, keys: Vec<u32>, broken: Option<Broken>) -> Self {
        let mut start = now;
        if broken == Some(Broken::NeverListens) {
            start = Instant::from_nanos(now.as_nanos().saturating_sub(LISTEN.as_nanos() as u64));
        }
        let name = config.node.clone();
        let mut claims = Claims::new(config, start);
        claims.handle(Input::Keys(keys), start);
        Self { name, claims, broken, stated: 0, clock: 0, held: BTreeSet::new(), sources: BTreeMap::new() }
    }

    pub(super) fn handle(&mut self, mut input: Input, now: Instant) {
        if let (Some(_), Input::Frame { source, frame }) = (self.broken, &mut input) {
            self.sources.entry(*source).or_insert_with(|| frame.node.clone());
            self.bend_incoming(frame, now);
        }
        if let (Some(Broken::ThinksItselfSound), Input::Units(units)) = (self.broken, &mut input) {
            for unit in units {
                *unit = self.without_own_cordon(unit);
            }
        }
        self.claims.handle(input, now);
    }

    fn without_own_cordon(&self, unit: &Unit) -> Arc<Unit> {
        let mut unit = unit.clone();
        for own in unit.candidates.iter_mut().filter(|candidate| *candidate.node == *self.name) {
            own.cordoned = false;
        }
        Arc::new(unit)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.broken == Some(Broken::NeverDeaf) {
            self.claims.handle(Input::Heard, now);
        }
        self.claims.tick(now);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        loop {
            let mut output = self.claims.poll()?;
            if self.bend_outgoing(&mut output) {
                return Some(output);
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let late = if self.broken == Some(Broken::Late) { LATE } else { Duration::ZERO };
        Some(self.claims.deadline()? + late)
    }

    pub(super) fn gate(&self) -> Instant {
        if self.broken == Some(Broken::IgnoresGate) { Instant::from_nanos(u64::MAX) } else { self.claims.gate() }
    }

    pub(super) const fn counts(&self) -> Counts {
        self.claims.counts()
    }

    fn hears(&self, mac: Mac) -> bool {
        self.sources.get(&mac).is_some_and(|name| self.claims.heard().any(|heard| *heard == **name))
    }

    fn bend_incoming(&mut self, frame: &mut Frame, now: Instant) {
        match self.broken {
            Some(Broken::NeverYields) => {
                if let Body::Claim { addresses, keeps, .. } | Body::List { addresses, keeps, .. } = &mut frame.body {
                    // How long each is best left alone stands beside it.
                    let mut kept =
                        addresses.iter().map(|address| !self.held.contains(address)).collect::<Vec<_>>().into_iter();
                    keeps.retain({
                        let mut kept = kept.clone();
                        move |_| kept.next().unwrap_or(true)
                    });
                    addresses.retain(|_| kept.next().unwrap_or(true));
                }
            }
            Some(Broken::BlindToClocks) => {
                self.clock = now.as_nanos().max(self.clock + 1);
                frame.clock = self.clock;
            }
            _ => {}
        }
    }

    /// False if nothing of it comes out.
    fn bend_outgoing(&mut self, output: &mut Output) -> bool {
        match output {
            Output::Start(address) => {
                self.held.insert(*address);
            }
            Output::Stop(address) => {
                self.held.remove(address);
                return self.broken != Some(Broken::NeverStops);
            }
            Output::Refresh(_) | Output::Defend(_) => return self.broken != Some(Broken::DefendsInSilence),
            Output::Send { to, frame, .. } => return self.bend_frame(*to, frame),
            Output::TookOver(_) | Output::Probe { .. } | Output::Check(_) | Output::AskAround | Output::Left => {}
        }
        true
    }

    fn bend_frame(&mut self, to: Option<Mac>, frame: &mut Frame) -> bool {
        match (self.broken, &mut frame.body) {
            (Some(Broken::ForgetsMoves), Body::Claim { keeps, .. } | Body::List { keeps, .. }) => {
                keeps.clear();
                true
            }
            // Newcomers have to be asked even so: otherwise nobody would ever hear anybody.
            (Some(Broken::NeverAsks), Body::Challenge { .. }) => !to.is_some_and(|mac| self.hears(mac)),
            (Some(Broken::NeverReleases), Body::Release { .. }) => false,
            (Some(Broken::NeverReleases), Body::Claim { generation, .. } | Body::List { generation, .. }) => {
                self.stated = *generation;
                true
            }
            (Some(Broken::NeverReleases), Body::Hello { generation, .. }) => {
                *generation = self.stated;
                true
            }
            (Some(Broken::HidesFailures), Body::Hello { failing, .. }) => {
                failing.addresses.clear();
                true
            }
            (Some(Broken::RestatesNothing), Body::Hello { generation, .. }) => {
                *generation = 0;
                true
            }
            _ => true,
        }
    }
}
