//! The state's decisions: who keeps what, who gets what, and which statuses have to change. Only in office.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::api::Kind;
use ferrolb_proto::facts::{Key, Pool, Service};

use super::alloc::{Allocator, Asker, Means};
use super::announced::{Checks, Reason};
use super::hold;
use super::reasons::SERVED_BY_METALLB;
use super::service::{self, Counted, Entry, Role};
use super::sharing::Terms;
use super::{LATENCIES_MAX, Own, RETRY_INTERVAL, State, Tally, bare, pools, validity};
use crate::desired::{NOT_WRITTEN, Target};

impl State {
    /// What is left to decide at the end of a pass.
    pub(super) fn decide_the_rest(&mut self, now: Instant) {
        if !self.in_office {
            return;
        }
        if self.all_in_doubt {
            self.decide_all(now);
        }
        if now >= self.retry_at {
            self.serve_waiting(now);
        }
        // Who waits longest is served first. Who moves to where it has all it needs leaves something behind for others, but
        // does so once.
        loop {
            while self.allocator.take_freed() {
                self.serve_waiting(now);
            }
            let deferred = std::mem::take(&mut self.deferred);
            if deferred.is_empty() {
                break;
            }
            deferred.iter().for_each(|key| self.decide(key, now));
        }
        for name in self.allocator.take_touched() {
            self.settle_pool(&name, now);
        }
        self.settle_bgp(now);
    }

    /// Decides everything anew: at the begin of a term, and when pools, Nodes or Namespaces have changed. First all keep what
    /// they have: those whose terms are the recorded ones before the others, each in the order of their names. Then those
    /// that lack something get it.
    fn decide_all(&mut self, now: Instant) {
        self.all_in_doubt = false;
        self.doubt_announcing();
        self.bgp.in_doubt = true;
        self.faults = pools::faults(self.pools.iter().map(|(_, own)| &own.object));
        let faults = &self.faults;
        let pools = self.pools.iter().map(|(_, own)| (&own.object, !faults.contains_key(&own.object.name)));
        let nodes = self.nodes.iter().flat_map(|(_, node)| node.addresses.iter().copied());
        let outside = self.services.iter().map(|(_, entry)| {
            let service = &entry.service;
            let namespace_labels = self.namespaces.get(&bare(&service.key.namespace));
            (Asker { service, terms: Terms::default(), namespace_labels }, self.config.outside(service))
        });
        self.allocator.set_pools(pools, nodes, outside);
        self.deferred.clear();
        let (unclear, mut keys): (Vec<_>, Vec<_>) =
            self.services.keys().into_iter().partition(|key| self.is_unclear(key));
        self.waiting.extend(unclear);
        let settled = |entry: &Entry| service::is_settled(&entry.service, &Terms::of(&entry.service));
        keys.sort_by_cached_key(|key| !self.services.get(key).is_some_and(settled));
        keys.iter().for_each(|key| self.keep(key));
        // All that lack something are filled now; what is freed from here on, they have not seen.
        self.allocator.take_freed();
        self.sort_to_serve(&mut keys);
        keys.iter().for_each(|key| self.fill(key, now));
        keys.iter().for_each(|key| self.settle_service(key, now));
        self.allocator.take_touched();
        self.retry_at = now + RETRY_INTERVAL;
        for name in names(self.pools.keys()) {
            self.settle_pool(&name, now);
        }
        for name in names(self.advertisements.keys()) {
            self.settle_advertisement(&name, now);
        }
        if self.communities.is_complete() {
            self.settle_communities(now);
        }
    }

    /// Decides what a change of one Service makes of it: at once, or at the end of the pass if something has become free, which
    /// those get first that have waited for it.
    pub(super) fn decide_one(&mut self, key: &Key, before: &Service, now: Instant) {
        if !self.in_office || self.all_in_doubt {
            return;
        }
        if let Some(entry) = self.services.get(key) {
            let (had, has) = (self.config.outside(before), self.config.outside(&entry.service));
            // What it had from elsewhere and brings along is its own, before it is free for those who wait.
            if had.iter().any(|one| !has.contains(one)) {
                self.keep(key);
            }
            self.set_outside(key, &has);
        }
        if self.allocator.has_freed() {
            self.deferred.push(key.clone());
        } else {
            self.decide(key, now);
        }
    }

    fn decide(&mut self, key: &Key, now: Instant) {
        if self.is_unclear(key) {
            self.waiting.insert(key.clone());
            return;
        }
        self.keep(key);
        self.fill(key, now);
        self.settle_service(key, now);
    }

    /// The allocator learns what a Service has from elsewhere.
    fn set_outside(&mut self, key: &Key, addresses: &[(IpAddr, Means)]) {
        let Some(entry) = self.services.get(key) else { return };
        let namespace_labels = self.namespaces.get(&bare(&key.namespace));
        let asker = Asker { service: &entry.service, terms: Terms::default(), namespace_labels };
        self.allocator.set_outside(&asker, addresses);
    }

    fn has_no_claim(&self, key: &Key) -> bool {
        self.services.get(key).is_some_and(|entry| entry.claim.is_none())
    }

    /// Whether it cannot be said yet what a Service that has nothing is to get, because pools choose Namespaces by their labels
    /// and its own was not seen: it is made before the Service, and told by another watch.
    fn is_unclear(&self, key: &Key) -> bool {
        self.namespaces.get(&bare(&key.namespace)).is_none()
            && self.pools_select_namespaces()
            && self.services.get(key).is_some_and(|entry| entry.present().is_empty())
    }

    pub(super) fn pools_select_namespaces(&self) -> bool {
        let selects = |own: &Own<Pool, _>| own.object.allocation.as_ref().is_some_and(|a| a.selects_namespaces());
        self.pools.iter().any(|(_, own)| selects(own))
    }

    /// Gives back what a Service had that is gone.
    pub(super) fn release(&mut self, key: &Key, mut entry: Entry) {
        self.agenda.withdraw(&mut entry.draft);
        self.checks.forget(key, &mut entry.motion);
        self.waiting.remove(key);
        for address in entry.claim.take().into_iter().flat_map(|claim| claim.addresses) {
            self.allocator.release(address, key);
        }
        self.tally.count(&mut entry, Role::Foreign);
        let asker = Asker { service: &entry.service, terms: Terms::default(), namespace_labels: None };
        self.allocator.set_outside(&asker, &[]);
    }

    /// The order in which Services are served: those that ask for certain addresses, lest these go to somebody whom any
    /// would have served; then the others; each by name.
    fn sort_to_serve(&self, keys: &mut [Key]) {
        let asks =
            |key: &Key| self.services.get(key).is_some_and(|entry| !entry.service.demand.request.addresses.is_empty());
        keys.sort_by_cached_key(|key| (!asks(key), key.clone()));
    }

    /// Looks again at those that wait.
    fn serve_waiting(&mut self, now: Instant) {
        self.retry_at = now + RETRY_INTERVAL;
        let mut waiting: Vec<_> = self.waiting.iter().cloned().collect();
        self.sort_to_serve(&mut waiting);
        for key in waiting {
            if self.has_no_claim(&key) {
                self.decide(&key, now);
                continue;
            }
            self.fill(&key, now);
            self.settle_service(&key, now);
        }
    }

    /// Forgets every decision, as a replica without the lease does.
    pub(super) fn resign(&mut self) {
        self.in_office = false;
        self.allocator = Allocator::default();
        self.waiting.clear();
        self.deferred.clear();
        self.tally = Tally::default();
        self.checks = Checks::default();
        for key in self.services.keys() {
            let Some(entry) = self.services.get_mut(&key) else { continue };
            self.agenda.withdraw(&mut entry.draft);
            (entry.claim, entry.counted, entry.given_at) = (None, Counted::default(), None);
            (entry.announced, entry.motion) = (None, None);
            entry.lost.clear();
        }
        self.pools.values_mut().for_each(|own| self.agenda.withdraw(&mut own.draft));
        self.advertisements.values_mut().for_each(|own| self.agenda.withdraw(&mut own.draft));
        self.communities.values_mut().for_each(|own| self.agenda.withdraw(&mut own.draft));
        self.bgp.withdraw(&mut self.agenda);
    }

    /// Lets a Service keep what it has and may have; one that is not ours has nothing.
    fn keep(&mut self, key: &Key) {
        let Some(entry) = self.services.get_mut(key) else { return };
        if self.config.role(&entry.service) != Role::Ours {
            if let Some(claim) = entry.claim.take() {
                claim.addresses.iter().for_each(|address| self.allocator.release(*address, key));
                entry.draft.renew();
            }
            return;
        }
        let namespace_labels = self.namespaces.get(&bare(&key.namespace));
        let asker = Asker { service: &entry.service, terms: Terms::of(&entry.service), namespace_labels };
        let (claim, lost) = hold::keep(&mut self.allocator, &asker, &entry.present(), entry.from().as_deref());
        if !lost.is_empty() {
            entry.lost = lost;
        }
        let before = entry.claim.replace(claim);
        // Only whether it has what it had is new so far: the rest is filled in.
        if let (Some(before), Some(claim)) = (before, &mut entry.claim)
            && before.addresses == claim.addresses
        {
            let pool = std::mem::take(&mut claim.pool);
            if before.pool != pool {
                entry.draft.renew();
            }
            *claim = hold::Claim { pool, ..before };
        } else {
            entry.draft.renew();
        }
    }

    /// Gives a Service what it lacks.
    fn fill(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let Some(mut claim) = entry.claim.clone() else {
            self.waiting.remove(key);
            return;
        };
        let namespace_labels = self.namespaces.get(&bare(&key.namespace));
        let asker = Asker { service: &entry.service, terms: Terms::of(&entry.service), namespace_labels };
        entry.lost.extend(hold::fill(&mut self.allocator, &asker, &mut claim));
        if claim.short.is_some() {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
        if entry.service.assigned.is_empty() && !claim.addresses.is_empty() {
            entry.given_at.get_or_insert(now);
        }
        if entry.claim.as_ref() != Some(&claim) {
            entry.draft.renew();
        }
        entry.claim = Some(claim);
    }

    /// Compares a Service with what it should be.
    pub(super) fn settle_service(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let role = self.config.role(&entry.service);
        let wanted = service::status(entry, role);
        if wanted.is_none() {
            entry.lost.clear();
            // The watch may show what was written before the answer to the write comes.
            let shown = entry.given_at.take().filter(|_| !entry.service.assigned.is_empty());
            self.latencies.extend(shown.filter(|_| self.latencies.len() < LATENCIES_MAX).map(|given| now.since(given)));
        }
        self.agenda.set(&Target::Service(key.clone()), &mut entry.draft, wanted, now);
        self.tally.count(entry, role);
    }

    /// Compares a pool's status with what it should be.
    pub(super) fn settle_pool(&mut self, name: &str, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::IPAddressPool).filter(|_| self.in_office) else { return };
        let Some(own) = self.pools.get_mut(&bare(name)) else { return };
        let sound = pools::sound(self.allocator.skipped(name));
        let counts = self.allocator.counts(name);
        let wanted = pools::pool_status(&own.object, self.faults.get(name), &sound, counts, fields);
        // Counts change with every Service: no quarrel, but not to be written with every one either.
        own.draft.renew();
        own.draft.hold_until(own.quiet_until);
        self.agenda.set(&Target::Pool(name.into()), &mut own.draft, wanted, now);
    }

    /// Compares an advertisement's status with what it should be.
    pub(super) fn settle_advertisement(&mut self, name: &str, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::L2Advertisement).filter(|_| self.in_office) else { return };
        let pools: BTreeSet<&str> = self.pools.iter().map(|(key, _)| &*key.name).collect();
        let Some(own) = self.advertisements.get_mut(&bare(name)) else { return };
        let wanted = validity::advertisement_status(&own.object, &pools, fields);
        own.draft.renew();
        own.draft.hold_until(own.quiet_until);
        self.agenda.set(&Target::Advertisement(name.into()), &mut own.draft, wanted, now);
    }

    /// Compares the statuses of all Communities with what they should be.
    pub(super) fn settle_communities(&mut self, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::Community).filter(|_| self.in_office) else { return };
        let owners = validity::alias_owners(self.communities.iter().map(|(_, own)| &own.object));
        let wanted = self.communities.iter().map(|(_, own)| validity::community_status(&own.object, &owners, fields));
        let wanted: Vec<_> = wanted.collect();
        for (own, wanted) in self.communities.values_mut().zip(wanted) {
            own.draft.renew();
            own.draft.hold_until(own.quiet_until);
            self.agenda.set(&Target::Community(own.object.name.clone()), &mut own.draft, wanted, now);
        }
    }
}

impl Tally {
    /// Counts a Service as it is now, and no longer as it was.
    pub(super) fn count(&mut self, entry: &mut Entry, role: Role) {
        let claim = entry.claim.as_ref();
        let has = claim.filter(|claim| !claim.addresses.is_empty());
        let decided = claim.and_then(service::reason).or((role == Role::Contested).then_some(SERVED_BY_METALLB));
        let now = Counted {
            reason: decided.map(|reason| if entry.draft.is_refused() { NOT_WRITTEN } else { reason }),
            announced: claim.and_then(|_| Reason::of(entry)),
            pool: has.and_then(|claim| claim.pool.clone()),
        };
        if entry.counted == now {
            return;
        }
        let was = std::mem::replace(&mut entry.counted, now.clone());
        if let Some(count) = was.reason.and_then(|reason| self.reasons.get_mut(reason)) {
            *count -= 1;
        }
        if let Some(count) = was.announced.and_then(|reason| self.announced.get_mut(&reason)) {
            *count -= 1;
        }
        if let Some(count) = was.pool.and_then(|pool| self.pools.get_mut(&pool)) {
            *count = count.saturating_sub(1);
        }
        now.reason.into_iter().for_each(|reason| *self.reasons.entry(reason).or_default() += 1);
        now.announced.into_iter().for_each(|reason| *self.announced.entry(reason).or_default() += 1);
        now.pool.into_iter().for_each(|pool| *self.pools.entry(pool).or_default() += 1);
    }
}

fn names(keys: Vec<Key>) -> impl Iterator<Item = Box<str>> {
    keys.into_iter().map(|key| key.name)
}
