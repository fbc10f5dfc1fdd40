//! The next thing to do so that gobgpd has what is wanted. Pure; the driver does it and asks again.
//!
//! At no time does a path stand there without its statements, and sessions come last, so that the first that a router hears is
//! complete. What is as it is wanted is not touched.
//!
//! BFD is on while its session is established, and at no other time. FRR makes its own anew when the session comes about: a gobgpd that has known
//! the one before takes that for lost, and ends the session (docs/bgp.md). Other timers, or none any more, are another session: GoBGP falls silent
//! when it is told, and the router would end it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrolb_proto::bgp::Prefix;
use ferrolb_proto::facts::PeerPlace;
use gobgp_proto as api;

use crate::plan::{ClassOrder, Identity, Mark, PeerOrder, Wanted};

/// Paths of one call.
pub(super) const PATHS_MAX: usize = 1_000;

/// What gobgpd has, as far as its only client knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// Who it is; none: it is not started.
    pub(super) identity: Option<Identity>,
    /// Its sessions.
    pub(super) peers: BTreeMap<PeerPlace, Has>,
    /// Its policies. Of one that was there before this speaker only the mark is known.
    pub(super) classes: BTreeMap<Mark, Option<Arc<ClassOrder>>>,
    /// Its paths; no mark: with one that is none of ours.
    pub(super) paths: BTreeMap<Prefix, Option<Mark>>,
    /// Sessions that it would not have, or not with BFD, by what was asked for.
    pub(super) refused: BTreeMap<PeerPlace, Box<str>>,
}

/// A session that it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Has {
    /// Its description, which says all there is to know but what follows.
    pub(super) description: Box<str>,
    /// It was established when gobgpd was looked at last.
    pub(super) established: bool,
    /// Its BFD, where that is on.
    pub(super) bfd: Option<api::BfdPeerConfig>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Begin to be somebody, without policies and paths, and reject whatever no policy names.
    Start(Identity),
    /// A session ends.
    Remove(PeerPlace),
    /// These are all policies.
    Policies(Vec<Arc<ClassOrder>>),
    /// Paths come, or get another mark.
    Announce(Vec<(Prefix, Mark)>),
    /// Paths go.
    Withdraw(Vec<Prefix>),
    /// A session begins.
    Add(PeerPlace, Arc<PeerOrder>),
    /// The BFD of a session begins, or ends.
    Watch(PeerPlace, Arc<PeerOrder>, bool),
}

/// What is to be done next, if anything.
pub(super) fn next(wanted: &Wanted, known: &Known) -> Option<Step> {
    // Other terms are another session, as everything that is in its OPEN is; and who is somebody else has none that goes on.
    let other_self = wanted.identity.filter(|identity| known.identity != Some(*identity));
    let stays = |place: &PeerPlace, is: &Has| {
        wanted
            .peers
            .get(place)
            .is_some_and(|order| order.description() == &*is.description && !is.watched_otherwise(order))
    };
    let mut ends = known.peers.iter().filter(|(place, is)| other_self.is_some() || !stays(place, is));
    if let Some((place, _)) = ends.next() {
        return Some(Step::Remove(place.clone()));
    }
    if let Some(identity) = other_self {
        return Some(Step::Start(identity));
    }
    if wanted.classes.keys().any(|mark| !known.classes.contains_key(mark)) {
        // What paths still have stays until they have another.
        let in_use = |mark: &Mark| known.paths.values().any(|of| *of == Some(*mark));
        let old = known.classes.iter().filter(|(mark, _)| !wanted.classes.contains_key(mark) && in_use(mark));
        let old = old.filter_map(|(_, order)| order.clone());
        return Some(Step::Policies(wanted.classes.values().cloned().chain(old).collect()));
    }
    let gone = known.paths.keys().filter(|prefix| !wanted.paths.contains_key(prefix)).copied();
    let gone: Vec<_> = gone.take(PATHS_MAX).collect();
    if !gone.is_empty() {
        return Some(Step::Withdraw(gone));
    }
    let other = wanted.paths.iter().filter(|(prefix, mark)| known.paths.get(prefix) != Some(&Some(**mark)));
    let other: Vec<_> = other.map(|(prefix, mark)| (*prefix, *mark)).take(PATHS_MAX).collect();
    if !other.is_empty() {
        return Some(Step::Announce(other));
    }
    if known.classes.len() != wanted.classes.len() {
        return Some(Step::Policies(wanted.classes.values().cloned().collect()));
    }
    let refused = |place: &PeerPlace, order: &PeerOrder| {
        known.refused.get(place).is_some_and(|was| **was == *order.description())
    };
    let missing =
        wanted.peers.iter().filter(|(place, order)| !known.peers.contains_key(place) && !refused(place, order));
    let add = missing.map(|(place, order)| Step::Add(place.clone(), Arc::clone(order))).next();
    let watch = || {
        wanted.peers.iter().filter(|(place, order)| !refused(place, order)).find_map(|(place, order)| {
            let is = known.peers.get(place)?;
            let on = is.established && order.peer.bfd.is_some();
            (is.bfd.is_some() != on).then(|| Step::Watch(place.clone(), Arc::clone(order), on))
        })
    };
    add.or_else(watch)
}

impl Has {
    /// It is established, and its BFD is another than what is wanted.
    fn watched_otherwise(&self, order: &PeerOrder) -> bool {
        self.established && self.bfd.is_some() && self.bfd != order.peer.bfd
    }
}

impl Known {
    /// A step was done.
    pub(super) fn did(&mut self, step: Step) {
        match step {
            Step::Start(identity) => *self = Self { identity: Some(identity), ..Self::default() },
            Step::Remove(place) => {
                self.peers.remove(&place);
            }
            Step::Policies(orders) => {
                self.classes = orders.into_iter().map(|order| (order.mark, Some(order))).collect();
            }
            Step::Announce(paths) => self.paths.extend(paths.into_iter().map(|(prefix, mark)| (prefix, Some(mark)))),
            Step::Withdraw(prefixes) => prefixes.iter().for_each(|prefix| {
                self.paths.remove(prefix);
            }),
            Step::Add(place, order) => {
                self.refused.remove(&place);
                self.peers.insert(place, Has { description: order.description().into(), ..Has::default() });
            }
            Step::Watch(place, order, on) => {
                if let Some(has) = self.peers.get_mut(&place) {
                    has.bfd = order.peer.bfd.filter(|_| on);
                }
            }
        }
    }

    /// A session, or its BFD, was not taken: it is not asked for again until its terms are others, or [`Known::refused`] is emptied.
    pub(super) fn refuse(&mut self, place: PeerPlace, order: &PeerOrder) {
        self.refused.insert(place, order.description().into());
    }
}

#[cfg(test)]
mod tests;
