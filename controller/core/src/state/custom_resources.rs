//! Custom resources whose status the controller writes: the list of their kinds, and their objects.
//! Part of the state, which the main loop owns.
//!
//! [`StatusResource`] describes the differences between the kinds.

use ferrolb_core::store::{Change, Store};
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, CustomResource, Key, Keyed, L2Advertisement,
    Pool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use super::State;
use super::conditions::{compare_status, record_status};
use super::messages::Message;
use crate::desired::{CustomResourceStatus, Target, ValidStatus};
use crate::event::Event;

/// The fields of any custom resource on which its condition `Valid` depends.
pub(super) trait Validity {
    /// Returns the desired condition `Valid` with this message, and whether the object has it
    /// already.
    fn validity(&self, message: &impl Message) -> (ValidStatus, bool);

    /// Records a written condition as the object's current one, until the watch reports the object.
    fn record_validity(&mut self, written: &ValidStatus);

    /// Returns the desired condition `Valid` with this message, or `None` if the object has it
    /// already.
    fn changed_validity(&self, message: &impl Message) -> Option<ValidStatus> {
        let (desired, same) = self.validity(message);
        (!same).then_some(desired)
    }
}

/// A kind of custom resource whose status the controller writes.
pub(super) trait StatusResource:
    Validity + CustomResource + Keyed<Key = Box<str>> + PartialEq
{
    /// Inputs of an object's status, in addition to the object itself.
    type StatusInputs<'a>;

    /// Returns the fact of an object that cannot be read, with `why` as its problem. `before` is
    /// the previous fact of the object.
    ///
    /// The status cannot be read either, so the fact keeps the status that was most recently read
    /// or written.
    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self;

    /// Returns the status that the object should have, or `None` if the object has it already.
    fn status(&self, inputs: &Self::StatusInputs<'_>) -> Option<CustomResourceStatus>;

    /// Records a written status as the object's current status, until the watch reports the object.
    fn record_written(&mut self, written: &CustomResourceStatus) {
        self.record_validity(written.valid());
    }

    /// Returns the status of an object of this kind, if its only condition is `Valid`.
    fn valid(status: ValidStatus) -> CustomResourceStatus {
        CustomResourceStatus::Valid(Self::KIND, status)
    }
}

/// Objects of one kind, by name.
type Objects<K> = Store<Box<str>, K>;

macro_rules! custom_resources {
    ($($objects:ident: $fact:ident),+ $(,)?) => {
        /// Custom resources of all kinds whose status the controller writes.
        #[derive(Debug, Default)]
        pub(super) struct CustomResources {
            $(pub(super) $objects: Objects<$fact>,)+
            /// True if the statuses of all objects must be compared again, because a change may
            /// concern any of them.
            pub(super) statuses_dirty: bool,
        }

        impl CustomResources {
            /// Marks the stores as incomplete until new lists arrive.
            pub(super) const fn mark_incomplete(&mut self) {
                $(self.$objects.mark_incomplete();)+
            }

            /// Records a written status as the object's current status, until the watch reports the
            /// object.
            pub(super) fn record_written(&mut self, name: &str, written: &CustomResourceStatus) {
                $(if written.kind() == <$fact>::KIND {
                    let object = self.$objects.get_mut(name);
                    object.into_iter().for_each(|object| object.record_written(written));
                })+
            }

            /// Returns the events by which watches report the deletion of all objects of a kind.
            pub(super) fn deletions(
                &self,
                kind: CustomResourceKind,
                namespace: &str,
            ) -> Vec<Event> {
                let mut events = Vec::new();
                $(if kind == <$fact>::KIND {
                    let keys = self.$objects.keys().map(|name| Key::new(namespace, name));
                    events.extend(keys.map(|key| Event::from(Change::<$fact>::Delete(key))));
                })+
                events
            }
        }

        $(impl HandleChange<$fact> for State {
            fn handle_change(&mut self, change: Change<$fact>, _: Instant) {
                self.handle_custom_resource(|resources| &mut resources.$objects, change);
            }
        }

        impl Validity for $fact {
            fn validity(&self, message: &impl Message) -> (ValidStatus, bool) {
                let current: (&[v1::Condition], i64) =
                    (&self.status.conditions, self.status.observed_generation);
                compare_status(message, self.generation, current)
            }

            fn record_validity(&mut self, written: &ValidStatus) {
                let status = &mut self.status.0;
                record_status(&mut status.conditions, &mut status.observed_generation, written);
            }
        })+
    };
}

custom_resources! {
    pools: Pool,
    advertisements: L2Advertisement,
    communities: Community,
    peers: BgpPeer,
    bgp_advertisements: BgpAdvertisement,
    profiles: BfdProfile,
}

impl State {
    /// Stores a change of a custom resource. The state compares the statuses at the end of the
    /// pass.
    fn handle_custom_resource<K: StatusResource>(
        &mut self,
        objects: fn(&mut CustomResources) -> &mut Objects<K>,
        change: Change<K>,
    ) {
        self.custom_resources.statuses_dirty = true;
        let objects = objects(&mut self.custom_resources);
        let change = if let Change::Unreadable { key, why } = change {
            let before = objects.get(key.name());
            Change::Apply(K::unreadable(key.name().into(), why.into(), before))
        } else {
            change
        };
        let changed = objects.handle(change, Some);
        for (name, _) in &changed {
            if objects.get(name).is_none() {
                self.status_queue.remove_resource(&Target::CustomResource(K::KIND, name.clone()));
            }
        }
        if !changed.is_empty() {
            // Only pools affect the assignment of addresses. Every kind can affect how addresses
            // are announced.
            self.decisions.all |= K::KIND == CustomResourceKind::IPAddressPool;
            self.recheck_all_services();
        }
    }
}
