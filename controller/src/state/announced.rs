//! Decides when the condition `ferrolb.io/Announced` of each Service is checked and written. Part
//! of the state, which the main loop owns.
//!
//! The addresses of a Service are written before its condition. A rate limit applies to the
//! conditions of all Services together.
//!
//! A change that concerns one Service queues a check of that Service. A change that may concern all
//! Services starts a round through all of them.
//!
//! A condition `True` is written at once, unless the owner of an address is about to change or has
//! a flaw. In all other cases the condition is written after [`CONDITION_DELAY`], because a Service
//! is created before its endpoints, and a speaker starts before its SpeakerStatus exists.

mod bgp_export;
mod change_tracking;
mod finding;
mod live_speakers;
mod reason;
mod recheck_queue;
mod warnings;

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::announce::{ClusterView, ServiceView, SharingGroup};
use ferrolb_proto::facts::{Key, ServiceConditionType, stale_speakers};
use ferrolb_proto::{Instant, api};

use super::State;
use super::service::{self, ServiceEntry};
use crate::desired::Condition;
use bgp_export::BgpContext;
use finding::DiagnosisInput;
use live_speakers::LiveSpeakers;

pub(super) use reason::Reason;
pub(super) use recheck_queue::{QueuedRecheck, RecheckQueue};

/// Maximum number of conditions that are written per second. The limit keeps a failover of
/// thousands of addresses, or a first start, from flooding the API server, the kube-proxies and the
/// speakers, which all receive each write.
pub(super) const CONDITIONS_PER_SECOND_MAX: u32 = 100;
/// Maximum number of conditions that are written at once after a pause.
const CONDITIONS_AT_ONCE_MAX: u32 = 10;
/// Minimum time between a write to a Service and the next write of its condition. A SpeakerStatus,
/// on which the condition depends, also changes at most about once per second.
pub(super) const CONDITION_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the facts must differ from the written condition before a new one is written. A
/// condition `True` is exempt, unless an owner has a flaw or is about to change.
pub(super) const CONDITION_DELAY: Duration = Duration::from_secs(3);
/// Maximum number of Services that one pass of the main loop checks.
const CHECKS_PER_PASS_MAX: usize = 128;

/// The result of one check of a Service.
enum CheckResult {
    /// The condition is up to date, or the Service needs none.
    UpToDate,
    /// Check the Service again at the first of these times. The second one is the time since which
    /// the facts have differed from the written condition; `None` if they agree.
    RecheckAt(Instant, Option<Instant>),
    /// Write this condition.
    Write(Box<Condition>),
}

/// The facts that are common to all Services.
struct CheckContext<'a> {
    scene: &'a ClusterView<'a>,
    voices: Option<&'a LiveSpeakers<'a>>,
    routers: Option<&'a BgpContext<'a>>,
}

impl State {
    /// Returns whether this replica is the active leader and has complete lists of all objects that
    /// decide which nodes announce an address.
    fn can_check_announced(&self) -> bool {
        self.is_active_leader
            && self.slices.is_complete()
            && (self.speakers.is_complete() || !self.has_speakers())
    }

    /// Returns whether speakers can report their state in SpeakerStatuses, which exist only in
    /// FerroLB's own API group.
    pub(super) fn has_speakers(&self) -> bool {
        self.config.group == api::GROUP
    }

    /// Returns the time after `now` at which [`Self::check_announced`] must be called again, if
    /// any.
    pub(super) fn announced_deadline(&self, now: Instant) -> Option<Instant> {
        if self.can_check_announced() { self.rechecks.deadline(now) } else { None }
    }

    /// Checks the Services that are due, and decides which conditions to write.
    pub(super) fn check_announced(&mut self, now: Instant) {
        if !self.can_check_announced() || !self.rechecks.is_due(now) {
            return;
        }
        if self.rechecks.stale_speakers.is_none() {
            let node = |name: &str| self.nodes.get(name);
            self.rechecks.stale_speakers = Some(stale_speakers(self.speakers.values(), node));
        }
        for (key, in_round, step) in self.steps(now) {
            self.apply_check(&key, in_round, step, now);
        }
    }

    /// Checks the next Services, as far as the rate limit allows. Returns for each Service whether
    /// the round through all Services selected it, and the result of its check.
    fn steps(&self, now: Instant) -> Vec<(Key, bool, CheckResult)> {
        let scene = ClusterView::new(
            self.nodes.values(),
            self.custom_resources.pools.values(),
            self.custom_resources.advertisements.values(),
            false,
        );
        let none = BTreeSet::new();
        let void = self.rechecks.stale_speakers.as_ref().unwrap_or(&none);
        let voices = self.has_speakers().then(|| LiveSpeakers::new(self.speakers.values(), void));
        let routers = BgpContext::new(
            self.custom_resources.bgp_advertisements.values(),
            self.custom_resources.communities.values(),
            self.custom_resources.peers.values(),
            self.nodes.values(),
            voices.as_ref(),
        );
        let around =
            CheckContext { scene: &scene, voices: voices.as_ref(), routers: routers.as_ref() };
        let due = self.rechecks.due(now).map(|key| (key, false));
        let (last, left) = self.rechecks.round();
        let round = self.services.keys_after(last).take(left).map(|key| (key, true));
        let (mut steps, mut room) = (Vec::new(), self.rechecks.room());
        for (key, in_round) in due.chain(round).take(CHECKS_PER_PASS_MAX) {
            let Some(entry) = self.services.get(key) else { continue };
            let step = self.step(entry, &around, now);
            if matches!(step, CheckResult::Write(_)) {
                if room == 0 {
                    break;
                }
                room -= 1;
            }
            steps.push((key.clone(), in_round, step));
        }
        steps
    }

    fn step(&self, entry: &ServiceEntry, around: &CheckContext<'_>, now: Instant) -> CheckResult {
        let CheckContext { scene, voices, routers } = *around;
        let service = &entry.service;
        if service.assigned.is_empty() || entry.assignment.is_none() {
            return CheckResult::UpToDate;
        }
        let since = entry.recheck.as_ref().and_then(|motion| motion.since);
        if entry.pending_status.is_pending() {
            return CheckResult::RecheckAt(now + CONDITION_INTERVAL, since);
        }
        let sharers = self.sharers(entry);
        let announceable: Vec<Vec<_>> =
            sharers.iter().map(|entry| entry.service.announceable().collect()).collect();
        let failing_on = |key| {
            let failing = voices.into_iter().flat_map(|voices| voices.failing(key));
            failing.map(|(node, failing)| (node, failing.family)).collect()
        };
        let served = sharers.iter().zip(&announceable).map(|(entry, assigned)| ServiceView {
            policy: entry.service.policy,
            eligible: entry.service.endpoint_condition,
            assigned,
            from_pool: entry.service.pool_annotation.as_deref(),
            labels: &entry.service.demand.labels,
            endpoints: self.slices.of(&entry.service.key).collect(),
            failing_on: failing_on(&entry.service.key),
        });
        let served: Vec<_> = served.collect();
        let sharers = if routers.is_some() { served.clone() } else { Vec::new() };
        let group = SharingGroup::of(scene, served);
        let endpoints = self.slices.of(&service.key).collect();
        let verdict =
            DiagnosisInput { service, endpoints, scene, group, sharers, voices, routers }.verdict();
        let is = service.condition(ServiceConditionType::Announced);
        if is.is_some_and(|is| service::matches(is, &verdict.condition)) {
            return CheckResult::UpToDate;
        }
        if let Some(until) = entry
            .pending_status
            .done_at()
            .map(|at| at + CONDITION_INTERVAL)
            .filter(|until| *until > now)
        {
            return CheckResult::RecheckAt(until, since);
        }
        let since = since.unwrap_or(now);
        if !verdict.write_at_once && now < since + CONDITION_DELAY {
            return CheckResult::RecheckAt(since + CONDITION_DELAY, Some(since));
        }
        CheckResult::Write(Box::new(service::with_transition_time(is, verdict.condition)))
    }

    /// Returns the Services that have addresses to announce and that shared addresses connect to
    /// this Service, directly or through other Services. The list is sorted by key and includes
    /// this Service.
    fn sharers(&self, entry: &ServiceEntry) -> Vec<&ServiceEntry> {
        let mut seen = BTreeSet::from([&entry.service.key]);
        let mut left = vec![entry];
        while let Some(entry) = left.pop() {
            for assigned in &entry.service.assigned {
                for key in self.allocator.services_of(assigned.address) {
                    let Some(found) = self.services.get(key) else { continue };
                    if seen.insert(&found.service.key) {
                        left.push(found);
                    }
                }
            }
        }
        let has = |entry: &&ServiceEntry| entry.service.announceable().next().is_some();
        seen.into_iter().filter_map(|key| self.services.get(key)).filter(has).collect()
    }

    fn apply_check(&mut self, key: &Key, in_round: bool, step: CheckResult, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if in_round {
            self.rechecks.advance_round(key);
        }
        self.rechecks.forget(key, &mut entry.recheck);
        match step {
            CheckResult::UpToDate => {
                entry.announced = None;
                self.counters.count(entry, self.config.role(&entry.service));
            }
            CheckResult::RecheckAt(at, since) => {
                self.rechecks.look_at(key, &mut entry.recheck, at, since)
            }
            CheckResult::Write(condition) => {
                self.rechecks.count_write();
                entry.announced = Some(condition);
                self.settle_service(key, now);
            }
        }
    }
}
