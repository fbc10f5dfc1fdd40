//! The condition `ferrolb.io/Announced`: when each Service is looked at, and when what is found is written. Addresses come
//! first: this waits for them, and goes at a pace of its own.
//!
//! What concerns one Service marks that one; what may concern all begins a round through all of them. Who is announced is told
//! at once. Who is not is told when that has lasted: a Service comes before its endpoints, and a speaker before its status.

mod checks;
mod finding;
mod marks;
mod reason;
mod remarks;
mod routers;
mod voices;

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::announce::{Group, Scene, Served};
use ferrolb_proto::facts::{ConditionKind, Key, void};
use ferrolb_proto::{Instant, api};

use super::service::{self, Entry};
use super::{State, bare};
use crate::desired::Condition;
use finding::Case;
use routers::Routers;
use voices::Voices;

pub(super) use checks::{Checks, Motion};
pub(super) use reason::Reason;

/// Conditions that are written in a second at most, so that a failover of thousands of addresses, or a first start, is no flood
/// for the API server, kube-proxies and speakers, who all see each write.
pub(super) const CONDITIONS_PER_SECOND_MAX: u32 = 100;
/// Of those, so many at once after a pause.
const CONDITIONS_AT_ONCE_MAX: u32 = 10;
/// After a write to a Service its condition is left alone for so long: SpeakerStatuses come once a second, too.
pub(super) const CONDITION_INTERVAL: Duration = Duration::from_secs(1);
/// How long a Service must not have been announced before that is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Services that are looked at in one pass of the main loop.
const CHECKS_PER_PASS_MAX: usize = 128;

/// What comes of one look at a Service.
enum Step {
    /// All is said.
    Rest,
    /// It is to be looked at again then; since when what is found is worse than what is written, if it is.
    Later(Instant, Option<Instant>),
    /// This is to be written.
    Write(Box<Condition>),
}

/// What all Services stand in.
struct Around<'a> {
    scene: &'a Scene<'a>,
    voices: Option<&'a Voices<'a>>,
    routers: Option<&'a Routers<'a>>,
}

impl State {
    /// Whether all is known that decides who announces.
    fn may_judge(&self) -> bool {
        self.in_office && self.slices.is_complete() && (self.speakers.is_complete() || !self.has_speakers())
    }

    /// Whether speakers have a place to say what they do: another API group has no SpeakerStatus.
    pub(super) fn has_speakers(&self) -> bool {
        self.config.group == api::GROUP
    }

    /// When [`Self::check_announced`] is to be called after `now`.
    pub(super) fn announced_deadline(&self, now: Instant) -> Option<Instant> {
        if self.may_judge() { self.checks.deadline(now) } else { None }
    }

    /// Looks at those Services whose time has come, and decides what is to be written to them.
    pub(super) fn check_announced(&mut self, now: Instant) {
        if !self.may_judge() || !self.checks.is_due(now) {
            return;
        }
        if self.checks.void.is_none() {
            let node = |name: &str| self.nodes.get(&bare(name));
            self.checks.void = Some(void(self.speakers.iter().map(|(_, speaker)| speaker), node));
        }
        for (key, in_round, step) in self.steps(now) {
            self.take(&key, in_round, step, now);
        }
    }

    /// What is to be done about the next Services, as far as the pace allows; and whether the round came to them.
    fn steps(&self, now: Instant) -> Vec<(Key, bool, Step)> {
        let scene = Scene::new(
            self.nodes.iter().map(|(_, node)| node),
            self.pools.iter().map(|(_, own)| &own.object),
            self.advertisements.iter().map(|(_, own)| &own.object),
            false,
        );
        let none = BTreeSet::new();
        let void = self.checks.void.as_ref().unwrap_or(&none);
        let voices = self.has_speakers().then(|| Voices::new(self.speakers.iter().map(|(_, it)| it), void));
        let routers = Routers::new(
            self.bgp.ads.iter().map(|(_, own)| &own.object),
            self.communities.iter().map(|(_, own)| &own.object),
            self.bgp.peers.iter().map(|(_, own)| &own.object),
            self.nodes.iter().map(|(_, node)| node),
            voices.as_ref(),
        );
        let around = Around { scene: &scene, voices: voices.as_ref(), routers: routers.as_ref() };
        let due = self.checks.due(now).map(|key| (key, false));
        let (last, left) = self.checks.round();
        let round = self.services.after(last).take(left).map(|key| (key, true));
        let (mut steps, mut room) = (Vec::new(), self.checks.room());
        for (key, in_round) in due.chain(round).take(CHECKS_PER_PASS_MAX) {
            let Some(entry) = self.services.get(key) else { continue };
            let step = self.step(entry, &around, now);
            if matches!(step, Step::Write(_)) {
                if room == 0 {
                    break;
                }
                room -= 1;
            }
            steps.push((key.clone(), in_round, step));
        }
        steps
    }

    fn step(&self, entry: &Entry, around: &Around<'_>, now: Instant) -> Step {
        let Around { scene, voices, routers } = *around;
        let service = &entry.service;
        if service.assigned.is_empty() || entry.claim.is_none() {
            return Step::Rest;
        }
        let since = entry.motion.as_ref().and_then(|motion| motion.since);
        if entry.draft.write().is_some() {
            return Step::Later(now + CONDITION_INTERVAL, since);
        }
        let sharers = self.sharers(entry);
        let announceable: Vec<Vec<_>> = sharers.iter().map(|entry| entry.service.announceable().collect()).collect();
        let failing_on = |key| {
            let failing = voices.into_iter().flat_map(|voices| voices.failing(key));
            failing.map(|(node, failing)| (node, failing.family)).collect()
        };
        let served = sharers.iter().zip(&announceable).map(|(entry, assigned)| Served {
            policy: entry.service.policy,
            usable: entry.service.usable,
            assigned,
            from_pool: entry.service.from_pool.as_deref(),
            labels: &entry.service.demand.labels,
            endpoints: self.slices.of(&entry.service.key).collect(),
            failing_on: failing_on(&entry.service.key),
        });
        let served: Vec<_> = served.collect();
        let sharers = if routers.is_some() { served.clone() } else { Vec::new() };
        let group = Group::of(scene, served);
        let endpoints = self.slices.of(&service.key).collect();
        let finding = Case { service, endpoints, scene, group, sharers, voices, routers }.finding();
        let is = service.condition(ConditionKind::Announced);
        if is.is_some_and(|is| service::says(is, &finding.condition)) {
            return Step::Rest;
        }
        if let Some(until) = entry.draft.done_at().map(|at| at + CONDITION_INTERVAL).filter(|until| *until > now) {
            return Step::Later(until, since);
        }
        let since = since.unwrap_or(now);
        if !finding.firm && now < since + PATIENCE {
            return Step::Later(since + PATIENCE, Some(since));
        }
        Step::Write(Box::new(service::in_place_of(is, finding.condition)))
    }

    /// The Services that are joined to one by shared addresses, itself included, by name: those that have something to announce.
    fn sharers(&self, entry: &Entry) -> Vec<&Entry> {
        let mut seen = BTreeSet::from([&entry.service.key]);
        let mut left = vec![entry];
        while let Some(entry) = left.pop() {
            for assigned in &entry.service.assigned {
                for key in self.allocator.tenants_of(assigned.address) {
                    let Some(found) = self.services.get(key) else { continue };
                    if seen.insert(&found.service.key) {
                        left.push(found);
                    }
                }
            }
        }
        let has = |entry: &&Entry| entry.service.announceable().next().is_some();
        seen.into_iter().filter_map(|key| self.services.get(key)).filter(has).collect()
    }

    fn take(&mut self, key: &Key, in_round: bool, step: Step, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if in_round {
            self.checks.came_to(key);
        }
        self.checks.forget(key, &mut entry.motion);
        match step {
            Step::Rest => {
                entry.announced = None;
                self.tally.count(entry, self.config.role(&entry.service));
            }
            Step::Later(at, since) => self.checks.look_at(key, &mut entry.motion, at, since),
            Step::Write(condition) => {
                self.checks.pay();
                entry.announced = Some(condition);
                self.settle_service(key, now);
            }
        }
    }
}
