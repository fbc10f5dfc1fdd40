//! The task that makes gobgpd have what is wanted. Owned by the main loop's `JoinSet`; cancelling it is safe, and leaves the daemon as it is. It is
//! gobgpd's only client; where that is away it comes back to it, reads what is there and goes on from that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use ferrolb_proto::facts::PeerPlace;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::client::{Client, Error, Told};
use super::report::session_report;
use super::steps::{Known, Step, next};
use crate::event::{BgpReport, Event, SessionReport};
use crate::plan::{PeerOrder, Wanted};

/// How long until a gobgpd that is away, or of no use, is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// A change is told a moment before it can be read.
const SETTLES_WITHIN: Duration = Duration::from_millis(50);
/// How often a session that is not established is looked at: what fails there is counted, and not told.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long until a session that gobgpd would not have is asked for again: its link may be there by then.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Makes the gobgpd at this socket have the latest of what is wanted, from the first on, and tells how it stands. Ends with the process.
pub async fn run(path: String, mut wanted: watch::Receiver<Option<Wanted>>, events: mpsc::Sender<Event>) {
    let mut said = None;
    loop {
        let Err(error) = attend(&path, &mut wanted, &events).await;
        let why = error.to_string();
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
    path: &str,
    wanted: &mut watch::Receiver<Option<Wanted>>,
    events: &mpsc::Sender<Event>,
) -> Result<Infallible, Error> {
    let mut client = Client::connect(path).await?;
    let known = client.read().await?;
    info!(path, sessions = known.peers.len(), prefixes = known.paths.len(), "gobgpd answers");
    let mut changes = pin!(client.changes());
    let mut daemon = Daemon { client, known, refusals: BTreeMap::new(), checked: false };
    let mut reported = None;
    let mut look_at = Instant::now();
    let mut ask_again = Instant::now() + ASK_AGAIN_AFTER;
    loop {
        let acted = daemon.obey(wanted).await?;
        let now = Instant::now();
        if acted {
            look_at = look_at.min(now + SETTLES_WITHIN);
        }
        if now >= ask_again {
            daemon.known.refused.clear();
            ask_again = now + ASK_AGAIN_AFTER;
            continue;
        }
        if now >= look_at {
            let report = daemon.report(wanted).await?;
            look_at = now + LOOK_EVERY;
            if reported.as_ref() != Some(&report) {
                reported = Some(report.clone());
                let _ = events.send(Event::Bgp(report)).await;
            }
        }
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => look_at = look_at.min(Instant::now() + SETTLES_WITHIN),
                None => return Err(Error::Call { call: "WatchEvent", why: "it ended".to_owned() }),
            },
            Ok(()) = wanted.changed() => {}
            () = sleep_until(look_at.min(ask_again)) => {}
        }
    }
}

/// One gobgpd and what is known of it.
struct Daemon {
    client: Client,
    known: Known,
    /// Why it would not have a session, or why that was ended again.
    refusals: BTreeMap<PeerPlace, Box<str>>,
    /// Its version is new enough.
    checked: bool,
}

impl Daemon {
    /// Does what is to be done, one step after the other, each for the latest of what is wanted; says whether there was any.
    async fn obey(&mut self, wanted: &mut watch::Receiver<Option<Wanted>>) -> Result<bool, Error> {
        let mut acted = false;
        loop {
            if self.known.identity.is_some() && !self.checked {
                self.client.check_version().await?;
                self.checked = true;
            }
            let step = wanted.borrow_and_update().as_ref().and_then(|wanted| next(wanted, &self.known));
            let Some(step) = step else { return Ok(acted) };
            acted = true;
            match (self.client.act(&step).await?, step) {
                (Ok(()), step) => self.known.did(step),
                (Err(why), Step::Add(place, order)) => {
                    self.refusals.insert(place.clone(), why.into());
                    self.known.refuse(place, &order);
                }
                (Err(why), _) => return Err(Error::Call { call: "a step", why }),
            }
        }
    }

    /// How the sessions stand. One with a router of our own AS that is to be of another is ended: GoBGP takes any.
    async fn report(&mut self, wanted: &watch::Receiver<Option<Wanted>>) -> Result<BgpReport, Error> {
        let told = self.client.peers().await?;
        let wanted = wanted.borrow().clone().unwrap_or_default();
        let own = wanted.identity.map_or(0, |identity| identity.asn);
        let mut report = BgpReport::default();
        for (place, order) in &wanted.peers {
            let told = told.iter().find(|told| told.place == *place);
            self.refusals.retain(|place, _| self.known.refused.contains_key(place));
            let refused = || SessionReport { problem: self.refusals.get(place).cloned(), ..SessionReport::default() };
            let session = told.map_or_else(refused, |told| session_report(&told.peer, &order.peer, own));
            report.sessions.insert(order.name.clone(), session);
        }
        for (place, order) in &wanted.peers {
            let Some(told) = told.iter().find(|told| told.place == *place) else { continue };
            if let Some(asn) = own_as(told, order, own) {
                self.client
                    .act(&Step::Remove(place.clone()))
                    .await?
                    .map_err(|why| Error::Call { call: "DeletePeer", why })?;
                self.known.did(Step::Remove(place.clone()));
                self.known.refuse(place.clone(), order);
                let why = format!("the router is of our own AS, {asn}: write dynamicASN internal, or peerASN");
                self.refusals.insert(place.clone(), why.into());
            }
        }
        Ok(report)
    }
}

/// Our own number, if a session that is to be external has come about with a router that has it, too.
fn own_as(told: &Told, order: &PeerOrder, own: u32) -> Option<u32> {
    let asked = order.peer.conf.as_ref()?;
    let own = if asked.local_asn == 0 { own } else { asked.local_asn };
    (asked.peer_asn == 0 && told.state().peer_asn == own).then_some(own)
}
