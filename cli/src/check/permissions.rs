//! Rules about permissions. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ferrolb_proto::api;

use super::facts::ClusterFacts;
use super::finding::{Code, Finding, MANIFESTS, Object};
use super::rbac::Permission;
use crate::table::first_names;

/// Returns the findings: one for each account, and one for each read that is not permitted.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let mut missing: BTreeMap<&str, Vec<Missing<'_>>> = BTreeMap::new();
    for permission in facts.permissions.iter().filter(|it| !it.allowed) {
        missing.entry(&permission.account).or_default().push(Missing(permission));
    }
    let of_account =
        missing.into_iter().map(|(account, missing)| finding(facts, account, &missing));
    let messages: BTreeSet<_> = facts.denied.iter().map(|(_, message)| message).collect();
    let not_checked = messages.into_iter().map(|message| {
        Finding::new(Code::NotChecked, Vec::new(), format!("not checked: no permission: {message}"))
    });
    of_account.chain(not_checked).collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let count = facts.permissions.len();
    if count == 0 { "not checked".to_owned() } else { format!("{count} of {count}") }
}

fn finding(facts: &ClusterFacts, account: &str, missing: &[Missing<'_>]) -> Finding {
    let all = facts.permissions.iter().filter(|it| it.account == account).count();
    let count = format!("{} of {all} permissions are missing", missing.len());
    let named = first_names(missing);
    if account.is_empty() {
        let text = format!(
            "{count} for the installation ({named}): install as a user with the ClusterRole \
             cluster-admin"
        );
        return Finding::new(Code::InstallPermission, Vec::new(), text);
    }
    let namespace = facts.objects.as_ref().map_or(api::NAMESPACE, |it| &*it.installation.namespace);
    let object = Object::namespaced("ServiceAccount", namespace, account);
    let is_own_group =
        facts.objects.as_ref().is_none_or(|it| it.installation.config.names.group == api::GROUP);
    let file = if is_own_group { "base/rbac.yaml" } else { "install-metallb-takeover.yaml" };
    let remedy = match namespace {
        api::NAMESPACE => format!("apply the RBAC objects of {MANIFESTS}/{file}"),
        _ => format!("apply the RBAC objects of the installation in {namespace} again"),
    };
    let text = format!("{count} for {object} ({named}): {remedy}");
    Finding::new(Code::ComponentPermission, vec![object], text)
}

/// Renders a permission as `verb resource.group`.
struct Missing<'a>(&'a Permission);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Permission { group, resource, name, verb, .. } = self.0;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if name.is_empty() { Ok(()) } else { write!(f, " {name}") }
    }
}
