//! Custom resources whose status the controller writes: their objects, and the desired statuses.
//! Part of the state, which the main loop owns.
//!
//! [`StatusResource`] describes the differences between the kinds. A change of an object only sets
//! a flag. At the end of the pass, the state compares the statuses of all objects once, because
//! they depend on each other.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::Instant;
use ferrolb_proto::api::{CustomResourceKind, StatusFields};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, Keyed, L2Advertisement, Pool,
};
use ferrolb_runtime::store::Store;
use ferrolb_runtime::watch::Change;

use super::write_queue::WriteQueue;
use super::{State, bgp, pools, validity};
use crate::desired::{CustomResourceStatus, Status, Target};

/// A kind of custom resource whose status the controller writes.
pub(super) trait StatusResource: Keyed<Key = Box<str>> + PartialEq {
    /// The API kind of these custom resources.
    const KIND: CustomResourceKind;
    /// Status of an object of this kind.
    type Status;
    /// Converts a status of this kind into the status of any kind.
    const STATUS: fn(Self::Status) -> CustomResourceStatus;
    /// Inputs of an object's status, in addition to the object itself.
    type StatusInputs<'a>;

    /// Returns the fact of an object that cannot be read, with `why` as its problem. `before` is
    /// the previous fact of the object.
    ///
    /// The status cannot be read either, so the fact keeps the status that was most recently read
    /// or written.
    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self;

    /// Returns the status that the object should have, or `None` if the object has it already or
    /// its CRD has no field for it.
    fn status(
        &self,
        around: &Self::StatusInputs<'_>,
        fields: &StatusFields,
    ) -> Option<Self::Status>;

    /// Records a written status as the object's current status, until the watch reports the object.
    fn record_written(&mut self, written: &Self::Status);
}

/// Objects of one kind, by name.
type Objects<K> = Store<Box<str>, K>;

/// Custom resources of all kinds whose status the controller writes.
#[derive(Debug, Default)]
pub(super) struct CustomResources {
    pub(super) pools: Objects<Pool>,
    pub(super) advertisements: Objects<L2Advertisement>,
    pub(super) communities: Objects<Community>,
    pub(super) peers: Objects<BgpPeer>,
    pub(super) bgp_advertisements: Objects<BgpAdvertisement>,
    pub(super) profiles: Objects<BfdProfile>,
    /// Whether the statuses of all objects must be compared again, because a change may concern any
    /// of them.
    pub(super) statuses_dirty: bool,
}

impl CustomResources {
    /// Marks the stores as incomplete until new lists arrive.
    pub(super) const fn doubt(&mut self) {
        self.pools.mark_incomplete();
        self.advertisements.mark_incomplete();
        self.communities.mark_incomplete();
        self.peers.mark_incomplete();
        self.bgp_advertisements.mark_incomplete();
        self.profiles.mark_incomplete();
    }

    /// Records a written status as the object's current status, until the watch reports the object.
    pub(super) fn assume(&mut self, name: &str, written: &CustomResourceStatus) {
        match written {
            CustomResourceStatus::Pool(status) => assume(&mut self.pools, name, status),
            CustomResourceStatus::Advertisement(status) => {
                assume(&mut self.advertisements, name, status)
            }
            CustomResourceStatus::Community(status) => assume(&mut self.communities, name, status),
            CustomResourceStatus::Peer(status) => assume(&mut self.peers, name, status),
            CustomResourceStatus::BgpAdvertisement(status) => {
                assume(&mut self.bgp_advertisements, name, status);
            }
            CustomResourceStatus::BfdProfile(status) => assume(&mut self.profiles, name, status),
        }
    }
}

fn assume<K: StatusResource>(objects: &mut Objects<K>, name: &str, written: &K::Status) {
    if let Some(object) = objects.get_mut(name) {
        object.record_written(written);
    }
}

impl State {
    /// Stores a change of a custom resource. The state compares the statuses at the end of the
    /// pass.
    pub(super) fn handle_custom_resource<K: StatusResource>(
        &mut self,
        objects: fn(&mut CustomResources) -> &mut Objects<K>,
        change: Change<K>,
    ) {
        self.custom_resources.statuses_dirty = true;
        let objects = objects(&mut self.custom_resources);
        let change = if let Change::Unreadable { key, why } = change {
            let before = objects.get(&key.name);
            Change::Apply(K::unreadable(key.name, why.into(), before))
        } else {
            change
        };
        let changed = objects.handle(change, Some);
        for (name, _) in &changed {
            if objects.get(name).is_none() {
                self.write_queue.forget_own(&Target::CustomResource(K::KIND, name.clone()));
            }
        }
        if !changed.is_empty() {
            // Only pools affect the assignment of addresses. Every kind can affect how addresses
            // are announced.
            self.all_services_dirty |= K::KIND == CustomResourceKind::IPAddressPool;
            self.recheck_all_services();
        }
    }

    /// Compares the statuses of custom resources with the desired ones, and queues the necessary
    /// writes.
    ///
    /// If no change may concern all objects, compares only the pools whose counts have changed.
    /// Skips a kind if a list of objects on which its statuses depend is incomplete.
    pub(super) fn update_custom_resources(&mut self, now: Instant) {
        let has_speakers = self.speakers.is_complete() || !self.has_speakers();
        let touched = self.allocator.take_touched();
        let all = std::mem::take(&mut self.custom_resources.statuses_dirty);
        let Self { custom_resources: own, write_queue: agenda, status_fields: fields, .. } = self;
        let mut settle = StatusComparison { agenda, fields, now };
        let around =
            pools::PoolStatusInputs { faults: &self.pool_faults, allocator: &self.allocator };
        let pools = own.pools.values().filter(|pool| all || touched.contains(&pool.name));
        settle.all(pools, &around);
        if !all {
            return;
        }
        let names: BTreeSet<_> = own.pools.keys().map(|name| &**name).collect();
        settle.all(own.advertisements.values(), &names);
        let (has_peers, has_profiles) = (own.peers.is_complete(), own.profiles.is_complete());
        if has_profiles {
            settle.all(own.profiles.values(), &());
        }
        if has_peers && has_profiles && has_speakers {
            let around = bgp::peers::PeerStatusInputs::of(own, &self.nodes, &self.speakers);
            settle.all(own.peers.values(), &around);
        }
        if own.communities.is_complete() {
            let owners = validity::alias_owners(own.communities.values());
            settle.all(own.communities.values(), &owners);
            if has_peers && own.bgp_advertisements.is_complete() {
                let around =
                    bgp::advertisements::AdvertisementStatusInputs::of(own, &self.nodes, owners);
                settle.all(own.bgp_advertisements.values(), &around);
            }
        }
    }
}

/// Compares the statuses of custom resources with the desired ones, and queues the writes.
struct StatusComparison<'a> {
    agenda: &'a mut WriteQueue,
    fields: &'a BTreeMap<CustomResourceKind, StatusFields>,
    now: Instant,
}

impl StatusComparison<'_> {
    fn all<'o, K: StatusResource + 'o>(
        &mut self,
        objects: impl Iterator<Item = &'o K>,
        around: &K::StatusInputs<'_>,
    ) {
        let Some(fields) = self.fields.get(&K::KIND) else { return };
        for object in objects {
            let name = object.key();
            let status = object.status(around, fields);
            let status =
                status.map(|status| Status::CustomResource(name.clone(), K::STATUS(status)));
            self.agenda.set_own(Target::CustomResource(K::KIND, name), status, self.now);
        }
    }
}
