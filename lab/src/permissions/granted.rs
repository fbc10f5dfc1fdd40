//! Permissions that the Roles and bindings of `deploy/` grant to FerroLB's ServiceAccounts.

use super::Permission;
use crate::cluster::apply::kind;
use crate::cluster::ferrolb::NAMESPACE;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// Wildcard of a rule.
const WILDCARD: &str = "*";

/// Returns the permissions that the Roles and bindings in `objects` grant.
///
/// # Errors
/// If a rule contains a wildcard, a subject is not an account of FerroLB, or a role has no binding.
pub fn granted(objects: &[Value]) -> Result<BTreeSet<Permission>> {
    let (mut permissions, mut bound) = (BTreeSet::new(), BTreeSet::new());
    let is_role = |object: &&Value| object["rules"].is_array();
    for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
        let role = objects.iter().filter(is_role).find(|role| refers_to(binding, role));
        let Some(role) = role else {
            anyhow::bail!("{binding} refers to a role that does not exist")
        };
        bound.insert(kind_and_name(role));
        let namespace =
            (kind(binding) == "RoleBinding").then(|| text(&binding["metadata"]["namespace"]));
        for subject in items(&binding["subjects"]) {
            let is_ferrolb =
                subject["kind"] == "ServiceAccount" && subject["namespace"] == NAMESPACE;
            ensure!(is_ferrolb, "{subject} is not an account of FerroLB");
            for rule in items(&role["rules"]) {
                add(&mut permissions, &text(&subject["name"]), namespace.as_deref(), rule)?;
            }
        }
    }
    let unbound =
        objects.iter().filter(is_role).map(kind_and_name).find(|role| !bound.contains(role));
    ensure!(unbound.is_none(), "no binding grants the role {unbound:?}");
    Ok(permissions)
}

/// Returns whether a binding refers to this role.
fn refers_to(binding: &Value, role: &Value) -> bool {
    let (reference, metadata) = (&binding["roleRef"], &role["metadata"]);
    let same_scope =
        kind(role) == "ClusterRole" || metadata["namespace"] == binding["metadata"]["namespace"];
    same_scope && reference["kind"] == role["kind"] && reference["name"] == metadata["name"]
}

fn add(
    permissions: &mut BTreeSet<Permission>,
    account: &str,
    namespace: Option<&str>,
    rule: &Value,
) -> Result<()> {
    let valid_fields = ["apiGroups", "resources", "resourceNames", "verbs"];
    let unknown_field = rule
        .as_object()
        .into_iter()
        .flatten()
        .find(|(field, _)| !valid_fields.contains(&field.as_str()));
    ensure!(unknown_field.is_none(), "a rule of {account} has the unknown field {unknown_field:?}");
    let words = |field: &str| items(&rule[field]).iter().map(text).collect::<Vec<_>>();
    let all = ["apiGroups", "resources", "resourceNames", "verbs"].map(words);
    ensure!(
        !all.iter().flatten().any(|word| word.contains(WILDCARD)),
        "a rule of {account} has a wildcard: {rule}"
    );
    let [groups, resources, names, verbs] = all;
    let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    for group in &groups {
        for resource in &resources {
            for verb in &verbs {
                permissions.extend(names.iter().map(|name| Permission {
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

fn kind_and_name(object: &Value) -> String {
    format!("{} {}", kind(object), text(&object["metadata"]["name"]))
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
