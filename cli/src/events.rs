//! Objects as events of the controller, and the state that follows from all of them. Pure.

use ferrolb_controller_core::event::{Event, Leadership};
use ferrolb_controller_core::state::{Config, State};
use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::facts::{
    EndpointSliceObject, NamespaceObject, NodeObject, Service, ServiceObject,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::objects::{CORE, group, key, namespace, text};

/// Time at which the state handles the objects.
pub const NOW: Instant = Instant::from_millis(1_000);
/// End of the state's lease: never.
const LEASE_END: Instant = Instant::from_millis(u32::MAX as u64);
/// API group of EndpointSlices.
const DISCOVERY: &str = "discovery.k8s.io";

/// Returns the state of a controller that leads and has just received all objects, which `events`
/// report in any order. `unix_time` is the present time, in seconds since 1970.
#[must_use]
pub fn leading_state(
    config: &Config,
    unix_time: i64,
    events: impl IntoIterator<Item = Event>,
) -> State {
    let mut state = State::new(config.clone());
    state.set_unix_time(unix_time, NOW);
    state.handle([Event::Lease(Leadership::Held(LEASE_END))], NOW);
    let lists = list_limits(false).into_iter().chain(events).chain(list_limits(true));
    state.handle(lists, NOW);
    state
}

/// Returns the events with which the lists of all kinds begin, or with `at_end`, those with which
/// they end.
fn list_limits(at_end: bool) -> [Event; 13] {
    const fn limit<F>(at_end: bool) -> Change<F> {
        if at_end { Change::ResyncDone } else { Change::ResyncStarted }
    }
    [
        Event::Service(limit(at_end)),
        Event::Slice(limit(at_end)),
        Event::Node(limit(at_end)),
        Event::Namespace(limit(at_end)),
        Event::AddressMemory(limit(at_end)),
        Event::Pool(limit(at_end)),
        Event::Advertisement(limit(at_end)),
        Event::Community(limit(at_end)),
        Event::Peer(limit(at_end)),
        Event::BgpAdvertisement(limit(at_end)),
        Event::BfdProfile(limit(at_end)),
        Event::Speaker(limit(at_end)),
        Event::Pod(limit(at_end)),
    ]
}

/// Returns the event by which a watch reports that an object exists, or that it is deleted; `None`
/// if the installation does not read the object.
#[must_use]
pub fn event(object: &Value, is_deletion: bool, config: &Config) -> Option<Event> {
    let names = &config.names;
    match (group(object), text(object, "/kind")) {
        (CORE, "Service") => {
            let manager = api::field_manager(&names.namespace);
            let read =
                |object: ServiceObject| Service::read_with_owners(object, &names.group, &manager);
            Some(Event::Service(change(object, is_deletion, read)))
        }
        (CORE, "Node") => Some(Event::Node(change(object, is_deletion, NodeObject::into))),
        (CORE, "Namespace") => {
            Some(Event::Namespace(change(object, is_deletion, NamespaceObject::into)))
        }
        (DISCOVERY, "EndpointSlice") => {
            Some(Event::Slice(change(object, is_deletion, EndpointSliceObject::into)))
        }
        (of, kind) if of == names.group && namespace(object) == names.namespace => {
            custom_resource(object, kind, is_deletion)
        }
        _ => None,
    }
}

fn custom_resource(object: &Value, kind: &str, is_deletion: bool) -> Option<Event> {
    let kinds = CustomResourceKind::WITH_CONTROLLER_STATUS;
    let kind = kinds.into_iter().find(|it| it.name() == kind)?;
    Some(match kind {
        CustomResourceKind::IPAddressPool => {
            Event::Pool(change(object, is_deletion, api::IPAddressPoolObject::into))
        }
        CustomResourceKind::L2Advertisement => {
            Event::Advertisement(change(object, is_deletion, api::L2AdvertisementObject::into))
        }
        CustomResourceKind::BGPAdvertisement => {
            Event::BgpAdvertisement(change(object, is_deletion, api::BgpAdvertisementObject::into))
        }
        CustomResourceKind::BGPPeer => {
            Event::Peer(change(object, is_deletion, api::BgpPeerObject::into))
        }
        CustomResourceKind::BFDProfile => {
            Event::BfdProfile(change(object, is_deletion, api::BfdProfileObject::into))
        }
        CustomResourceKind::Community => {
            Event::Community(change(object, is_deletion, api::CommunityObject::into))
        }
        CustomResourceKind::SpeakerStatus => return None,
    })
}

fn change<K: DeserializeOwned, F>(
    object: &Value,
    is_deletion: bool,
    read: impl Fn(K) -> F,
) -> Change<F> {
    let key = key(object);
    if is_deletion {
        return Change::Delete(key);
    }
    match serde_json::from_value(object.clone()) {
        Ok(object) => Change::Apply(read(object)),
        Err(error) => Change::Unreadable { key, why: error.to_string() },
    }
}
