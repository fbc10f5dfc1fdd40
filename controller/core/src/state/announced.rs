//! Decides when the condition `ferrolb.io/Announced` of each Service is checked and written. Part
//! of the state, which the main loop owns.
//!
//! The addresses of a Service are written before its condition. A rate limit applies to the
//! conditions of all Services together.
//!
//! A change that concerns one Service queues a check of that Service. A change that may concern all
//! Services starts a round, which checks all Services one after the other.
//!
//! A condition `True` is written at once, unless the owner of an address is about to change or has
//! a flaw, such as an unhealthy kube-proxy. In all other cases the condition is written after
//! [`CONDITION_DELAY`], because a Service is created before its endpoints, and a speaker starts
//! before its SpeakerStatus exists; or after [`RESTART_DELAY`], because a speaker may restart.

mod bgp_export;
mod change_tracking;
mod finding;
mod live_speakers;
mod next_owners;

mod verdict;
mod warnings;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::announce::{ClusterView, Layer2Address, ServiceView, ServicesByAddress};
use ferrolb_core::bgp::RouteInput;
use ferrolb_core::eligibility::EligibleEndpoints;
use ferrolb_proto::facts::{Endpoint, Key, Service, ServiceConditionType};
use ferrolb_proto::{Instant, api};

use super::State;
use super::conflicts::ReportedAddresses;
use super::messages::reason::Reason;
use super::service::{self, ServiceEntry};
use super::status_queue::{Class, Round};
use crate::desired::{Condition, Target};
use bgp_export::BgpContext;
use finding::{DesiredCondition, DiagnosisInput};
use live_speakers::LiveSpeakers;

pub use verdict::{NodeVerdict, Verdict};

/// Minimum time between a write to a Service and the next write of its condition. A SpeakerStatus,
/// on which the condition depends, also changes at most about once per second.
pub(super) const CONDITION_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the facts must differ from the written condition before a new one is written. A
/// condition `True` is exempt, unless an owner has a flaw or is about to change.
pub(super) const CONDITION_DELAY: Duration = Duration::from_secs(3);
/// The same for the reason `SpeakersNotRunning`: longer than the restart of a speaker. With the
/// time until the kubelet reports the pod, it stays below 30 s.
pub(super) const RESTART_DELAY: Duration = Duration::from_secs(10);
/// Maximum number of Services that one pass of the main loop checks.
const CHECKS_PER_PASS_MAX: usize = 128;
/// Delay until the next pass of the main loop if one pass could not check all due Services.
const NEXT_PASS_DELAY: Duration = Duration::from_millis(1);

/// The result of one check of a Service.
enum CheckResult {
    /// The condition is up to date, or the Service needs none.
    UpToDate,
    /// Check the Service again at the time in the first field. The second field is the time since
    /// which the facts have differed from the written condition; `None` if they agree.
    RecheckAt(Instant, Option<Instant>),
    /// Write this condition.
    Write(Box<Condition>),
}

/// The facts that the checks of all Services have in common.
pub(super) struct CheckContext<'a> {
    cluster: &'a ClusterView<'a>,
    live_speakers: Option<&'a LiveSpeakers<'a>>,
    bgp: Option<&'a BgpContext<'a>>,
    /// The failed nodes whose pods are marked as not Ready.
    silent_nodes: &'a [&'a str],
}

impl<'a> CheckContext<'a> {
    /// Returns the inputs of the routes of each node that runs gobgpd. The annotation or taint of a
    /// Node decides whether the node drains, even if its speaker does not report that yet.
    pub(super) fn route_inputs(&self) -> impl Iterator<Item = RouteInput<'a, '_>> {
        let bgp = self.bgp.into_iter();
        bgp.flat_map(|bgp| {
            bgp.advertisers().map(|advertiser| {
                let draining = advertiser.node.drain.is_some();
                advertiser.route_input(bgp.advertisements(), draining)
            })
        })
    }
}

impl State {
    /// Returns whether this replica is the active leader and has complete lists of all objects that
    /// decide which nodes announce an address.
    fn can_check_announced(&self) -> bool {
        self.leadership.is_active
            && self.slices.is_complete()
            && (self.speakers.is_complete() || !self.has_speakers())
    }

    /// Returns whether speakers can report their state in SpeakerStatuses, which exist only in
    /// FerroLB's own API group.
    pub(super) fn has_speakers(&self) -> bool {
        self.config.names.group == api::GROUP
    }

    /// Returns the time after `now` at which [`Self::check_announced`] must be called again, if
    /// any.
    pub(super) fn announced_deadline(&self, now: Instant) -> Option<Instant> {
        Some(self.next_check(now)?.max(now + NEXT_PASS_DELAY))
    }

    /// Returns the time of the next check that the rate limit allows, if any. Without room for its
    /// write, the check waits for the result of another one.
    fn next_check(&self, now: Instant) -> Option<Instant> {
        let queue = &self.status_queue;
        let in_round = (queue.round.left > 0).then_some(now);
        let next = in_round.or(queue.next(Class::Condition, Instant::ZERO))?;
        let can_check = self.can_check_announced() && queue.room(Class::Condition) > 0;
        can_check.then_some(next.max(queue.conditions.ready_at()))
    }

    /// Checks the Services whose check is due, and decides which conditions to write.
    pub(super) fn check_announced(&mut self, now: Instant) {
        if self.next_check(now).is_none_or(|at| now < at) {
            return;
        }
        self.update_stale_speakers();
        let stale = &self.stale_speakers.nodes;
        let checked =
            self.with_check_context(stale, |context| self.check_due_services(context, now));
        for (key, in_round, result, reported) in checked {
            self.apply_check(&key, in_round, result, &reported, now);
        }
    }

    /// Calls `f` with the facts that all Services have in common. `stale` are the nodes whose
    /// SpeakerStatus is stale.
    pub(super) fn with_check_context<R>(
        &self,
        stale: &BTreeSet<Box<str>>,
        f: impl FnOnce(&CheckContext<'_>) -> R,
    ) -> R {
        let cluster = ClusterView::new(
            self.nodes.values(),
            self.custom_resources.pools.values(),
            self.custom_resources.advertisements.values(),
            false,
        );
        let live_speakers =
            self.has_speakers().then(|| LiveSpeakers::new(self.speakers.values(), stale));
        let bgp = BgpContext::new(
            self.custom_resources.bgp_advertisements.values(),
            self.custom_resources.communities.values(),
            self.custom_resources.peers.values(),
            self.nodes.values(),
            live_speakers.as_ref(),
        );
        f(&CheckContext {
            cluster: &cluster,
            live_speakers: live_speakers.as_ref(),
            bgp: bgp.as_ref(),
            silent_nodes: &self.node_failures.failed().collect::<Vec<_>>(),
        })
    }

    /// Checks the next Services, as far as the rate limit allows. Returns for each Service whether
    /// the round through all Services selected it, and the result of its check.
    fn check_due_services(
        &self,
        context: &CheckContext<'_>,
        now: Instant,
    ) -> Vec<(Key, bool, CheckResult, ReportedAddresses)> {
        let due = self.status_queue.due(Class::Condition, now).filter_map(Target::service);
        let Round { reached, left } = &self.status_queue.round;
        let is_due = |key: &&Key| {
            let entry = self.services.get(*key);
            entry.is_some_and(|entry| entry.attempts.is_due(Class::Condition, now))
        };
        let round = self.services.keys_after(reached).take(*left).filter(|key| !is_due(key));
        let round = round.map(|key| (key, true));
        let room = self.status_queue.room(Class::Condition);
        let mut allowed_writes = room.min(self.status_queue.conditions.tokens(now) as usize);
        let mut results = Vec::new();
        for (key, in_round) in due.map(|key| (key, false)).chain(round).take(CHECKS_PER_PASS_MAX) {
            let Some(entry) = self.services.get(key) else { continue };
            let (result, reported) = self.check_service(entry, context, now);
            if matches!(result, CheckResult::Write(_)) {
                if allowed_writes == 0 {
                    break;
                }
                allowed_writes -= 1;
            }
            results.push((key.clone(), in_round, result, reported));
        }
        results
    }

    fn check_service(
        &self,
        entry: &ServiceEntry,
        context: &CheckContext<'_>,
        now: Instant,
    ) -> (CheckResult, ReportedAddresses) {
        let (service, none) = (&entry.service, ReportedAddresses::default());
        if service.assigned.is_empty() || entry.assignment.is_none() {
            return (CheckResult::UpToDate, none);
        }
        let since = entry.differs_since;
        if entry.attempts.is_pending() {
            return (CheckResult::RecheckAt(now + CONDITION_INTERVAL, since), none);
        }
        let DesiredCondition { condition, delay, reported } =
            self.with_diagnosis_input(entry, context, |input| {
                input.desired_condition(&self.config.names)
            });
        let current = service.condition(ServiceConditionType::Announced);
        if current.is_some_and(|current| service::matches(current, &condition)) {
            return (CheckResult::UpToDate, reported);
        }
        if let Some(until) =
            entry.attempts.done_at().map(|at| at + CONDITION_INTERVAL).filter(|until| *until > now)
        {
            return (CheckResult::RecheckAt(until, since), reported);
        }
        let since = since.unwrap_or(now);
        // Until the list of pods is complete, stopped speakers may look like running ones.
        let was_stopped = !self.pods.is_complete()
            && current.is_some_and(|it| *it.reason == *Reason::SpeakersNotRunning.name());
        let delay = if was_stopped { RESTART_DELAY } else { delay };
        if now < since + delay {
            return (CheckResult::RecheckAt(since + delay, Some(since)), reported);
        }
        let condition = service::with_transition_time(current, condition);
        (CheckResult::Write(Box::new(condition)), reported)
    }

    /// Calls `f` with the facts that decide the condition of a Service.
    pub(super) fn with_diagnosis_input<R>(
        &self,
        entry: &ServiceEntry,
        context: &CheckContext<'_>,
        f: impl FnOnce(&DiagnosisInput<'_>) -> R,
    ) -> R {
        let CheckContext { cluster, live_speakers, bgp, silent_nodes } = *context;
        let service = &entry.service;
        let sharers = self.sharers(entry);
        let announceable: Vec<Vec<_>> =
            sharers.iter().map(|entry| entry.service.announceable().collect()).collect();
        let services: ServicesByAddress<'_> = sharers
            .iter()
            .zip(&announceable)
            .map(|(entry, assigned)| self.service_view(&entry.service, assigned, live_speakers))
            .collect();
        let layer2 = service.announceable().filter_map(|address| {
            Some((address, Layer2Address::new(cluster, address, services.of(address))?))
        });
        let former_routers = service.announceable().flat_map(|address| {
            self.allocator.former_routers(address).map(move |node| (address, node))
        });
        f(&DiagnosisInput {
            service,
            endpoints: self.endpoints_of(&service.key).collect(),
            cluster,
            services: &services,
            layer2: layer2.collect(),
            live_speakers,
            bgp,
            silent_nodes,
            former_routers: former_routers.collect(),
        })
    }

    /// Returns the endpoints of a Service, eligible or not.
    fn endpoints_of(&self, service: &Key) -> impl Iterator<Item = &Endpoint> {
        self.slices.of(service).flat_map(|slice| &slice.endpoints)
    }

    /// Returns the Services that have an address of this Service, sorted by key, with this Service.
    fn sharers(&self, entry: &ServiceEntry) -> Vec<&ServiceEntry> {
        let addresses = entry.service.assigned.iter().map(|assigned| assigned.address);
        let others = addresses.flat_map(|address| self.allocator.services_of(address));
        let keys: BTreeSet<_> = others.chain([&entry.service.key]).collect();
        keys.into_iter().filter_map(|key| self.services.get(key)).collect()
    }

    /// Returns the facts of a Service that determine which nodes may announce its addresses
    /// `assigned`.
    fn service_view<'a>(
        &'a self,
        service: &'a Service,
        assigned: &'a [IpAddr],
        live_speakers: Option<&'a LiveSpeakers<'a>>,
    ) -> ServiceView<'a> {
        let endpoints = self.endpoints_of(&service.key);
        let failing = live_speakers.into_iter().flat_map(|speakers| speakers.failing(&service.key));
        ServiceView {
            assigned,
            from_pool: service.pool_annotation.as_deref(),
            labels: &service.demand.labels,
            endpoints: EligibleEndpoints::new(
                service.policy,
                service.endpoint_condition,
                endpoints,
            ),
            failing_on: failing.map(|(node, failing)| (node, failing.family)).collect(),
        }
    }

    fn apply_check(
        &mut self,
        key: &Key,
        in_round: bool,
        result: CheckResult,
        reported: &ReportedAddresses,
        now: Instant,
    ) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if in_round {
            let round = &mut self.status_queue.round;
            *round = Round { reached: key.clone(), left: round.left.saturating_sub(1) };
        }
        let target = Target::Service(key.clone());
        self.status_queue.remove(&mut entry.attempts, Class::Condition, &target);
        entry.differs_since = None;
        reported.announced.iter().for_each(|address| entry.new_addresses.announced(*address));
        match result {
            CheckResult::UpToDate => {
                entry.announced = None;
                self.counters.count(entry);
            }
            CheckResult::RecheckAt(at, since) => {
                entry.differs_since = since;
                self.status_queue.queue(&mut entry.attempts, Class::Condition, target, at);
            }
            // The new address has another condition.
            CheckResult::Write(_) if self.leave_conflicts(key, &reported.foreign, now) => {}
            CheckResult::Write(condition) => {
                self.status_queue.conditions.take(now);
                let Some(entry) = self.services.get_mut(key) else { return };
                entry.announced = Some(condition);
                self.update_status(key, now);
            }
        }
    }
}
