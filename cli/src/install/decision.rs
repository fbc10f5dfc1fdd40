//! Decides whether `install` may apply its manifests, and those of which variant. Pure.

use ferrolb_proto::api::{GROUP, NAMESPACE};
use k8s_openapi::api::apps::v1::Deployment;

use super::manifests::Variant;
use crate::apply::FIELD_MANAGER;
use crate::check::finding::Code;
use crate::check::report::Report;
use crate::installation;

/// Labels of the controller's Deployment, as a selector.
pub const CONTROLLER_LABELS: &str =
    "app.kubernetes.io/name=ferrolb,app.kubernetes.io/component=controller";
/// Findings about load balancers that serve Services without a class, too.
const SAME_SERVICES: [Code; 3] = [Code::MetalLb, Code::ServiceLb, Code::OtherLoadBalancer];

/// Reason why this command does not change an installation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Helm installed FerroLB.
    #[error(
        "Helm installed FerroLB as the release {release}: upgrade it with `helm upgrade {release} \
         CHART --namespace {namespace} --reset-then-reuse-values`, after the step for \
         CustomResourceDefinitions in docs/install/upgrade.md"
    )]
    Helm { release: String, namespace: String },
    /// FerroLB is in another namespace.
    #[error(
        "FerroLB is installed in the namespace {0}: to upgrade it, add --installation {0}. For a \
         second installation, see docs/install/manifests.md"
    )]
    OtherNamespace(String),
    /// The installation has another variant.
    #[error(
        "FerroLB is installed as the variant {installed}: add --variant {installed} to upgrade it. \
         For {wanted}, first uninstall it except the pools (docs/install/uninstall.md): Services \
         keep their addresses"
    )]
    OtherVariant { installed: Variant, wanted: Variant },
    /// Another program installed FerroLB, such as `kubectl apply`.
    #[error(
        "this command did not install FerroLB, {manager} did: upgrade it in the same way, for \
         example with `kubectl ferrolb install {options}--dry-run | kubectl apply -f -`"
    )]
    OtherManager { manager: String, options: String },
}

/// Returns the variant of the installation that `deployments` belong to; `None` before an
/// installation. `has_gobgpd` is true if the namespace has a DaemonSet of gobgpd.
///
/// # Errors
/// This command may not change the installation.
pub fn installed(
    deployments: &[Deployment],
    namespace: &str,
    has_gobgpd: bool,
) -> Result<Option<Variant>, Refusal> {
    let is_here = |it: &&Deployment| it.metadata.namespace.as_deref() == Some(namespace);
    let found = deployments.iter().find(is_here).or(deployments.first());
    let Some(deployment) = found else { return Ok(None) };
    let metadata = &deployment.metadata;
    let found_in = metadata.namespace.clone().unwrap_or_default();
    if let Some(release) = installation::helm_release(deployment) {
        return Err(Refusal::Helm { release: release.to_owned(), namespace: found_in });
    }
    if found_in != namespace {
        return Err(Refusal::OtherNamespace(found_in));
    }
    let variant = variant(deployment, has_gobgpd);
    let managers = metadata.managed_fields.iter().flatten();
    if managers.clone().any(|it| it.manager.as_deref() == Some(FIELD_MANAGER)) {
        return Ok(Some(variant));
    }
    let manager = managers.filter(|it| it.subresource.is_none()).find_map(|it| it.manager.clone());
    let manager = manager.unwrap_or_else(|| "another program".to_owned());
    let mut options = format!("--variant {variant} ");
    if namespace != NAMESPACE {
        options += &format!("--installation {namespace} ");
    }
    Err(Refusal::OtherManager { manager, options })
}

fn variant(deployment: &Deployment, has_gobgpd: bool) -> Variant {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let config = installation::config(namespace, Some(deployment));
    if config.names.group != GROUP {
        Variant::MetallbTakeover
    } else if !config.default_implementation {
        Variant::BesideMetallb
    } else if has_gobgpd {
        Variant::Bgp
    } else {
        Variant::L2
    }
}

/// Returns the variant to apply: the installed one, or the wanted one.
///
/// # Errors
/// Another one is installed. Objects that only it has would be left, and Services could lose their
/// addresses.
pub fn chosen(installed: Option<Variant>, wanted: Option<Variant>) -> Result<Variant, Refusal> {
    match (installed, wanted) {
        (Some(installed), Some(wanted)) if installed != wanted => {
            Err(Refusal::OtherVariant { installed, wanted })
        }
        (installed, wanted) => Ok(installed.or(wanted).unwrap_or_default()),
    }
}

/// Returns the reason why a check prevents the installation. A load balancer that serves the same
/// Services is no obstacle to an upgrade.
#[must_use]
pub fn obstacle(report: &Report, variant: Variant, is_installed: bool) -> Option<&'static str> {
    let begins = variant != Variant::BesideMetallb && !is_installed;
    let serves_same = report.findings().any(|it| SAME_SERVICES.contains(&it.code));
    if report.incomplete || !report.is_good(false) {
        Some("nothing is applied: solve the problems above, and run this command again")
    } else if serves_same && begins {
        Some(
            "nothing is applied, because another load balancer serves the same Services: remove \
             it, or add --variant beside-metallb",
        )
    } else {
        None
    }
}
