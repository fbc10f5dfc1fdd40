//! Decisions of the state: the addresses of each Service, and the statuses to write. The state
//! makes them only while this replica is the active leader.

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{API_SERVERS_MAX, Key, Pool, Service, api_server};

use super::alloc::{AddressUser, Allocator, HostUses, Requester, UnmanagedSource, of_node};
use super::conflicts::unannounced::UnannouncedAddresses;
use super::decision_queue::DecisionQueue;
use super::former_routes::FormerRoutes;
use super::missing_pools::MissingPools;
use super::service::{self, CounterLabels, Role, ServiceEntry};
use super::service_addresses::{self, Present};
use super::service_counters::ServiceCounters;
use super::sharing::SharingParameters;
use super::status_queue::{Attempts, Class};
use super::{LATENCIES_MAX, State, pools};
use crate::desired::{Status, Target};
use crate::event::Leadership;

impl State {
    /// Makes the decisions that remain after the last event of a pass of the main loop.
    pub(super) fn decide_remaining(&mut self, now: Instant) {
        if !self.leadership.is_active {
            return;
        }
        self.update_stale_speakers();
        self.update_former_routes(now);
        if self.decisions.all || self.missing_pools.grace_end().is_some_and(|end| now >= end) {
            self.decide_all(now);
        }
        self.allocator.forget_expired(self.wall_clock.without_jump(now));
        if self.decisions.is_retry_due(now) {
            self.retry_waiting(now);
        }
        // Waiting Services come before those that changed in this pass. The loop ends, because an
        // assignment frees addresses only once, for changed sharing parameters.
        loop {
            while self.allocator.take_freed() {
                self.retry_waiting(now);
            }
            let changed = std::mem::take(&mut self.decisions.changed);
            if changed.is_empty() {
                break;
            }
            changed.iter().for_each(|key| self.decide(key, now));
        }
        self.update_due_statuses(now);
        let due = self.status_queue.due_with_room(Class::Resource, now);
        self.update_address_memory(due.contains(&Target::AddressMemory), now);
        self.update_custom_resources(&due, now);
    }

    /// Updates the statuses of the Services that are due, as far as writes may begin.
    fn update_due_statuses(&mut self, now: Instant) {
        // Services that need no write leave their room to others.
        let mut served = Vec::new();
        loop {
            let due = self.status_queue.due_with_room(Class::Addresses, now);
            if due == served {
                break;
            }
            due.iter().filter_map(Target::service).for_each(|key| self.update_status(key, now));
            served = due;
        }
        self.repair_record(now);
    }

    /// Decides the addresses and statuses of all Services again: when a leadership term begins, and
    /// after a change of pools or Namespaces.
    ///
    /// First, every Service keeps the addresses that it may still have. Services whose sharing
    /// parameters equal those in their annotation precede the others, and each group is ordered by
    /// name. Then Services that lack addresses get those in their records, first of all those whose
    /// status another client has cleared. Then the others get new ones.
    fn decide_all(&mut self, now: Instant) {
        self.decisions.all = false;
        self.recheck_all_services();
        self.custom_resources.statuses_dirty = true;
        self.pool_faults = pools::faults(self.custom_resources.pools.values());
        let faults = &self.pool_faults;
        let pools = self
            .custom_resources
            .pools
            .values()
            .map(|pool| (pool, !faults.contains_key(&pool.name)));
        let unmanaged = self.services.values().map(|entry| {
            let service = &entry.service;
            let namespace_labels = self.namespaces.get(service.key.namespace());
            (
                Requester { service, sharing: SharingParameters::default(), namespace_labels },
                self.config.unmanaged_addresses(service, None),
            )
        });
        let hosts = self.hosts().collect::<Vec<_>>().into_iter();
        self.allocator.set_pools(pools, hosts, unmanaged);
        self.allocator.forget_expired(self.wall_clock.without_jump(now));
        self.update_missing_pools(now);
        self.decisions.changed.clear();
        let (awaiting_namespace, mut keys): (Vec<_>, Vec<_>) =
            self.services.keys().cloned().partition(|key| self.waits_for_namespace(key));
        self.decisions.waiting.extend(awaiting_namespace);
        let has_recorded_sharing = |entry: &ServiceEntry| {
            service::has_recorded_sharing(&entry.service, &SharingParameters::of(&entry.service))
        };
        keys.sort_by_cached_key(|key| !self.services.get(key).is_some_and(has_recorded_sharing));
        keys.iter().for_each(|key| self.keep_addresses(key));
        let is_cleared = |entry: &ServiceEntry| service::is_cleared(&entry.service);
        keys.sort_by_cached_key(|key| !self.services.get(key).is_some_and(is_cleared));
        keys.iter().for_each(|key| self.adopt_record(key));
        // Clear the flag of freed addresses, because the code below tries all Services that lack
        // addresses. Only an address that becomes free from here on requires another attempt.
        self.allocator.take_freed();
        self.sort_for_assignment(&mut keys);
        keys.iter().for_each(|key| self.assign_addresses(key, now));
        keys.iter().for_each(|key| self.update_status(key, now));
        self.decisions.begin_retry(now);
    }

    /// Determines the pools that do not exist although Services have addresses of them, or request
    /// them.
    fn update_missing_pools(&mut self, now: Instant) {
        // Without the condition, another controller has written the addresses and the pool.
        let has_addresses = |entry: &&ServiceEntry| {
            self.config.role(&entry.service, |_| false) == Role::ServedByFerroLb
                && service::has_condition(&entry.service)
                && !entry.present().is_empty()
        };
        let used = self.services.values().filter(has_addresses).flat_map(|entry| {
            let requested = entry.service.demand.request.pool.clone();
            entry.pool_name().into_iter().chain(requested)
        });
        let missing = used.filter(|pool| self.custom_resources.pools.get(pool).is_none());
        let in_grace = self.missing_pools.replace(missing, self.config.pool_grace, now);
        self.allocator.set_pools_in_grace(in_grace);
    }

    /// Decides one Service that has changed. If an address has become free in this pass, the
    /// decision follows at the end of the pass, because waiting Services have priority.
    pub(super) fn decide_one(&mut self, key: &Key, before: &Service, now: Instant) {
        if !self.leadership.is_active || self.decisions.all {
            return;
        }
        self.record_contest(key, before, now);
        if let Some(entry) = self.services.get(key) {
            let (had, has) = (
                self.config.unmanaged_addresses(before, None),
                self.config.unmanaged_addresses(&entry.service, None),
            );
            // A Service keeps the addresses in its status, even if another load balancer wrote
            // them. Assign them before waiting Services can get them.
            if had.iter().any(|address| !has.contains(address)) {
                self.keep_addresses(key);
            }
            self.update_unmanaged(key);
        }
        if self.allocator.has_freed() {
            self.decisions.changed.push(key.clone());
        } else {
            self.decide(key, now);
        }
    }

    fn decide(&mut self, key: &Key, now: Instant) {
        if self.waits_for_namespace(key) {
            self.decisions.set_waiting(key, true);
            return;
        }
        self.keep_addresses(key);
        self.assign_addresses(key, now);
        self.update_status(key, now);
    }

    /// Reports to the allocator the addresses that a Service uses although FerroLB did not assign
    /// them. These include addresses that the Service has lost, until the watch reports that its
    /// status no longer contains them, and no write with them can be on its way: whichever writes
    /// fail, no two Services show one address.
    pub(super) fn update_unmanaged(&mut self, key: &Key) {
        let Some(entry) = self.services.get(key) else { return };
        let mut addresses =
            self.config.unmanaged_addresses(&entry.service, entry.assignment.as_ref());
        let outdated = entry.outdated_addresses();
        addresses.extend(outdated.map(|address| (address, UnmanagedSource::StillInStatus)));
        let left = entry.new_addresses.left().iter();
        addresses.extend(left.map(|address| (*address, UnmanagedSource::ForeignHost)));
        addresses.sort_unstable();
        addresses.dedup();
        let namespace_labels = self.namespaces.get(key.namespace());
        let requester = Requester {
            service: &entry.service,
            sharing: SharingParameters::default(),
            namespace_labels,
        };
        self.allocator.set_unmanaged(&requester, &addresses);
    }

    /// Returns all hosts whose addresses are known, each with these addresses.
    fn hosts(&self) -> impl Iterator<Item = (AddressUser, HostUses)> {
        let nodes = self.nodes.keys().map(|name| AddressUser::node(name));
        nodes.chain([AddressUser::ApiServer]).map(|host| {
            let uses = self.host_uses(&host);
            (host, uses)
        })
    }

    fn host_uses(&self, host: &AddressUser) -> HostUses {
        match host {
            AddressUser::Node(name) => {
                let speaker = self.speakers.get(&**name);
                let Some(node) = self.nodes.get(name) else { return HostUses::default() };
                let mut uses = of_node(node, speaker);
                if self.is_former_router(node) {
                    let former = self.former_routes.addresses();
                    uses.extend(former.map(|it| (it, UnmanagedSource::FormerRoute)));
                }
                uses
            }
            AddressUser::ApiServer => {
                let service = api_server();
                let servers = self.slices.of(&service).flat_map(|slice| &slice.api_servers);
                let servers = servers.take(API_SERVERS_MAX);
                servers.map(|it| (*it, UnmanagedSource::ApiServer)).collect()
            }
            AddressUser::Service(_) => HostUses::default(),
        }
    }

    /// Reports to the allocator the addresses that a host uses, and decides the Services again that
    /// have an address which the host has begun or ceased to use. They keep it, with a warning.
    pub(super) fn update_host(&mut self, host: AddressUser) {
        if !self.leadership.is_active || self.decisions.all {
            return;
        }
        let uses = self.host_uses(&host);
        self.decisions.changed.extend(self.allocator.set_host_uses(host, &uses));
    }

    fn has_no_assignment(&self, key: &Key) -> bool {
        self.services.get(key).is_some_and(|entry| entry.assignment.is_none())
    }

    /// Returns true if the decision for a Service without addresses must wait for its Namespace.
    ///
    /// If a pool selects Namespaces by label, the decision requires the Namespace's labels. The
    /// Namespace exists before the Service, but its watch may report it later.
    fn waits_for_namespace(&self, key: &Key) -> bool {
        self.namespaces.get(key.namespace()).is_none()
            && self.pools_select_namespaces()
            && self.services.get(key).is_some_and(|entry| entry.present().is_empty())
    }

    pub(super) fn pools_select_namespaces(&self) -> bool {
        let selects =
            |pool: &Pool| pool.allocation.as_ref().is_some_and(|a| a.selects_namespaces());
        self.custom_resources.pools.values().any(selects)
    }

    /// Releases and remembers the addresses of a deleted Service. Removes it from the queues and
    /// the counts.
    pub(super) fn release(&mut self, key: &Key, mut entry: ServiceEntry, now: Instant) {
        self.status_queue.forget(&mut entry.attempts, &Target::Service(key.clone()));
        self.decisions.set_waiting(key, false);
        if let Some(assignment) = entry.assignment.take() {
            for address in &assignment.addresses {
                self.allocator.release(*address, key);
                self.record_former_route(*address, now);
            }
            self.allocator.remember(key, assignment.addresses, self.unix_time(now));
        }
        entry.role = Role::Foreign;
        self.counters.count(&mut entry);
        let requester = Requester {
            service: &entry.service,
            sharing: SharingParameters::default(),
            namespace_labels: None,
        };
        self.allocator.set_unmanaged(&requester, &[]);
    }

    /// Sorts Services into the order of assignment. Those that request specific addresses come
    /// first, because the others can use any address. Each group is sorted by name.
    fn sort_for_assignment(&self, keys: &mut [Key]) {
        let requests_addresses = |key: &Key| {
            self.services
                .get(key)
                .is_some_and(|entry| !entry.service.demand.request.addresses.is_empty())
        };
        keys.sort_by_cached_key(|key| (!requests_addresses(key), key.clone()));
    }

    /// Tries again to assign addresses to the waiting Services.
    fn retry_waiting(&mut self, now: Instant) {
        self.decisions.begin_retry(now);
        let mut waiting: Vec<_> = self.decisions.waiting.iter().cloned().collect();
        self.sort_for_assignment(&mut waiting);
        for key in waiting {
            if self.has_no_assignment(&key) {
                self.decide(&key, now);
                continue;
            }
            self.assign_addresses(&key, now);
            self.update_status(&key, now);
        }
    }

    pub(super) fn handle_leadership(&mut self, leadership: Leadership) {
        match leadership {
            Leadership::Held(until) => {
                if !self.leadership.hold_until(until) {
                    return;
                }
                self.mark_lists_incomplete();
            }
            Leadership::Lost => {
                self.leadership.end();
                self.node_failures.reset();
            }
            Leadership::Other(leader) => {
                self.leadership.follow(leader);
                return self.refute_silence_of_leader();
            }
        }
        self.wall_clock.set_leading(self.leadership.has_lease());
        self.step_down();
    }

    /// Discards all decisions and pending writes, because this replica has lost the lease or starts
    /// a new leadership term. The active leader decides again from the objects' statuses.
    pub(super) fn step_down(&mut self) {
        self.leadership.is_active = false;
        self.allocator = Allocator::default();
        self.decisions = DecisionQueue::default();
        self.missing_pools = MissingPools::default();
        self.former_routes = FormerRoutes::default();
        self.counters = ServiceCounters::default();
        self.status_queue.clear();
        for entry in self.services.values_mut() {
            entry.attempts = Attempts::default();
            (entry.assignment, entry.counted, entry.first_assigned_at) =
                (None, CounterLabels::default(), None);
            (entry.announced, entry.differs_since) = (None, None);
            entry.lost.clear();
            entry.new_addresses = UnannouncedAddresses::default();
            entry.sent_addresses = Vec::new();
            (entry.contest, entry.is_record_due) = (None, false);
        }
    }

    /// Keeps the addresses that a Service has and may use, and releases its other ones. Releases
    /// all addresses of a Service that FerroLB does not serve.
    fn keep_addresses(&mut self, key: &Key) {
        let Some(entry) = self.services.get_mut(key) else { return };
        entry.role = self.config.role(&entry.service, |it| self.allocator.is_own(it));
        if entry.role != Role::ServedByFerroLb {
            if let Some(assignment) = entry.assignment.take() {
                assignment
                    .addresses
                    .iter()
                    .for_each(|address| self.allocator.release(*address, key));
                entry.attempts.reset_delay();
            }
            return self.update_unmanaged(key);
        }
        let namespace_labels = self.namespaces.get(key.namespace());
        let requester = Requester {
            service: &entry.service,
            sharing: SharingParameters::of(&entry.service),
            namespace_labels,
        };
        let (addresses, pool, is_own) =
            (entry.present(), entry.pool_name(), entry.has_own_addresses());
        let present = Present { addresses: &addresses, pool: pool.as_deref(), is_own };
        let (assignment, lost) = service_addresses::keep(&mut self.allocator, &requester, present);
        if !lost.is_empty() {
            entry.lost = lost;
        }
        let before = entry.assignment.replace(assignment);
        // `service_addresses::keep` decides only the addresses and the pool. If the addresses are
        // unchanged, the other fields keep their values until `assign_addresses` decides them.
        if let (Some(before), Some(assignment)) = (before, &mut entry.assignment)
            && before.addresses == assignment.addresses
        {
            let pool = std::mem::take(&mut assignment.pool);
            if before.pool != pool {
                entry.attempts.reset_delay();
            }
            *assignment = service_addresses::Assignment { pool, ..before };
        } else {
            entry.attempts.reset_delay();
        }
        self.update_unmanaged(key);
    }

    /// Assigns the addresses in a Service's record, as far as it lacks addresses.
    fn adopt_record(&mut self, key: &Key) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let Some(assignment) = &mut entry.assignment else { return };
        let namespace_labels = self.namespaces.get(key.namespace());
        let sharing = SharingParameters::of(&entry.service);
        let requester = Requester { service: &entry.service, sharing, namespace_labels };
        if service_addresses::adopt_record(&mut self.allocator, &requester, assignment) {
            entry.attempts.reset_delay();
        }
    }

    /// Assigns the addresses that a Service lacks, as far as the pools have free ones.
    pub(super) fn assign_addresses(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let Some(mut assignment) = entry.assignment.clone() else {
            self.decisions.set_waiting(key, false);
            return;
        };
        let namespace_labels = self.namespaces.get(key.namespace());
        let requester = Requester {
            service: &entry.service,
            sharing: SharingParameters::of(&entry.service),
            namespace_labels,
        };
        let kept = assignment.addresses.clone();
        service_addresses::assign(&mut self.allocator, &requester, &mut assignment);
        if !assignment.addresses.is_empty() {
            self.allocator.forget(key);
        }
        self.decisions.set_waiting(key, assignment.shortage.is_some());
        if entry.service.assigned.is_empty() && !assignment.addresses.is_empty() {
            entry.first_assigned_at.get_or_insert(now);
        }
        if entry.assignment.as_ref() != Some(&assignment) {
            entry.attempts.reset_delay();
        }
        entry.assignment = Some(assignment);
        self.record_new_addresses(key, &kept);
        self.update_unmanaged(key);
    }

    /// Compares a Service's status with the desired one, and begins, queues or ends the write.
    pub(super) fn update_status(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let target = Target::Service(key.clone());
        let contest_end = entry.end_contest(now);
        let wanted = service::status(entry, &self.config.names);
        if wanted.is_none() {
            entry.lost.clear();
            // The watch may report the written status before the response to the write arrives. In
            // that case, measure the assignment latency here.
            let assigned_at =
                entry.first_assigned_at.take().filter(|_| !entry.service.assigned.is_empty());
            self.latencies.extend(
                assigned_at
                    .filter(|_| self.latencies.len() < LATENCIES_MAX)
                    .map(|assigned_at| now.since(assigned_at)),
            );
        }
        let is_written = wanted.is_some();
        let wanted = wanted.map(|wanted| Status::Service(key.clone(), wanted));
        self.status_queue.write(&mut entry.attempts, &target, wanted, now);
        if entry.attempts.is_in_flight() {
            let sent = entry.assignment.as_ref().map(|it| it.addresses.clone());
            entry.record_sent(&sent.unwrap_or_default());
        }
        if let Some(end) = contest_end {
            self.status_queue.queue(&mut entry.attempts, Class::Addresses, target, end);
        }
        self.counters.count(entry);
        self.update_record_repair(key, is_written, now);
    }
}
