//! The statuses of custom resources that the API server should have; methods of the state.
//!
//! A change of an object only sets a flag. At the end of the pass, the state compares the statuses
//! of all objects with the desired ones, because each status may depend on other objects.

use std::collections::BTreeMap;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{L2Advertisement, Pool, Speaker};
use ferrolb_proto::range::{AddressRange, Family};

use super::custom_resources::StatusResource;
use super::pools::AnnouncingSubnets;
use super::status_queue::StatusQueue;
use super::{State, bgp, pools, validity};
use crate::desired::{Status, Target};

impl State {
    /// Returns, for each pool, the ranges that are in no subnet of the interfaces on which its
    /// L2Advertisements announce it.
    fn ranges_outside_subnets(&self) -> BTreeMap<Box<str>, Vec<AddressRange>> {
        let resources = &self.custom_resources;
        let outside = |pool: &Pool| {
            let mut subnets = AnnouncingSubnets::default();
            let selecting = resources.advertisements.values().filter(|ad| ad.selects_pool(pool));
            selecting.for_each(|ad| self.add_announcing_subnets(ad, &mut subnets));
            pools::ranges_outside(pool, &subnets)
        };
        let pools = resources.pools.values().map(|pool| (pool.name.clone(), outside(pool)));
        pools.filter(|(_, ranges)| !ranges.is_empty()).collect()
    }

    /// Adds the subnets of all interfaces on which an L2Advertisement announces.
    fn add_announcing_subnets(&self, ad: &L2Advertisement, all: &mut AnnouncingSubnets) {
        let is_selected = |speaker: &&Speaker| {
            self.nodes
                .get(&*speaker.node)
                .is_some_and(|node| ad.selectors.select_node(&node.labels))
        };
        for speaker in self.speakers.values().filter(is_selected) {
            let interfaces = speaker.interfaces.iter();
            for interface in interfaces.filter(|it| it.up && ad.selects_interface(&it.name)) {
                let families = [Family::V4, Family::V6].into_iter();
                let known = families.filter(|family| speaker.knows_subnets(interface, *family));
                all.families.extend(known);
                all.ranges.extend(&interface.subnets);
            }
        }
    }

    /// Compares the statuses of custom resources with the desired ones, and begins or queues the
    /// necessary writes. Custom resources of another product get no status.
    ///
    /// If no change may concern all objects, compares only those that are due, and the pools whose
    /// counts have changed. Skips a kind if a list of objects on which its statuses depend is
    /// incomplete.
    pub(super) fn update_custom_resources(&mut self, due: &[Target], now: Instant) {
        let has_speakers = self.speakers.is_complete() || !self.has_speakers();
        let changed_pools = self.allocator.take_changed_pools();
        let all = std::mem::take(&mut self.custom_resources.statuses_dirty);
        if self.config.foreign_custom_resources {
            return;
        }
        if all && has_speakers {
            self.ranges_outside = self.ranges_outside_subnets();
        }
        let Self { custom_resources: resources, status_queue, .. } = self;
        let selected = (!all).then_some(due);
        let mut comparison = StatusComparison { status_queue, selected, now };
        let inputs = pools::PoolStatusInputs {
            faults: &self.pool_faults,
            allocator: &self.allocator,
            ranges_outside: &self.ranges_outside,
        };
        for name in changed_pools.iter().filter(|_| !all) {
            resources.pools.get(name).into_iter().for_each(|it| comparison.update(it, &inputs));
        }
        if !all && due.is_empty() {
            return;
        }
        comparison.compare(resources.pools.values(), &inputs);
        let pools = resources.pools.keys().map(|name| &**name).collect();
        let interfaces = self.speakers.values().flat_map(|speaker| &speaker.interfaces);
        let interfaces = interfaces.map(|interface| &*interface.name).collect();
        let inputs = validity::L2StatusInputs { pools, interfaces };
        // An advertisement that names interfaces waits for the statuses of all speakers.
        let advertisements = resources.advertisements.values();
        let known = advertisements.filter(|ad| has_speakers || ad.interfaces().is_empty());
        comparison.compare(known, &inputs);
        let (has_peers, has_profiles) =
            (resources.peers.is_complete(), resources.profiles.is_complete());
        if has_profiles {
            comparison.compare(resources.profiles.values(), &());
        }
        if has_peers && has_profiles && has_speakers {
            let stale = &self.stale_speakers.nodes;
            let inputs =
                bgp::peers::PeerStatusInputs::of(resources, &self.nodes, &self.speakers, stale);
            comparison.compare(resources.peers.values(), &inputs);
        }
        if resources.communities.is_complete() {
            let owners = validity::alias_owners(resources.communities.values());
            comparison.compare(resources.communities.values(), &owners);
            if has_peers && resources.bgp_advertisements.is_complete() {
                let inputs = bgp::advertisements::AdvertisementStatusInputs::of(
                    resources,
                    &self.nodes,
                    owners,
                );
                comparison.compare(resources.bgp_advertisements.values(), &inputs);
            }
        }
    }
}

/// Compares the statuses of custom resources with the desired ones, and begins or queues the
/// writes.
struct StatusComparison<'a> {
    status_queue: &'a mut StatusQueue,
    /// The objects to compare; `None`: all.
    selected: Option<&'a [Target]>,
    now: Instant,
}

impl StatusComparison<'_> {
    fn compare<'o, K: StatusResource + 'o>(
        &mut self,
        objects: impl Iterator<Item = &'o K>,
        inputs: &K::StatusInputs<'_>,
    ) {
        for object in objects {
            let is_selected = |selected: &[Target]| selected.contains(&target(object));
            if self.selected.is_none_or(is_selected) {
                self.update(object, inputs);
            }
        }
    }

    fn update<K: StatusResource>(&mut self, object: &K, inputs: &K::StatusInputs<'_>) {
        let status = object.status(inputs);
        let status = status.map(|status| Status::CustomResource(object.key(), status));
        self.status_queue.write_resource(target(object), status, self.now);
    }
}

fn target<K: StatusResource>(object: &K) -> Target {
    Target::CustomResource(K::KIND, object.key())
}
