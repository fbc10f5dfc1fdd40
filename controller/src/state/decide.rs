//! The state's decisions: who keeps what, who gets what, and which statuses have to change. Only in office.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;
use ferrolb_proto::range::Family;

use super::alloc::Allocator;
use super::service::{self, Claim, Entry};
use super::{State, bare, pools};
use crate::desired::Target;

impl State {
    /// Decides everything anew: at the begin of a term, and when pools or Nodes have changed. First all keep what they have,
    /// in the order of their names; then those that lack something get it.
    pub(super) fn decide_all(&mut self, now: Instant) {
        self.faults = pools::faults(self.pools.iter().map(|(_, own)| &own.object));
        let faults = &self.faults;
        let pools = self.pools.iter().map(|(_, own)| (&own.object, !faults.contains_key(&own.object.name)));
        self.allocator.set_pools(pools, self.nodes.iter().flat_map(|(_, addresses)| addresses.iter().copied()));
        let keys = self.services.keys();
        keys.iter().for_each(|key| self.keep(key));
        keys.iter().for_each(|key| self.fill(key));
        keys.iter().for_each(|key| self.settle_service(key, now));
        self.allocator.take_freed();
        self.allocator.take_touched();
        for name in names(self.pools.keys()) {
            self.settle_pool(&name, now);
        }
        for name in names(self.advertisements.keys()) {
            self.settle_advertisement(&name, now);
        }
    }

    /// Decides what a change of one Service makes of it and of those that wait.
    pub(super) fn decide_one(&mut self, key: &Key, now: Instant) {
        if !self.in_office {
            return;
        }
        self.keep(key);
        self.fill(key);
        self.settle_service(key, now);
        self.follow_up(now);
    }

    /// Gives back what a Service had that is gone.
    pub(super) fn release(&mut self, key: &Key, mut entry: Entry, now: Instant) {
        self.agenda.withdraw(&mut entry.draft);
        count(&mut self.reasons, &mut entry, None);
        self.waiting.remove(key);
        for address in entry.claim.into_iter().flat_map(|claim| claim.addresses) {
            self.allocator.release(address);
        }
        if self.in_office {
            self.follow_up(now);
        }
    }

    /// What became free goes to those that wait, in the order of their names; what was touched is counted.
    fn follow_up(&mut self, now: Instant) {
        if self.allocator.take_freed() {
            for key in self.waiting.clone() {
                self.fill(&key);
                self.settle_service(&key, now);
            }
        }
        for name in self.allocator.take_touched() {
            self.settle_pool(&name, now);
        }
    }

    /// Forgets every decision, as a replica without the lease does.
    pub(super) fn resign(&mut self) {
        self.in_office = false;
        self.allocator = Allocator::default();
        self.waiting.clear();
        self.reasons.clear();
        for key in self.services.keys() {
            let Some(entry) = self.services.get_mut(&key) else { continue };
            self.agenda.withdraw(&mut entry.draft);
            (entry.claim, entry.counted) = (None, None);
            entry.lost.clear();
        }
        for key in self.pools.keys() {
            if let Some(own) = self.pools.get_mut(&key) {
                self.agenda.withdraw(&mut own.draft);
            }
        }
        for key in self.advertisements.keys() {
            if let Some(own) = self.advertisements.get_mut(&key) {
                self.agenda.withdraw(&mut own.draft);
            }
        }
    }

    /// Lets a Service keep, of each family it needs, the first address that it has and may have.
    fn keep(&mut self, key: &Key) {
        let Some(entry) = self.services.get(key) else { return };
        let ours = entry.service.is_ours(&self.config.classes, self.config.default_implementation);
        let present = entry.present();
        let families = if ours { entry.service.families.clone() } else { Vec::new() };
        let from =
            entry.claim.as_ref().and_then(|claim| claim.pool.clone()).or_else(|| entry.service.from_pool.clone());
        let before = entry.claim.clone();
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for family in families {
            for address in present.iter().copied().filter(|address| Family::of(*address) == family) {
                match self.allocator.holder(address, key, from.as_deref()) {
                    Ok(pool) => {
                        kept.push((address, pool));
                        break;
                    }
                    Err(loss) => lost.push((address, loss)),
                }
            }
        }
        for address in before.iter().flat_map(|claim| &claim.addresses) {
            if !kept.iter().any(|(kept, _)| kept == address) {
                self.allocator.release(*address);
            }
        }
        for (address, pool) in &kept {
            self.allocator.take(*address, key.clone(), pool);
        }
        let Some(entry) = self.services.get_mut(key) else { return };
        entry.claim = ours.then(|| Claim {
            pool: kept.first().map(|(_, pool)| pool.clone()),
            addresses: kept.into_iter().map(|(address, _)| address).collect(),
            // Kept until it is filled, so that what stays as it was counts as no new decision.
            short: before.as_ref().and_then(|claim| claim.short.clone()),
        });
        if !lost.is_empty() {
            entry.lost = lost;
        }
        if entry.claim != before {
            entry.draft.renew();
        }
    }

    /// Gives a Service what it lacks: all from one pool, or from the pool of what it has.
    fn fill(&mut self, key: &Key) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let missing = entry.missing();
        let Some(claim) = entry.claim.as_mut().filter(|_| !entry.service.deleting) else {
            self.waiting.remove(key);
            return;
        };
        let before = claim.clone();
        claim.short = None;
        if !missing.is_empty() {
            match self.allocator.give(key, &missing, claim.pool.as_deref()) {
                Ok((pool, addresses)) => {
                    claim.addresses.extend(addresses);
                    let families = &entry.service.families;
                    let place = |address: &IpAddr| families.iter().position(|family| *family == Family::of(*address));
                    claim.addresses.sort_by_key(place);
                    claim.pool.get_or_insert(pool);
                }
                Err(shortage) => claim.short = Some(shortage),
            }
        }
        let short = claim.short.is_some();
        if *claim != before {
            entry.draft.renew();
        }
        if short {
            self.waiting.insert(key.clone())
        } else {
            self.waiting.remove(key)
        };
    }

    /// Compares a Service with what it should be.
    fn settle_service(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.services.get_mut(key) else { return };
        let role = service::role(&entry.service, &self.config.classes, self.config.default_implementation);
        let wanted = service::status(entry, role);
        if wanted.is_none() {
            entry.lost.clear();
        }
        count(&mut self.reasons, entry, entry.claim.as_ref().and_then(service::reason));
        self.agenda.set(&Target::Service(key.clone()), &mut entry.draft, wanted, now);
    }

    /// Compares a pool's status with what it should be.
    pub(super) fn settle_pool(&mut self, name: &str, now: Instant) {
        let counts = self.allocator.counts(name);
        let Some(own) = self.pools.get_mut(&bare(name)).filter(|_| self.in_office) else { return };
        let wanted = pools::pool_status(&own.object, self.faults.get(name), counts);
        // Counts change with every Service: no quarrel, but not to be written with every one either.
        own.draft.renew();
        own.draft.hold_until(own.quiet_until);
        self.agenda.set(&Target::Pool(name.into()), &mut own.draft, wanted, now);
    }

    /// Compares an advertisement's status with what it should be.
    pub(super) fn settle_advertisement(&mut self, name: &str, now: Instant) {
        let pools: BTreeSet<&str> = self.pools.iter().map(|(key, _)| &*key.name).collect();
        let Some(own) = self.advertisements.get_mut(&bare(name)).filter(|_| self.in_office) else { return };
        let wanted = pools::advertisement_status(&own.object, &pools);
        own.draft.renew();
        own.draft.hold_until(own.quiet_until);
        self.agenda.set(&Target::Advertisement(name.into()), &mut own.draft, wanted, now);
    }
}

/// Counts a Service under this reason, and no longer under another.
fn count(reasons: &mut BTreeMap<&'static str, i64>, entry: &mut Entry, reason: Option<&'static str>) {
    if entry.counted == reason {
        return;
    }
    if let Some(count) = entry.counted.and_then(|before| reasons.get_mut(before)) {
        *count -= 1;
    }
    if let Some(reason) = reason {
        *reasons.entry(reason).or_default() += 1;
    }
    entry.counted = reason;
}

fn names(keys: Vec<Key>) -> impl Iterator<Item = Box<str>> {
    keys.into_iter().map(|key| key.name)
}
