//! Tests of the index, against the EndpointSlices of a model.

use std::collections::BTreeSet;

use ferrolb_proto::facts::Endpoint;
use ferrolb_proto::range::Family;
use proptest::prelude::*;

use super::*;

/// An index that keeps the endpoints.
type Slices = EndpointSlices<Key, Box<[Endpoint]>>;

fn slice(name: &str, service: &str, nodes: &[&str]) -> EndpointSlice {
    let endpoint = |node: &&str| Endpoint {
        node: Some((*node).into()),
        family: Family::V4,
        ready: true,
        serving: true,
        terminating: false,
    };
    let service = Some(Key::new("default", service)).filter(|key| !key.name().is_empty());
    let endpoints = nodes.iter().map(endpoint).collect();
    EndpointSlice { key: Key::new("default", name), service, endpoints, ..EndpointSlice::default() }
}

fn nodes_of(slices: &Slices, service: &str) -> Vec<String> {
    let service = Key::new("default", service);
    slices
        .of(&service)
        .flatten()
        .map(|endpoint| endpoint.node.clone().unwrap_or_default().into())
        .collect()
}

/// Handles a change, and keeps the EndpointSlices with endpoints. Returns the changed Services.
fn handle(slices: &mut Slices, change: Change<EndpointSlice>) -> Vec<String> {
    let keep = |slice: EndpointSlice| {
        (!slice.endpoints.is_empty()).then_some((slice.service?, slice.endpoints.into()))
    };
    slices.handle(change, keep).iter().map(|key| key.name().to_string()).collect()
}

fn apply(slices: &mut Slices, slice: EndpointSlice) -> Vec<String> {
    handle(slices, Change::Apply(slice))
}

#[test]
fn slices_are_found_by_any_name_and_can_change_their_service() {
    let mut slices = Slices::default();
    let delete = |slices: &mut Slices, name: &str| {
        handle(slices, Change::Delete(Key::new("default", name))).len()
    };
    assert_eq!(apply(&mut slices, slice("web-1", "web", &["a"])), ["web"]);
    assert_eq!(
        apply(&mut slices, slice("web-1", "web", &["a"])),
        [""; 0],
        "an unchanged slice changes no Service"
    );
    assert_eq!(apply(&mut slices, slice("web-2-x", "web", &["b"])), ["web"]);
    assert_eq!(apply(&mut slices, slice("by-hand", "web", &["c"])), ["web"]);
    assert_eq!(apply(&mut slices, slice("web-2-y", "web-2", &["d"])), ["web-2"]);
    assert_eq!(
        (nodes_of(&slices, "web"), nodes_of(&slices, "web-2")),
        (vec!["c".into(), "a".into(), "b".into()], vec!["d".into()]),
        "the order is that of the names"
    );
    assert_eq!(
        apply(&mut slices, slice("by-hand", "web-2", &["c"])),
        ["web", "web-2"],
        "the slice moves to another Service"
    );
    assert_eq!(
        apply(&mut slices, slice("web-2-x", "", &["b"])),
        ["web"],
        "the slice belongs to no Service any more"
    );
    assert_eq!(
        apply(&mut slices, slice("web-1", "web", &[])),
        ["web"],
        "a slice without endpoints is removed"
    );
    assert_eq!(
        (
            delete(&mut slices, "by-hand"),
            delete(&mut slices, "web-2-y"),
            delete(&mut slices, "web-1")
        ),
        (1, 1, 0)
    );
    assert!(slices.services.is_empty() && slices.service_names.is_empty(), "{slices:?}");
}

#[test]
fn a_complete_list_removes_the_slices_that_it_lacks() {
    let mut slices = Slices::default();
    for (name, service) in [("a-1", "a"), ("b-1", "b"), ("odd", "c"), ("d-1", "d")] {
        apply(&mut slices, slice(name, service, &["n"]));
    }
    handle(&mut slices, Change::ResyncStarted);
    apply(&mut slices, slice("a-1", "a", &["n"]));
    handle(&mut slices, Change::Unreadable { key: Key::new("default", "d-1"), why: String::new() });
    assert!(!slices.is_complete());
    let changed = handle(&mut slices, Change::ResyncDone);
    assert_eq!(changed, ["b", "c"]);
    assert!(slices.is_complete() && slices.service_names.is_empty() && slices.services.len() == 2);
}

/// Namespaces, Services and EndpointSlices of the property test. Some names begin with the name of
/// several Services, and some with that of none.
const NAMESPACES: [&str; 2] = ["default", "other"];
const SERVICES: [&str; 4] = ["a", "a-b", "a-b-c", "z"];
const SLICES: [&str; 8] = ["a", "a-1", "a-b", "a-b-1", "a-b-c", "a-b-c-1", "by-hand", "z-1"];

/// One step of a watch. The program needs an EndpointSlice if it has a Service and a value.
#[derive(Debug, Clone)]
enum Step {
    Apply { slice: Key, service: Option<Key>, value: Option<u8> },
    Unreadable(Key),
    Delete(Key),
    ResyncStarted,
    ResyncDone,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let namespace = || prop::sample::select(&NAMESPACES[..]);
    let key = move || (namespace(), prop::sample::select(&SLICES[..]));
    let key = move || key().prop_map(|(namespace, name)| Key::new(namespace, name));
    let service = prop::option::weighted(0.9, prop::sample::select(&SERVICES[..]));
    let value = prop::option::weighted(0.9, 0..3_u8);
    let applied = (key(), service, value).prop_map(|(slice, service, value)| {
        let service = service.map(|name| Key::new(slice.namespace(), name));
        Step::Apply { slice, service, value }
    });
    let step = prop_oneof![
        12 => applied,
        2 => key().prop_map(Step::Unreadable),
        3 => key().prop_map(Step::Delete),
        1 => Just(Step::ResyncStarted),
        1 => Just(Step::ResyncDone),
    ];
    prop::collection::vec(step, 0..200)
}

/// EndpointSlices by key, each with its Service, its value, and whether the latest list contains
/// it.
type Model = BTreeMap<Key, (Key, u8, bool)>;

/// Applies a step to the model.
fn apply_to_model(model: &mut Model, step: &Step) {
    match step {
        Step::Apply { slice, service: Some(service), value: Some(value) } => {
            model.insert(slice.clone(), (service.clone(), *value, true));
        }
        Step::Apply { slice, .. } | Step::Delete(slice) => _ = model.remove(slice),
        Step::Unreadable(slice) => {
            model.entry(slice.clone()).and_modify(|it| it.2 = true);
        }
        Step::ResyncStarted => model.values_mut().for_each(|it| it.2 = false),
        Step::ResyncDone => model.retain(|_, it| it.2),
    }
}

/// Applies a step to the index.
fn apply_to_index(index: &mut EndpointSlices<Key, u8>, step: Step) -> Vec<Key> {
    let mut kept = None;
    let change = match step {
        Step::Apply { slice, service, value } => {
            kept = service.zip(value);
            Change::Apply(EndpointSlice { key: slice, ..EndpointSlice::default() })
        }
        Step::Unreadable(key) => Change::Unreadable { key, why: String::new() },
        Step::Delete(key) => Change::Delete(key),
        Step::ResyncStarted => Change::ResyncStarted,
        Step::ResyncDone => Change::ResyncDone,
    };
    index.handle(change, |_| kept)
}

/// Returns the EndpointSlices of a Service, each with its value.
fn slices_of(index: &EndpointSlices<Key, u8>, service: &Key) -> Vec<(Key, u8)> {
    index.keys_of(service).zip(index.of(service).copied()).collect()
}

/// Returns the EndpointSlices of each Service.
fn content(index: &EndpointSlices<Key, u8>) -> Vec<(&Key, Vec<(Key, u8)>)> {
    assert!(index.services.values().all(|slices| !slices.is_empty()), "{index:?}");
    let content = index.services.keys().map(|service| (service, slices_of(index, service)));
    let content: Vec<_> = content.collect();
    assert_eq!(index.count(), content.iter().map(|(_, slices)| slices.len()).sum::<usize>());
    content
}

/// Returns an index that has received each EndpointSlice of the model once.
fn from_scratch(model: &Model) -> EndpointSlices<Key, u8> {
    let mut index = EndpointSlices::default();
    for (slice, (service, value, _)) in model {
        let (slice, service, value) = (slice.clone(), Some(service.clone()), Some(*value));
        apply_to_index(&mut index, Step::Apply { slice, service, value });
    }
    index
}

proptest! {
    #[test]
    fn the_index_equals_one_from_scratch(steps in steps()) {
        let (mut index, mut model) = (EndpointSlices::default(), Model::new());
        for step in steps {
            let before = from_scratch(&model);
            apply_to_model(&mut model, &step);
            let changed: BTreeSet<_> = apply_to_index(&mut index, step).into_iter().collect();
            let now = from_scratch(&model);
            prop_assert_eq!(content(&index), content(&now));
            prop_assert_eq!(&index.service_names, &now.service_names);
            let differs = |service: &Key| slices_of(&before, service) != slices_of(&now, service);
            let all = NAMESPACES.iter().flat_map(|it| SERVICES.map(|name| Key::new(it, name)));
            prop_assert_eq!(changed, all.filter(differs).collect::<BTreeSet<_>>());
        }
    }
}
