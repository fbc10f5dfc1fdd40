//! What the Roles and bindings among `deploy/`'s objects grant to FerroLB's ServiceAccounts, right by right.

use super::Right;
use crate::cluster::apply::kind;
use crate::cluster::ferrolb::NAMESPACE;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands for everything in a rule.
const WILDCARD: &str = "*";

/// What these objects grant.
///
/// # Errors
/// When one grants everything of a kind, names no account of FerroLB's, or a role is nobody's.
pub fn granted(objects: &[Value]) -> Result<BTreeSet<Right>> {
    let (mut rights, mut bound) = (BTreeSet::new(), BTreeSet::new());
    let is_role = |object: &&Value| object["rules"].is_array();
    for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
        let role = objects.iter().filter(is_role).find(|role| is_of(binding, role));
        let Some(role) = role else { anyhow::bail!("{binding} names a role that is not there") };
        bound.insert(called(role));
        let namespace = (kind(binding) == "RoleBinding").then(|| text(&binding["metadata"]["namespace"]));
        for subject in items(&binding["subjects"]) {
            let ours = subject["kind"] == "ServiceAccount" && subject["namespace"] == NAMESPACE;
            ensure!(ours, "{subject} is no account of FerroLB's");
            for rule in items(&role["rules"]) {
                add(&mut rights, &text(&subject["name"]), namespace.as_deref(), rule)?;
            }
        }
    }
    let unbound = objects.iter().filter(is_role).map(called).find(|role| !bound.contains(role));
    ensure!(unbound.is_none(), "nobody has the role {unbound:?}");
    Ok(rights)
}

/// Whether a binding is of this role.
fn is_of(binding: &Value, role: &Value) -> bool {
    let (reference, metadata) = (&binding["roleRef"], &role["metadata"]);
    let near = kind(role) == "ClusterRole" || metadata["namespace"] == binding["metadata"]["namespace"];
    near && reference["kind"] == role["kind"] && reference["name"] == metadata["name"]
}

fn add(rights: &mut BTreeSet<Right>, account: &str, namespace: Option<&str>, rule: &Value) -> Result<()> {
    let known = ["apiGroups", "resources", "resourceNames", "verbs"];
    let strange = rule.as_object().into_iter().flatten().find(|(field, _)| !known.contains(&field.as_str()));
    ensure!(strange.is_none(), "a rule of {account} has {strange:?}");
    let words = |field: &str| items(&rule[field]).iter().map(text).collect::<Vec<_>>();
    let all = ["apiGroups", "resources", "resourceNames", "verbs"].map(words);
    ensure!(!all.iter().flatten().any(|word| word.contains(WILDCARD)), "{account} is granted everything: {rule}");
    let [groups, resources, names, verbs] = all;
    let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    for group in &groups {
        for resource in &resources {
            for verb in &verbs {
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    verb: verb.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    namespace: namespace.map(str::to_owned),
                    name: name.clone(),
                }));
            }
        }
    }
    Ok(())
}

fn called(object: &Value) -> String {
    format!("{} {}", kind(object), text(&object["metadata"]["name"]))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
