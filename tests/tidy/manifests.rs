//! `examples/` and the files that `deploy/` is rendered to are what a user applies as it is: every one is read here, the end-to-end tests apply it.

use ferrolb_proto::api::{self, Kind};
use ferrolb_proto::facts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tree::{assert_none, files};

const KINDS: [Kind; 7] = [
    Kind::IPAddressPool,
    Kind::L2Advertisement,
    Kind::BGPAdvertisement,
    Kind::BGPPeer,
    Kind::BFDProfile,
    Kind::Community,
    Kind::SpeakerStatus,
];

/// What `deploy/` is rendered to, one file for each way to install.
pub(crate) const RENDERED: &str = "deploy/install";

/// All objects in files whose paths begin with `folder`, each with its file's path.
pub(crate) fn objects(folder: &str) -> Vec<(String, Value)> {
    let mut objects = Vec::new();
    for file in files(&[".yaml"]).into_iter().filter(|file| file.path.starts_with(folder)) {
        let read: Vec<Value> =
            serde_saphyr::from_multiple(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        objects.extend(read.into_iter().map(|object| (file.path.clone(), object)));
    }
    assert!(!objects.is_empty(), "no objects in {folder}");
    objects
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The object as the type reads it, and what the type left out.
fn read<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(T, Vec<String>), serde_json::Error> {
    let typed: T = serde_json::from_value(object.clone())?;
    let again = serde_json::to_value(&typed)?;
    let mut lost = Vec::new();
    compare(object, &again, "", &mut lost);
    Ok((typed, lost))
}

fn compare(written: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
    if let (Value::Object(fields), Value::Object(kept)) = (written, kept) {
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match kept.get(name) {
                Some(kept) => compare(value, kept, &path, lost),
                None => lost.push(path),
            }
        }
    } else if written != kept {
        lost.push(path.to_owned());
    }
}

/// The fields of an object that its type does not have, and what is wrong with the rest.
fn judged<O: DeserializeOwned + Serialize>(
    object: &Value,
    problem: impl FnOnce(O) -> Option<String>,
) -> Result<(Vec<String>, Option<String>), String> {
    let (read, lost) = read::<O>(object).map_err(|error| error.to_string())?;
    Ok((lost, problem(read)))
}

/// What is wrong with an object of ours.
fn problem(object: &Value) -> Option<String> {
    let said = |problem: Option<&dyn ToString>| problem.map(|problem| problem.to_string());
    let read = match text(object, "/kind") {
        "IPAddressPool" => {
            judged(object, |pool: api::Pool| said(facts::Pool::from(pool).problem.as_ref().map(|p| p as _)))
        }
        "L2Advertisement" => judged(object, |_: api::L2| None),
        "BGPPeer" => {
            judged(object, |peer: api::Router| said(facts::BgpPeer::from(peer).session.as_ref().err().map(|p| p as _)))
        }
        "BGPAdvertisement" => {
            judged(object, |ad: api::Bgp| said(facts::BgpAdvertisement::from(ad).problem.as_ref().map(|p| p as _)))
        }
        "BFDProfile" => judged(object, |profile: api::Bfd| {
            said(facts::BfdProfile::from(profile).timers.as_ref().err().map(|p| p as _))
        }),
        "Community" => {
            judged(object, |names: api::Aliases| said(facts::Community::from(names).problem.as_ref().map(|p| p as _)))
        }
        kind => return Some(format!("{kind} is nothing that a user writes")),
    };
    let (lost, problem) = match read {
        Ok(read) => read,
        Err(error) => return Some(error),
    };
    let wrong = text(object, "/metadata/namespace") != api::NAMESPACE;
    let namespace = wrong.then(|| format!("metadata.namespace must be {}", api::NAMESPACE));
    let unknown = (!lost.is_empty()).then(|| format!("no such field: {}", lost.join(", ")));
    problem.or(unknown).or(namespace)
}

#[test]
fn every_object_says_what_it_is() {
    let mut problems = Vec::new();
    for (path, object) in [objects(RENDERED), objects("examples/")].concat() {
        for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
            if text(&object, pointer).is_empty() {
                problems.push(format!("{path}: no {pointer}"));
            }
        }
    }
    assert_none(&problems, "these objects cannot be applied:");
}

#[test]
fn the_examples_are_read_by_our_own_types_without_loss() {
    let ours = format!("{}/", api::GROUP);
    let mut problems = Vec::new();
    let mut seen = 0;
    for (path, object) in objects("examples/") {
        if text(&object, "/apiVersion").starts_with(&ours) {
            seen += 1;
            problems.extend(problem(&object).map(|problem| format!("{path}: {problem}")));
        }
    }
    assert!(seen > 0, "no example of {ours}");
    assert_none(&problems, "these examples are not what they say:");
}

#[test]
fn a_field_that_does_not_exist_is_noticed() {
    let pool = |spec: &str| {
        let text = format!(
            "apiVersion: ferrolb.io/v1beta1\nkind: IPAddressPool\n\
             metadata: {{name: p, namespace: ferrolb-system}}\nspec: {spec}"
        );
        problem(&serde_saphyr::from_str(&text).unwrap())
    };
    assert_eq!(pool("{addresses: [10.0.0.0/24]}"), None);
    assert_eq!(pool("{addresses: [10.0.0.0/24], autoAsign: true}").unwrap(), "no such field: .spec.autoAsign");
    assert!(pool("{addresses: [10.0.0.9-10.0.0.1]}").unwrap().contains("ends before it starts"));
}

#[test]
fn no_role_has_a_wildcard_or_names_a_kind_that_is_not_ours() {
    let mut problems = Vec::new();
    for (path, object) in objects(RENDERED) {
        let rules = object.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
        for rule in rules {
            let name = text(&object, "/metadata/name");
            let list = |field: &str| serde_json::from_value::<Vec<String>>(rule[field].clone()).unwrap_or_default();
            let all = [list("apiGroups"), list("resources"), list("verbs")].concat();
            if all.iter().any(|word| word.contains('*')) {
                problems.push(format!("{path}: {name}: a wildcard"));
            }
            let known = |resource: &String| KINDS.iter().any(|kind| resource.split('/').next() == Some(kind.plural()));
            if list("apiGroups") == [api::GROUP] {
                let unknown = list("resources").into_iter().filter(|resource| !known(resource));
                problems.extend(unknown.map(|resource| format!("{path}: {name}: {resource}")));
            }
        }
    }
    assert_none(&problems, "these roles give too much or nothing:");
}
