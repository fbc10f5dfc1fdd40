//! Compares the objects of a migration with those that FerroLB has already, so that no way of
//! migration replaces an object in use. Pure.

use std::collections::BTreeSet;

use ferrolb_controller_core::event::{Event, ObjectChange};
use ferrolb_controller_core::state::{Config, Names};
use ferrolb_core::store::Change;
use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::range::AddressSet;
use serde_json::{Value, json};

use super::shell::{APPLY, DELETE, DRY_RUN, file};
use super::{Command, ManifestFile, Problem, Step};
use crate::events::event;
use crate::objects::{self, Objects, name, namespace, text, texts};

/// Name of the file with the objects of an earlier run that change.
const CHANGED: &str = "changed.yaml";
/// Name of the file with the same objects as they are before the migration.
const FORMER: &str = "former.yaml";
/// A time of creation after those of all existing objects.
const CREATED: &str = "9999-01-01T00:00:00Z";
/// Lists to which a further run adds values.
const POOL_LISTS: [&str; 2] = ["/spec/addresses", "/spec/serviceAllocation/namespaces"];
const ADVERTISEMENT_LISTS: [&str; 1] = ["/spec/ipAddressPools"];

/// The objects of a migration. Those that exist already with this spec are left out.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The objects that do not exist yet.
    pub(super) new: Vec<Value>,
    /// The pools and L2Advertisements of an earlier run, with the lists of both runs.
    changed: Vec<Value>,
    /// The same objects before this run.
    former: Vec<Value>,
    /// Objects that exist with another spec, which the migration does not change.
    pub(super) problems: Vec<Problem>,
}

impl Merged {
    /// Compares the objects `wanted` with the existing ones. `is_own` returns whether only a run of
    /// this migration creates objects of this name.
    pub(super) fn of(
        existing: &Objects,
        wanted: Vec<Value>,
        is_own: impl Fn(&str) -> bool,
    ) -> Self {
        let mut merged = Self::default();
        for wanted in wanted {
            let Some(found) = existing.iter().find(|it| identity(it) == identity(&wanted)) else {
                merged.new.push(wanted);
                continue;
            };
            let former = without_status(found);
            let union = is_own(name(&wanted)).then(|| union(&former, &wanted)).flatten();
            let [is, becomes] = [fact(&former), fact(union.as_ref().unwrap_or(&wanted))];
            match union {
                _ if is == becomes => {}
                Some(union) => {
                    merged.changed.push(union);
                    merged.former.push(former);
                }
                None => merged.problems.push(Problem::of(
                    objects::label(&wanted),
                    "FerroLB has an object of this name with another spec, which the steps do not \
                     change: rename or delete one of the two",
                )),
            }
        }
        merged
    }

    /// Returns the objects after the migration, with the times of their creation: of two that
    /// conflict, FerroLB uses the older one.
    pub(super) fn applied_to(&self, objects: Objects) -> Objects {
        let created_at = |object: &Value, time: &Value| {
            let mut object = object.clone();
            object["metadata"]["creationTimestamp"] = time.clone();
            object
        };
        let find = |changed: &Value| objects.iter().find(|it| identity(it) == identity(changed));
        let time = |changed: &Value| find(changed).map_or(&Value::Null, creation_time);
        let changed = self.changed.iter().map(|it| created_at(it, time(it)));
        let new = self.new.iter().map(|it| created_at(it, &json!(CREATED)));
        let after: Vec<_> = changed.chain(new).collect();
        let replaced: BTreeSet<_> = self.changed.iter().map(identity).collect();
        objects.without(|object| replaced.contains(&identity(object))).with(after)
    }

    /// Returns whether the migration changes no object.
    pub(super) const fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty()
    }

    /// Returns the files with the objects that change, after and before.
    pub(super) fn changed_files(&self) -> Vec<ManifestFile> {
        let changed = ManifestFile::unless_empty(CHANGED, self.changed.clone());
        let former = ManifestFile::unless_empty(FORMER, self.former.clone());
        changed.into_iter().chain(former).collect()
    }

    /// Adds to a step the commands that create the objects of the file `new` and change others, and
    /// those that delete the new ones and restore the others.
    pub(super) fn apply(&self, mut step: Step, directory: &str, new: &str) -> Step {
        let files = [(new, self.new.is_empty()), (CHANGED, self.changed.is_empty())];
        for (name, _) in files.into_iter().filter(|(_, is_empty)| !is_empty) {
            let file = file(directory, name);
            step = step.check(DRY_RUN.on_file(&file)).run(APPLY.on_file(&file));
        }
        step.undo_all(self.undo(directory, new))
    }

    /// Returns the commands that delete the new objects and restore the changed ones.
    fn undo(&self, directory: &str, new: &str) -> Vec<Command> {
        let delete = DELETE.on_file(&file(directory, new));
        let restore = APPLY.on_file(&file(directory, FORMER));
        let delete = (!self.new.is_empty()).then_some(delete);
        delete.into_iter().chain((!self.changed.is_empty()).then_some(restore)).collect()
    }
}

/// Returns the addresses of the pools that no run of this migration has created. Pools must not
/// overlap.
pub(super) fn addresses_of_other_pools(
    objects: &Objects,
    is_own: impl Fn(&str) -> bool,
) -> AddressSet {
    let pools = objects.of(api::GROUP, CustomResourceKind::IPAddressPool.name());
    let others = pools.filter(|pool| !is_own(name(pool)));
    let mut addresses = AddressSet::default();
    let ranges = others.flat_map(|pool| texts(pool, "/spec/addresses"));
    ranges.filter_map(|text| text.parse().ok()).for_each(|range| addresses.insert(range));
    addresses
}

fn creation_time(object: &Value) -> &Value {
    &object["metadata"]["creationTimestamp"]
}

fn identity(object: &Value) -> (&str, &str, &str, &str) {
    (objects::group(object), text(object, "/kind"), namespace(object), name(object))
}

/// Returns the name of the Secret with the password of a BGPPeer, or an empty text.
pub(super) fn password_secret(object: &Value) -> &str {
    text(object, "/spec/passwordSecret/name")
}

/// Returns an object without the fields that the API server and the controller write.
fn without_status(object: &Value) -> Value {
    let mut metadata = json!({"name": name(object), "namespace": namespace(object)});
    if let Some(labels) = object.pointer("/metadata/labels") {
        metadata["labels"] = labels.clone();
    }
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata,
        "spec": object["spec"],
    })
}

/// Returns FerroLB's view of an object, in which defaults and the order of fields do not matter.
fn fact(object: &Value) -> Option<Event> {
    let names = Names { namespace: namespace(object).to_owned(), group: api::GROUP.to_owned() };
    event(object, false, &Config { names, ..Config::default() })
}

/// Returns a pool or L2Advertisement with the lists of two runs; `None` if they differ in more than
/// these, or if ranges of both lists overlap.
fn union(former: &Value, wanted: &Value) -> Option<Value> {
    let lists = match text(wanted, "/kind") {
        kind if kind == CustomResourceKind::IPAddressPool.name() => POOL_LISTS.as_slice(),
        kind if kind == CustomResourceKind::L2Advertisement.name() => &ADVERTISEMENT_LISTS,
        _ => return None,
    };
    // Without a list, an object has no restriction.
    let has = |object: &Value| lists.iter().map(|it| object.pointer(it).is_some()).collect();
    let [had, has]: [Vec<bool>; 2] = [has(former), has(wanted)];
    if had != has {
        return None;
    }
    let [mut before, mut after] = [former.clone(), wanted.clone()];
    for pointer in lists {
        let mut all: Vec<String> = texts(former, pointer).map(ToOwned::to_owned).collect();
        let further = texts(wanted, pointer).map(ToOwned::to_owned);
        let further: Vec<_> = further.filter(|it| !all.contains(it)).collect();
        all.extend(further);
        for object in [&mut before, &mut after] {
            if let Some(field) = object.pointer_mut(pointer) {
                *field = json!(all);
            }
        }
    }
    after["metadata"] = before["metadata"].clone();
    let fact_before = fact(&before);
    let is_valid = match &fact_before {
        Some(Event::Object(ObjectChange::Pool(Change::Apply(pool)))) => pool.problem.is_none(),
        Some(_) => true,
        None => false,
    };
    (is_valid && fact_before == fact(&after)).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, spec: Value) -> Value {
        objects::object(CustomResourceKind::IPAddressPool, name, "lb", spec)
    }

    fn restricted(addresses: &[&str], namespaces: &[&str]) -> Value {
        json!({"addresses": addresses, "autoAssign": false,
            "serviceAllocation": {"namespaces": namespaces}})
    }

    fn merged(existing: &[Value], wanted: Value) -> Merged {
        Merged::of(&Objects::new(existing.iter().cloned()), vec![wanted], |name| name == "own")
    }

    #[test]
    fn a_new_object_is_younger_than_those_that_remain() {
        let mut existing = pool("own", restricted(&["10.0.0.1"], &["a"]));
        existing["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let objects = Objects::new([existing]);
        let wanted = vec![
            pool("own", restricted(&["10.0.0.2"], &["a"])),
            pool("other", json!({"addresses": ["10.0.0.3"]})),
        ];
        let merged = Merged::of(&objects, wanted, |name| name == "own");
        let after = merged.applied_to(objects);
        let mut times: Vec<_> = after.iter().map(|it| (name(it), creation_time(it))).collect();
        times.sort_unstable_by_key(|(name, _)| *name);
        assert_eq!(times, [("other", &json!(CREATED)), ("own", &json!("2026-01-01T00:00:00Z"))]);
    }

    #[test]
    fn an_equal_object_is_left_out_whatever_its_defaults_and_status() {
        let mut existing = pool("own", json!({"addresses": ["10.0.0.1"], "autoAssign": true}));
        existing["status"] = json!({"assignedIPv4": 1});
        existing["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let same = merged(&[existing], pool("own", json!({"addresses": ["10.0.0.1"]})));
        assert!(same.is_empty() && same.problems.is_empty() && same.changed_files().is_empty());
    }

    #[test]
    fn a_pool_of_an_earlier_run_gets_further_addresses_and_namespaces() {
        let existing = pool("own", restricted(&["10.0.0.1", "10.0.0.2"], &["red"]));
        let wanted = pool("own", restricted(&["10.0.0.2", "10.0.0.3"], &["blue"]));
        let found = merged(std::slice::from_ref(&existing), wanted);
        let all = restricted(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], &["red", "blue"]);
        assert_eq!((found.changed.as_slice(), found.new.len()), (&[pool("own", all)][..], 0));
        assert_eq!(found.former, std::slice::from_ref(&existing), "the rollback restores it");
        let step = found.apply(Step::new("pool", "", ""), "/d", "new.yaml");
        assert_eq!(step.commands, [APPLY.on_file("/d/changed.yaml").into()]);
        assert_eq!(step.rollback, [APPLY.on_file("/d/former.yaml").into()]);
        let subset = merged(&[existing], pool("own", restricted(&["10.0.0.1"], &["red"])));
        assert!(subset.is_empty(), "nothing is added");
    }

    #[test]
    fn an_object_with_another_spec_is_a_problem_and_remains() {
        let cases = [
            ("a pool that others may create", "lan", json!({"addresses": ["10.0.0.2"]})),
            ("a range that contains the address", "own", json!({"addresses": ["10.0.0.0/30"]})),
            ("another autoAssign", "own", json!({"addresses": ["10.0.0.1"], "autoAssign": false})),
            ("namespaces in one only", "own", restricted(&["10.0.0.1"], &["red"])),
        ];
        for (case, name, spec) in cases {
            let existing = pool(name, json!({"addresses": ["10.0.0.1"]}));
            let found = merged(std::slice::from_ref(&existing), pool(name, spec));
            assert!(found.is_empty() && found.problems.len() == 1, "{case}: {found:?}");
            let after = found.applied_to(Objects::new([existing.clone()]));
            assert_eq!(after.iter().collect::<Vec<_>>(), [&existing], "{case}");
        }
    }

    #[test]
    fn an_object_of_another_namespace_or_kind_does_not_exist_yet() {
        let wanted = pool("own", json!({"addresses": ["10.0.0.1"]}));
        let mut elsewhere = wanted.clone();
        elsewhere["metadata"]["namespace"] = json!("other");
        let mut kind = wanted.clone();
        kind["kind"] = json!("L2Advertisement");
        let found = merged(&[elsewhere, kind], wanted.clone());
        assert_eq!(found.new, [wanted]);
        let step = found.apply(Step::new("pool", "", ""), "/d", "new.yaml");
        assert_eq!(step.rollback, [DELETE.on_file("/d/new.yaml").into()]);
    }
}
