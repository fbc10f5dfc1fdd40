//! Checks of `examples/` and the rendered files of `deploy/`, which users apply unchanged: these
//! tests parse each file, and the cluster tests apply them.

use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::facts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tree::{assert_none, files};

const RESOURCES: [CustomResourceKind; 7] = [
    CustomResourceKind::IPAddressPool,
    CustomResourceKind::L2Advertisement,
    CustomResourceKind::BGPAdvertisement,
    CustomResourceKind::BGPPeer,
    CustomResourceKind::BFDProfile,
    CustomResourceKind::Community,
    CustomResourceKind::SpeakerStatus,
];

/// Beginning of the path of each rendered file, such as `deploy/install-bgp.yaml`.
pub(crate) const RENDERED: &str = "deploy/install";

/// Returns all objects in files whose paths begin with `folder`, each with its file's path.
pub(crate) fn objects(folder: &str) -> Vec<(String, Value)> {
    let mut objects = Vec::new();
    for file in files(&[".yaml"]).into_iter().filter(|file| file.path.starts_with(folder)) {
        let read: Vec<Value> = serde_saphyr::from_multiple(&file.text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.path));
        objects.extend(read.into_iter().map(|object| (file.path.clone(), object)));
    }
    assert!(!objects.is_empty(), "there are no objects in {folder}");
    objects
}

/// Returns the string at a JSON pointer, or an empty one.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the object as `T`, and the paths of the fields that `T` does not have.
fn deserialize<T: DeserializeOwned + Serialize>(
    object: &Value,
) -> Result<(T, Vec<String>), serde_json::Error> {
    let typed: T = serde_json::from_value(object.clone())?;
    let serialized = serde_json::to_value(&typed)?;
    let mut lost = Vec::new();
    find_lost_fields(object, &serialized, "", &mut lost);
    Ok((typed, lost))
}

/// Adds to `lost` the path of each field of `written` that `kept`, the object after
/// deserialization, does not have or has with another value. `path` is the path of `written` in the
/// object.
fn find_lost_fields(written: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
    if let (Value::Object(fields), Value::Object(kept)) = (written, kept) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match kept.get(name) {
                Some(kept) => find_lost_fields(value, kept, &path, lost),
                None => lost.push(path),
            }
        }
    } else if written != kept {
        lost.push(path.to_owned());
    }
}

/// Returns the paths of the fields of an object that the type `O` does not have, and the result of
/// `problem` for the object.
fn unknown_fields_and_problem<O: DeserializeOwned + Serialize>(
    object: &Value,
    problem: impl FnOnce(O) -> Option<String>,
) -> Result<(Vec<String>, Option<String>), String> {
    let (read, lost) = deserialize::<O>(object).map_err(|error| error.to_string())?;
    Ok((lost, problem(read)))
}

/// Returns the first problem of an object of a FerroLB custom resource.
pub(crate) fn problem(object: &Value) -> Option<String> {
    let message = |problem: Option<&dyn ToString>| problem.map(|problem| problem.to_string());
    let read = match text(object, "/kind") {
        "IPAddressPool" => unknown_fields_and_problem(object, |pool: api::IPAddressPoolObject| {
            message(facts::Pool::from(pool).problem.as_ref().map(|p| p as _))
        }),
        "L2Advertisement" => {
            unknown_fields_and_problem(object, |_: api::L2AdvertisementObject| None)
        }
        "BGPPeer" => unknown_fields_and_problem(object, |peer: api::BgpPeerObject| {
            message(facts::BgpPeer::from(peer).session.as_ref().err().map(|p| p as _))
        }),
        "BGPAdvertisement" => {
            unknown_fields_and_problem(object, |ad: api::BgpAdvertisementObject| {
                message(facts::BgpAdvertisement::from(ad).problem.as_ref().map(|p| p as _))
            })
        }
        "BFDProfile" => unknown_fields_and_problem(object, |profile: api::BfdProfileObject| {
            message(facts::BfdProfile::from(profile).timers.as_ref().err().map(|p| p as _))
        }),
        "Community" => unknown_fields_and_problem(object, |names: api::CommunityObject| {
            message(facts::Community::from(names).problem.as_ref().map(|p| p as _))
        }),
        kind => return Some(format!("{kind} is no resource that users create")),
    };
    let (lost, problem) = match read {
        Ok(read) => read,
        Err(error) => return Some(error),
    };
    let is_misplaced = text(object, "/metadata/namespace") != api::NAMESPACE;
    let namespace = is_misplaced.then(|| format!("metadata.namespace must be {}", api::NAMESPACE));
    let unknown = (!lost.is_empty()).then(|| format!("unknown fields: {}", lost.join(", ")));
    problem.or(unknown).or(namespace)
}

#[test]
fn every_object_has_a_kind_and_a_name() {
    let mut problems = Vec::new();
    for (path, object) in [objects(RENDERED), objects("examples/")].concat() {
        for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
            if text(&object, pointer).is_empty() {
                problems.push(format!("{path}: an object has no {pointer}"));
            }
        }
    }
    assert_none(&problems, "these objects cannot be applied:");
}

#[test]
fn the_examples_are_valid_and_have_no_unknown_fields() {
    let group = format!("{}/", api::GROUP);
    let mut problems = Vec::new();
    let mut count = 0;
    for (path, object) in objects("examples/") {
        if text(&object, "/apiVersion").starts_with(&group) {
            count += 1;
            problems.extend(problem(&object).map(|problem| format!("{path}: {problem}")));
        }
    }
    assert!(count > 0, "no example has an object of {group}");
    assert_none(&problems, "these examples are not valid:");
}

#[test]
fn an_unknown_field_is_an_error() {
    let pool = |spec: &str| {
        let text = format!(
            "apiVersion: ferrolb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {{name: p, namespace: ferrolb-system}}\nspec: {spec}"
        );
        problem(&serde_saphyr::from_str(&text).unwrap())
    };
    assert_eq!(pool("{addresses: [10.0.0.0/24]}"), None);
    assert_eq!(
        pool("{addresses: [10.0.0.0/24], autoAsign: true}").unwrap(),
        "unknown fields: .spec.autoAsign"
    );
    assert!(pool("{addresses: [10.0.0.9-10.0.0.1]}").unwrap().contains("ends before it starts"));
}

#[test]
fn no_role_has_a_wildcard_or_an_unknown_resource() {
    let mut problems = Vec::new();
    for (path, object) in objects(RENDERED) {
        let rules = object.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
        for rule in rules {
            let name = text(&object, "/metadata/name");
            let list = |field: &str| {
                serde_json::from_value::<Vec<String>>(rule[field].clone()).unwrap_or_default()
            };
            let all = [list("apiGroups"), list("resources"), list("verbs")].concat();
            if all.iter().any(|word| word.contains('*')) {
                problems.push(format!("{path}: {name} has a wildcard"));
            }
            let known = |resource: &String| {
                RESOURCES.iter().any(|kind| resource.split('/').next() == Some(kind.plural()))
            };
            if list("apiGroups") == [api::GROUP] {
                let unknown = list("resources").into_iter().filter(|resource| !known(resource));
                problems.extend(unknown.map(|resource| format!("{path}: {name}: {resource}")));
            }
        }
    }
    assert_none(&problems, "these roles grant a wildcard or an unknown resource:");
}
