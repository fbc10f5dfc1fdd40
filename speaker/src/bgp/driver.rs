//! The task that makes gobgpd have what is wanted. Owned by the main loop's `JoinSet`; cancelling it is safe, and leaves the daemon as it is. It is
//! gobgpd's only client; where that is away it comes back to it, reads what is there and goes on from that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::api::BgpSessionState;
use ferrolb_proto::facts::PeerPlace;
use ferrolb_runtime::admin::ActionRequest;
use ferrolb_runtime::clock::Clock;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::client::{Client, Error, Told, sessions};
use super::leftover::Leftover;
use super::port::{self, Strangers};
use super::report::{Trace, session_counts, session_report, turns};
use super::steps::{Known, Step, next};
use crate::event::{BgpReport, Event, SessionReport};
use crate::metrics::Tally;
use crate::plan::{PeerOrder, Wanted};

/// How long until a gobgpd that is away, or of no use, is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// A change is told a moment before it can be read.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// How often a session that is not established is looked at: what fails there is counted, and not told.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long until a session that gobgpd would not have is asked for again: its link may be there by then.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The path by which the hook of a gobgpd that is to end has it stopped so that routers wait for the next one.
pub const HANDOVER: &str = "/gobgp/handover";
/// The path that says whether gobgpd answers, and the speaker lives that tends it.
pub const HEALTHZ: &str = "/gobgp/healthz";
/// How long until that is done: a node that shuts down says so at about the same time.
const HESITATES: Duration = Duration::from_secs(1);
/// How often all are looked at while BFD watches one: nobody tells how it stands.
const BFD_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often settled sessions are looked at: gobgpd does not tell how many prefixes a router sent.
const SETTLED_LOOK_EVERY: Duration = Duration::from_secs(60);
/// The least time between looks that are for metrics.
const SCRAPED_EVERY: Duration = Duration::from_secs(1);

/// Makes the gobgpd at this socket have the latest of what is wanted, from the first on, and tells how it stands, and whether it answers; stops it when it is
/// asked to. Ends with the process.
pub async fn run(
    (path, answers): (String, Arc<AtomicBool>),
    mut wanted: watch::Receiver<Option<Wanted>>,
    mut handovers: mpsc::Receiver<ActionRequest>,
    events: mpsc::Sender<Event>,
    tally: Tally,
) {
    let (mut said, mut leftover) = (None, Leftover::default());
    let found = AtomicBool::new(false);
    loop {
        let gobgpd = (&*path, &*answers, &found);
        let Err(error) = attend(gobgpd, &mut wanted, &mut handovers, &events, &tally, &mut leftover).await;
        // One that is too old is no better when it is started again.
        answers.store(matches!(error, Error::TooOld(_)), Ordering::Relaxed);
        leftover.look(&path).await;
        tally.usable.set(0);
        tally.failures.inc();
        tally.counts.send_replace(BTreeMap::new());
        let why = error.to_string();
        while let Ok(request) = handovers.try_recv() {
            request.answer(Err(why.clone()));
        }
        if said.as_ref() != Some(&why) {
            warn!(why, "gobgpd cannot be used; trying again");
        }
        let report = BgpReport { unusable: Some(why.as_str().into()), ..BgpReport::default() };
        said = Some(why);
        if events.send(Event::Bgp(report)).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Everything with one connection.
async fn attend(
    (path, answers, found): (&str, &AtomicBool, &AtomicBool),
    wanted: &mut watch::Receiver<Option<Wanted>>,
    handovers: &mut mpsc::Receiver<ActionRequest>,
    events: &mpsc::Sender<Event>,
    tally: &Tally,
    leftover: &mut Leftover,
) -> Result<Infallible, Error> {
    let mut client = Client::connect(path).await?;
    leftover.answered(path);
    let known = client.read().await?;
    answers.store(true, Ordering::Relaxed);
    if !found.swap(true, Ordering::Relaxed) {
        let _ = events.send(Event::BgpFound(known.paths.len())).await;
    }
    info!(path, sessions = known.peers.len(), prefixes = known.paths.len(), "gobgpd answers");
    let mut changes = pin!(client.changes());
    let mut daemon = Daemon {
        client,
        known,
        tally,
        refusals: BTreeMap::new(),
        traces: BTreeMap::new(),
        ask_again: None,
        strangers: Strangers::default(),
        checked: false,
    };
    let mut reported = None;
    let mut look_at = Some(Clock::now());
    let mut looked = None;
    loop {
        let now = Clock::now();
        daemon.forget_refusals(now);
        if daemon.obey(wanted).await? || !covers(reported.as_ref(), wanted) {
            look_at = sooner(look_at);
        }
        if look_at.is_some_and(|at| at <= now) {
            let report = daemon.look(wanted).await?;
            looked = Some(now);
            tally.usable.set(1);
            look_at = look_again(&report).map(|after| now + after);
            log_turns(reported.as_ref(), &report);
            if reported.as_ref() != Some(&report) {
                reported = Some(report.clone());
                let _ = events.send(Event::Bgp(report)).await;
            }
            // BFD follows what was seen.
            if daemon.next(wanted).is_some() {
                continue;
            }
        }
        let wake = [look_at, daemon.ask_again].into_iter().flatten().min();
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => look_at = sooner(look_at),
                None => return Err(Error::Call { call: "WatchEvent", why: "it ended".to_owned() }),
            },
            () = tally.asked.notified() => {
                let next = looked.map_or_else(Clock::now, |looked| looked + SCRAPED_EVERY);
                look_at = look_at.into_iter().chain([next]).min();
            }
            Ok(()) = wanted.changed() => {}
            Some(request) = handovers.recv() => daemon.hand_over(request, wanted).await?,
            () = Clock::sleep_until(wake) => {}
        }
    }
}

/// How long until all are looked at again if nothing is told: what changes in one that is established is.
fn look_again(report: &BgpReport) -> Option<Duration> {
    let mut sessions = report.sessions.values();
    let settled = sessions.clone().all(|session| session.state == BgpSessionState::Established);
    let watched = sessions.any(|session| session.bfd.is_some());
    let every = if settled { SETTLED_LOOK_EVERY } else { LOOK_EVERY };
    (!report.sessions.is_empty()).then_some(if watched { BFD_LOOK_EVERY } else { every })
}

fn log_turns(before: Option<&BgpReport>, now: &BgpReport) {
    for (peer, gone) in turns(before, now) {
        match gone {
            None => info!(peer, "BGP session established"),
            Some(why) => warn!(peer, why, "BGP session lost"),
        }
    }
}

/// Whether a report is about all sessions that are wanted: a speaker that starts anew finds them there, and nothing changes in them.
fn covers(report: Option<&BgpReport>, wanted: &watch::Receiver<Option<Wanted>>) -> bool {
    let wanted = wanted.borrow();
    let mut names = wanted.iter().flat_map(|wanted| wanted.peers.values()).map(|order| &order.name);
    report.is_some_and(|report| names.all(|name| report.sessions.contains_key(name)))
}

/// When to look after a change: in a moment, or earlier if that is due anyway.
fn sooner(look_at: Option<Instant>) -> Option<Instant> {
    look_at.into_iter().chain([Clock::now() + SETTLES_WITHIN]).min()
}

/// One gobgpd and what is known of it.
struct Daemon<'t> {
    client: Client,
    known: Known,
    tally: &'t Tally,
    /// Why it would not have a session, or why that was ended again.
    refusals: BTreeMap<PeerPlace, Box<str>>,
    /// What was counted of each session that is wanted.
    traces: BTreeMap<PeerPlace, Trace>,
    /// When those are asked for again, if there are any.
    ask_again: Option<Instant>,
    /// Who else has the port of BFD.
    strangers: Strangers,
    /// Its version is new enough.
    checked: bool,
}

impl Daemon<'_> {
    /// Does what is to be done, one step after the other, each for the latest of what is wanted; says whether a session was among it.
    async fn obey(&mut self, wanted: &mut watch::Receiver<Option<Wanted>>) -> Result<bool, Error> {
        let mut acted = false;
        loop {
            if self.known.identity.is_some() && !self.checked {
                self.client.check_version().await?;
                self.checked = true;
            }
            wanted.mark_unchanged();
            let Some(step) = self.next(wanted) else { return Ok(acted) };
            acted |= matches!(step, Step::Add(..) | Step::Remove(_) | Step::Watch(..));
            match (self.client.act(&step).await, step) {
                (Ok(()), step) => self.known.did(step),
                (Err(Error::Refused(why)), Step::Add(place, order)) => self.refuse(place, &order, why.into()),
                (Err(Error::Refused(why)), Step::Watch(place, order, _)) => {
                    self.refuse(place, &order, format!("BFD is off: gobgpd: {why}").into());
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// What is to be done next for the latest of what is wanted.
    fn next(&self, wanted: &watch::Receiver<Option<Wanted>>) -> Option<Step> {
        wanted.borrow().as_ref().and_then(|wanted| next(wanted, &self.known))
    }

    /// Stops it, so that routers with graceful restart keep its routes for the next one; not where this node may not be back to have one. It cannot be
    /// started again.
    async fn hand_over(
        &mut self,
        request: ActionRequest,
        wanted: &watch::Receiver<Option<Wanted>>,
    ) -> Result<(), Error> {
        tokio::time::sleep(HESITATES).await;
        if !request.is_awaited() {
            return Ok(());
        }
        let parting = wanted.borrow().as_ref().map_or(Some("its speaker knows nothing yet"), |wanted| wanted.parting);
        if let Some(why) = parting {
            info!(why, "gobgpd is about to end, and routers are not asked to keep its routes");
            request.answer(Err(why.to_owned()));
            return Ok(());
        }
        let stopped = self.client.stop().await;
        request.answer(stopped.as_ref().copied().map_err(ToString::to_string));
        Err(stopped.err().unwrap_or(Error::Stopped))
    }

    fn refuse(&mut self, place: PeerPlace, order: &PeerOrder, why: Box<str>) {
        self.tally.refusals.inc();
        self.known.refuse(place.clone(), order);
        self.refusals.insert(place, why);
        self.ask_again.get_or_insert_with(|| Clock::now() + ASK_AGAIN_AFTER);
    }

    /// What was refused is asked for again when its time has come.
    fn forget_refusals(&mut self, now: Instant) {
        if self.ask_again.is_some_and(|at| at <= now) {
            self.known.refused.clear();
            self.refusals.clear();
            self.ask_again = None;
        }
    }

    /// How the sessions stand, once those have been ended that should not be.
    async fn look(&mut self, wanted: &watch::Receiver<Option<Wanted>>) -> Result<BgpReport, Error> {
        let told = self.client.peers().await?;
        let wanted = wanted.borrow().clone().unwrap_or_default();
        let own = wanted.identity.map_or(0, |identity| identity.asn);
        let (mut report, mut counts, now) = (BgpReport::default(), BTreeMap::new(), Clock::now());
        self.traces.retain(|place, _| wanted.peers.contains_key(place));
        // A list is also how this task learns that somebody else deleted a session, or that an
        // earlier list was not complete.
        self.known.peers = sessions(&told);
        let port_taken = self.port_taken(&told, &wanted, now);
        for (place, order) in &wanted.peers {
            let is = told.iter().find(|told| told.place == *place);
            // GoBGP takes a router of any AS where it is to be of another than ours.
            if let Some(asn) = is.and_then(|is| own_as(is, order, own)) {
                let step = Step::Remove(place.clone());
                self.client.act(&step).await?;
                self.known.did(step);
                let why = format!("the router is of our own AS, {asn}: write dynamicASN internal, or peerASN");
                self.refuse(place.clone(), order, why.into());
            }
            let refusal = self.refusals.get(place);
            let session = match is.filter(|_| self.known.peers.contains_key(place)) {
                Some(is) => {
                    let trace = self.traces.entry(place.clone()).or_insert_with(|| Trace::new(now));
                    let session = session_report(&is.peer, &order.peer, own, trace, (now, port_taken));
                    SessionReport { problem: session.problem.or(refusal.cloned()), ..session }
                }
                None => SessionReport { problem: refusal.cloned(), ..SessionReport::default() },
            };
            report.sessions.insert(order.name.clone(), session);
            counts.extend(is.map(|is| (order.name.clone(), session_counts(&is.peer, &order.peer))));
        }
        self.tally.counts.send_replace(counts);
        Ok(report)
    }

    /// Whether another program has the port of BFD, where a session is to have BFD.
    fn port_taken(&mut self, told: &[Told], wanted: &Wanted, now: Instant) -> bool {
        let watched = wanted.peers.values().any(|order| order.peer.bfd.is_some());
        let own = told.iter().any(|told| told.peer.bfd.is_some_and(|bfd| bfd.enabled));
        watched && self.strangers.look(&port::sockets(), own, now)
    }
}

/// Our own number, if a session that is to be external has come about with a router that has it, too.
fn own_as(told: &Told, order: &PeerOrder, own: u32) -> Option<u32> {
    let asked = order.peer.conf.as_ref()?;
    let own = if asked.local_asn == 0 { own } else { asked.local_asn };
    (asked.peer_asn == 0 && told.state().peer_asn == own).then_some(own)
}
