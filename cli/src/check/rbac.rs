//! The permissions that FerroLB needs. Those of its components are in `deploy/base/rbac.yaml`, or
//! with MetalLB's API group in `deploy/install-metallb-takeover.yaml`. Those of the user who
//! installs it follow from `deploy/install.yaml`. Pure.

use std::collections::BTreeSet;

use ferrolb_controller_core::state::Names;
use ferrolb_proto::api;
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;

const RBAC: &str = include_str!("../../../deploy/base/rbac.yaml");
const TAKEOVER: &str = include_str!("../../../deploy/install-metallb-takeover.yaml");
const INSTALL: &str = include_str!("../../../deploy/install.yaml");
/// The role that only a controller needs which marks the pods of failed nodes.
const NODE_FAILURE_ROLE: &str = "ferrolb-system:ferrolb-node-failure";
/// Verbs with which `kubectl apply` creates and changes objects.
const APPLY_VERBS: [&str; 3] = ["get", "create", "patch"];

/// A request that an account must be permitted to send, and whether it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// Name of the ServiceAccount; empty for the user.
    pub account: String,
    /// Namespace of the objects; empty for all namespaces, and for objects without one.
    pub namespace: String,
    /// API group of the resource.
    pub group: String,
    /// Plural of the resource, with the subresource after a slash.
    pub resource: String,
    /// Name of the object; empty for any.
    pub name: String,
    /// The verb.
    pub verb: String,
    /// True if the API server permits the request.
    pub allowed: bool,
}

/// An object of the manifests. Only RBAC objects have roles, subjects and rules.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    api_version: String,
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    role_ref: Option<RoleRef>,
    #[serde(default)]
    subjects: Vec<Subject>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// Returns the permissions that the components of an installation need. `marks_pods` is true if the
/// controller marks the pods of failed nodes.
///
/// # Errors
/// The manifest of this version cannot be decoded.
pub fn of_components(
    names: &Names,
    marks_pods: bool,
) -> Result<BTreeSet<Permission>, serde_saphyr::Error> {
    let manifest = if names.group == api::GROUP { RBAC } else { TAKEOVER };
    let objects: Vec<Manifest> = serde_saphyr::from_multiple(manifest)?;
    let mut permissions = BTreeSet::new();
    let bindings = objects.iter().filter_map(|it| Some((it, it.role_ref.as_ref()?)));
    let is_needed = |role: &RoleRef| marks_pods || role.name != NODE_FAILURE_ROLE;
    for (binding, role_ref) in bindings.filter(|(_, role)| is_needed(role)) {
        let is_role =
            |it: &&Manifest| it.kind == role_ref.kind && it.metadata.name == role_ref.name;
        let rules = objects.iter().find(is_role).map(|role| &*role.rules).unwrap_or_default();
        let is_namespaced = !binding.metadata.namespace.is_empty();
        let namespace = if is_namespaced { &*names.namespace } else { "" };
        for subject in &binding.subjects {
            for rule in rules {
                permissions.extend(of_rule(rule, &subject.name, namespace));
            }
        }
    }
    Ok(permissions)
}

/// Returns the permissions of a rule.
fn of_rule<'a>(
    rule: &'a Rule,
    account: &'a str,
    namespace: &'a str,
) -> impl Iterator<Item = Permission> + 'a {
    let any = std::slice::from_ref(const { &String::new() });
    let object_names = if rule.resource_names.is_empty() { any } else { &*rule.resource_names };
    let groups = rule.api_groups.iter();
    groups.flat_map(move |group| {
        rule.resources.iter().flat_map(move |resource| {
            rule.verbs.iter().flat_map(move |verb| {
                object_names.iter().map(move |name| Permission {
                    account: account.to_owned(),
                    namespace: namespace.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verb: verb.clone(),
                    allowed: false,
                })
            })
        })
    })
}

/// Returns the permissions of a user who applies the manifests.
///
/// # Errors
/// The manifest of this version cannot be decoded.
pub fn of_installer() -> Result<BTreeSet<Permission>, serde_saphyr::Error> {
    let objects: Vec<Manifest> = serde_saphyr::from_multiple(INSTALL)?;
    let of_object = |object: &Manifest| {
        let (group, version) =
            object.api_version.split_once('/').unwrap_or(("", &object.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &object.kind));
        APPLY_VERBS.map(|verb| Permission {
            namespace: object.metadata.namespace.clone(),
            group: group.to_owned(),
            resource: resource.plural.clone(),
            verb: verb.to_owned(),
            ..Permission::default()
        })
    };
    Ok(objects.iter().flat_map(of_object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(group: &str) -> Names {
        Names { namespace: "lb".into(), group: group.into() }
    }

    fn texts(permissions: &BTreeSet<Permission>) -> Vec<String> {
        let text = |it: &Permission| {
            let Permission { account, namespace, group, resource, name, verb, .. } = it;
            [account, namespace, group, resource, name, verb].map(String::as_str).join(" ")
        };
        permissions.iter().map(text).collect()
    }

    #[test]
    fn the_components_need_the_rules_of_the_manifest() {
        let all = texts(&of_components(&names(api::GROUP), true).unwrap());
        for expected in [
            "controller   services/status  patch",
            "controller lb coordination.k8s.io leases ferrolb-controller update",
            "controller lb  secrets  create",
            "speaker lb ferrolb.io speakerstatuses/status  patch",
            "speaker   nodes  watch",
            "controller   pods/status  patch",
        ] {
            assert!(all.iter().any(|it| it == expected), "{expected:?} is missing: {all:#?}");
        }
    }

    #[test]
    fn with_metallbs_objects_the_components_need_the_rules_of_the_takeover() {
        let all = texts(&of_components(&names("metallb.io"), false).unwrap());
        for expected in [
            "speaker lb metallb.io ipaddresspools  list",
            "controller lb coordination.k8s.io leases ferrolb-controller update",
        ] {
            assert!(all.iter().any(|it| it == expected), "{expected:?} is missing: {all:#?}");
        }
        let unused = |it: &String| {
            ["speakerstatuses", "pods", "ipaddresspools/status"].iter().any(|at| it.contains(at))
        };
        assert!(!all.iter().any(unused), "{all:#?}");
    }

    #[test]
    fn an_installer_needs_the_kinds_of_the_manifest() {
        let all = texts(&of_installer().unwrap());
        for expected in [
            "   namespaces  create",
            "  apiextensions.k8s.io customresourcedefinitions  patch",
            " ferrolb-system networking.k8s.io networkpolicies  create",
            "  admissionregistration.k8s.io validatingadmissionpolicies  create",
            " ferrolb-system apps daemonsets  get",
        ] {
            assert!(all.iter().any(|it| it == expected), "{expected:?} is missing: {all:#?}");
        }
    }
}
