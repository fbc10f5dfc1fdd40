//! Least privilege: compares the permissions that `deploy/` grants to FerroLB's accounts with the
//! requests that the API server logged. Pure functions, except [`run`], which collects the results
//! of the labs of a test run.

mod granted;
pub mod run;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

pub use granted::granted;

/// A permission that a rule grants to an account: one verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permission {
    pub account: String,
    pub verb: String,
    pub group: String,
    /// Resource with its subresource: `services/status`.
    pub resource: String,
    /// `None`: in every namespace.
    pub namespace: Option<String>,
    /// `None`: objects of any name.
    pub name: Option<String>,
}

impl Permission {
    fn covers(&self, asked: &ApiRequest) -> bool {
        let named = |own: &Option<String>, its: &str| own.as_deref().is_none_or(|own| own == its);
        let same = |own: &str, its: &str| own == its;
        same(&self.account, &asked.account)
            && same(&self.verb, &asked.verb)
            && same(&self.group, &asked.group)
            && same(&self.resource, &asked.resource)
            && named(&self.namespace, &asked.namespace)
            && named(&self.name, &asked.name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, verb, group, resource, namespace, name } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{account}: {verb} {resource}{dot}{group}")?;
        name.iter().try_for_each(|name| write!(f, " {name}"))?;
        write!(f, " in {}", namespace.as_deref().unwrap_or("every namespace"))
    }
}

/// A request of one of the accounts to the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiRequest {
    pub account: String,
    pub verb: String,
    pub group: String,
    pub resource: String,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: String,
    /// Empty: not a single object.
    pub name: String,
    pub allowed: bool,
}

/// Permissions that one or several labs observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionUse {
    /// Permissions that a request needed.
    pub used: BTreeSet<Permission>,
    /// Permissions that were refused and are granted to no account. A granted permission may also
    /// be refused temporarily: before the API server has read the roles, or while a scenario
    /// removes them. Those do not count.
    pub refused: BTreeSet<Permission>,
}

impl PermissionUse {
    /// Matches requests with granted permissions.
    pub fn of(asked: &BTreeSet<ApiRequest>, granted: &BTreeSet<Permission>) -> Self {
        let mut seen = Self::default();
        for asked in asked {
            match granted
                .iter()
                .filter(|right| right.covers(asked))
                .max_by_key(|right| specificity(right))
            {
                Some(right) if asked.allowed => drop(seen.used.insert(right.clone())),
                None if !asked.allowed => drop(seen.refused.insert(needed_permission(asked))),
                // Allowed by another rule: the scenario's own, or one of Kubernetes for every
                // account. Or refused temporarily.
                Some(_) | None => {}
            }
        }
        seen
    }

    pub fn extend(&mut self, other: Self) {
        self.used.extend(other.used);
        self.refused.extend(other.refused);
    }

    /// Returns one line per granted permission that no request used; there must be none.
    pub fn unused_lines(&self, granted: &BTreeSet<Permission>) -> Vec<String> {
        granted
            .difference(&self.used)
            .map(|right| format!("granted, and used by nobody: {right}"))
            .collect()
    }

    /// Returns one line per request that was refused.
    pub fn refused_lines(&self) -> Vec<String> {
        self.refused.iter().map(|right| format!("refused, and granted nowhere: {right}")).collect()
    }
}

/// Returns how specific a permission is. A request uses the most specific matching rule, so a rule
/// without a name does not make one with a name unnecessary.
fn specificity(right: &Permission) -> (bool, bool) {
    (right.name.is_some(), right.namespace.is_some())
}

/// Returns the permission that a request would have needed.
fn needed_permission(asked: &ApiRequest) -> Permission {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let ApiRequest { account, verb, group, resource, namespace, name, allowed: _ } = asked.clone();
    Permission { account, verb, group, resource, namespace: said(&namespace), name: said(&name) }
}

#[cfg(test)]
mod tests;
