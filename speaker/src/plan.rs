//! From what is known to what is wanted: [`plan`] is pure, imports no driver, and is computed anew after every event. What it
//! gives is the latest value, never a change: the drivers compare it with what they have.

mod candidates;
mod choice;
mod dump;
mod units;

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{LinkStatus, SpeakerStatusStatus};
use ferrolb_proto::election::Unit;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::KeyRing;

use crate::event::Link;
use crate::state::{Failure, State};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The links that are spoken on, by index.
    pub links: BTreeMap<u32, LinkOrder>,
    /// What this node says of itself.
    pub status: SpeakerStatusStatus,
    /// Why the program does not do its work, if so.
    pub not_ready: Option<String>,
    /// Every Node carries the exclude label, so it is ignored.
    pub exclusion_ignored: bool,
    /// Every link has handed over what it had: the process may end.
    pub left: bool,
    /// When the plan has to be computed again although nothing happened.
    pub wake: Option<Instant>,
}

/// One link and what is said there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOrder {
    /// The link's name.
    pub name: Box<str>,
    /// Its hardware address.
    pub mac: Mac,
    /// What its thread is told.
    pub order: Arc<Order>,
}

/// What the thread of a link is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// All units that may be announced on this wire.
    pub units: Vec<Unit>,
    /// The keys of the hello protocol.
    pub keys: KeyRing,
    /// Hand over what is held, and say when it is done.
    pub leaving: bool,
}

/// What is wanted at `now`, given what is known.
#[must_use]
pub fn plan(state: &State, now: Instant) -> Desired {
    let eligible = choice::eligible(state);
    let drafts = if state.waits_for().is_none() { units::drafts(state) } else { Vec::new() };
    let mut desired = Desired {
        not_ready: not_ready(state),
        exclusion_ignored: candidates::exclusion_ignored(state),
        ..Desired::default()
    };
    for link in &eligible {
        let retry_at = state.failures.get(&link.index).copied().map(Failure::retry_at).filter(|at| *at > now);
        desired.wake = desired.wake.into_iter().chain(retry_at).min();
        if !link.up || retry_at.is_some() {
            continue;
        }
        let units = drafts.iter().map(|draft| draft.on(link, &state.config.node)).collect();
        let order = Arc::new(Order { units, keys: state.keys.clone(), leaving: state.leaving });
        desired.links.insert(link.index, LinkOrder { name: link.name.clone(), mac: link.mac, order });
    }
    desired.status = status(state, &eligible);
    let has_left = |index| state.reports.get(index).is_some_and(|report| report.left);
    desired.left = state.leaving && desired.links.keys().all(has_left);
    desired
}

fn not_ready(state: &State) -> Option<String> {
    if state.leaving {
        return Some("leaving".to_owned());
    }
    if let Some(what) = state.waits_for() {
        return Some(format!("waiting for {what}"));
    }
    if state.own_node().is_none() {
        return Some(format!("the cluster has no Node {:?}: see --node-name", state.config.node));
    }
    state.keys.signing().is_none().then(|| "waiting for a key in the Secret ferrolb-hello".to_owned())
}

fn status(state: &State, eligible: &[&Link]) -> SpeakerStatusStatus {
    let reports = || eligible.iter().filter_map(|link| state.reports.get(&link.index));
    let owned: usize = reports().map(|report| report.held.len()).sum();
    let link_status = |link: &&Link| LinkStatus {
        name: link.name.to_string(),
        mac: link.mac.to_string(),
        up: link.up,
        heard: state
            .reports
            .get(&link.index)
            .into_iter()
            .flat_map(|r| r.heard.iter().map(ToString::to_string))
            .collect(),
    };
    let mut links: Vec<_> = eligible.iter().map(link_status).collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    SpeakerStatusStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        links,
        draining: state.leaving,
        owned_addresses: i64::try_from(owned).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests;
