//! Changes of objects as events of the controller. Pure.

use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::controller::event::Event;
use ferrolb_proto::controller::state::Config;
use ferrolb_proto::facts::{
    EndpointSliceObject, Key, NamespaceObject, NodeObject, Service, ServiceObject,
};
use ferrolb_proto::store::Change;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// API group of EndpointSlices.
const DISCOVERY: &str = "discovery.k8s.io";

/// Changes of objects, in order.
#[derive(Debug, Default)]
pub struct Changes {
    /// The events by which watches report the changes that FerroLB reads.
    pub events: Vec<Event>,
    /// The changed objects, such as `apply IPAddressPool lan`.
    pub described: Vec<String>,
    /// The objects that FerroLB does not read.
    pub ignored: Vec<String>,
    /// Deleted Namespaces. Their Services are deleted, too.
    pub deleted_namespaces: Vec<String>,
}

impl Changes {
    /// Returns the changes of an installation. First, `applied` exist as given. Then, `deleted` are
    /// deleted.
    #[must_use]
    pub fn new(applied: &[Value], deleted: &[Value], config: &Config) -> Self {
        let mut changes = Self::default();
        let applied = applied.iter().map(|object| (object, false));
        for (object, is_deletion) in applied.chain(deleted.iter().map(|object| (object, true))) {
            changes.add(object, is_deletion, config);
        }
        changes
    }

    /// Adds EndpointSlices, which follow from the other changes.
    pub fn add_slices(&mut self, slices: &[Value], config: &Config) {
        self.events.extend(slices.iter().filter_map(|slice| event(slice, false, config)));
    }

    fn add(&mut self, object: &Value, is_deletion: bool, config: &Config) {
        let name = name_of(object);
        let Some(event) = event(object, is_deletion, config) else {
            self.ignored.push(name);
            return;
        };
        if is_deletion && matches!(event, Event::Namespace(_)) {
            self.deleted_namespaces.push(key_of(object).name().to_owned());
        }
        self.described.push(format!("{} {name}", if is_deletion { "delete" } else { "apply" }));
        self.events.push(event);
    }
}

/// Returns kind and name of an object, for people: `Service shop/db`.
fn name_of(object: &Value) -> String {
    let key = key_of(object);
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind == "Service" { format!("{kind} {key}") } else { format!("{kind} {}", key.name()) }
}

/// Returns namespace and name of an object.
#[must_use]
pub fn key_of(object: &Value) -> Key {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    Key::new(field("namespace"), field("name"))
}

/// Returns the group of an object's API version; empty for the core group.
fn group_of(object: &Value) -> &str {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Returns the event of a change; `None` if the installation does not read the object.
fn event(object: &Value, is_deletion: bool, config: &Config) -> Option<Event> {
    let (group, kind) = (group_of(object), object["kind"].as_str()?);
    let names = &config.names;
    match (group, kind) {
        ("", "Service") => {
            let manager = api::field_manager(&names.namespace);
            let read =
                |object: ServiceObject| Service::read_with_owners(object, &names.group, &manager);
            Some(Event::Service(change(object, is_deletion, read)))
        }
        ("", "Node") => Some(Event::Node(change(object, is_deletion, NodeObject::into))),
        ("", "Namespace") => {
            Some(Event::Namespace(change(object, is_deletion, NamespaceObject::into)))
        }
        (DISCOVERY, "EndpointSlice") => {
            Some(Event::Slice(change(object, is_deletion, EndpointSliceObject::into)))
        }
        (of, _) if of == names.group && key_of(object).namespace() == names.namespace => {
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
    let key = key_of(object);
    if is_deletion {
        return Change::Delete(key);
    }
    match serde_json::from_value(object.clone()) {
        Ok(object) => Change::Apply(read(object)),
        Err(error) => Change::Unreadable { key, why: error.to_string() },
    }
}
