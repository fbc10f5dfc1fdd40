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
    /// Namespace of the permission; `None` grants it in every namespace.
    pub namespace: Option<String>,
    /// Name of the object; `None` grants the permission for all names.
    pub name: Option<String>,
}

impl Permission {
    fn covers(&self, request: &ApiRequest) -> bool {
        let matches = |own: &Option<String>, requested: &str| {
            own.as_deref().is_none_or(|own| own == requested)
        };
        let same = |own: &str, requested: &str| own == requested;
        same(&self.account, &request.account)
            && same(&self.verb, &request.verb)
            && same(&self.group, &request.group)
            && same(&self.resource, &request.resource)
            && matches(&self.namespace, &request.namespace)
            && matches(&self.name, &request.name)
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
    /// Namespace of the request; empty if the request is cluster-scoped or for all namespaces.
    pub namespace: String,
    /// Name of the object; empty if the request is not for a single object.
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
    /// removes them. Such refusals do not count.
    pub refused: BTreeSet<Permission>,
}

impl PermissionUse {
    /// Matches requests with granted permissions.
    pub fn of(requests: &BTreeSet<ApiRequest>, granted: &BTreeSet<Permission>) -> Self {
        let mut result = Self::default();
        for request in requests {
            match granted
                .iter()
                .filter(|permission| permission.covers(request))
                .max_by_key(|permission| specificity(permission))
            {
                Some(permission) if request.allowed => drop(result.used.insert(permission.clone())),
                None if !request.allowed => drop(result.refused.insert(needed_permission(request))),
                // Allowed by another rule: the scenario's own, or one of Kubernetes for every
                // account. Or refused temporarily.
                Some(_) | None => {}
            }
        }
        result
    }

    pub fn extend(&mut self, other: Self) {
        self.used.extend(other.used);
        self.refused.extend(other.refused);
    }

    /// Returns one line per granted permission that no request used.
    pub fn unused_lines(&self, granted: &BTreeSet<Permission>) -> Vec<String> {
        granted
            .difference(&self.used)
            .map(|permission| format!("granted, but not used by any request: {permission}"))
            .collect()
    }

    /// Returns one line per request that was refused.
    pub fn refused_lines(&self) -> Vec<String> {
        self.refused
            .iter()
            .map(|permission| format!("refused, and not granted by deploy/: {permission}"))
            .collect()
    }
}

/// Returns how specific a permission is. A request uses the most specific matching rule, so a rule
/// without a name does not make one with a name unnecessary.
fn specificity(permission: &Permission) -> (bool, bool) {
    (permission.name.is_some(), permission.namespace.is_some())
}

/// Returns the permission that a request would have needed.
fn needed_permission(request: &ApiRequest) -> Permission {
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let ApiRequest { account, verb, group, resource, namespace, name, allowed: _ } =
        request.clone();
    Permission {
        account,
        verb,
        group,
        resource,
        namespace: non_empty(&namespace),
        name: non_empty(&name),
    }
}

#[cfg(test)]
mod tests;
