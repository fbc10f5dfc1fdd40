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
/// Beginning of the field managers of kubectl, such as `kubectl-client-side-apply`.
const KUBECTL: &str = "kubectl-";
/// Field manager of `kubectl apply --server-side`.
const KUBECTL_SERVER_SIDE: &str = "kubectl";
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
    /// `kubectl apply` installed FerroLB.
    #[error(
        "`kubectl apply` installed FerroLB: upgrade it in the same way, for example with `kubectl \
         ferrolb install {install}--dry-run | kubectl apply {apply}-f -`"
    )]
    KubectlApply { install: String, apply: &'static str },
    /// Another program installed FerroLB.
    #[error(
        "another program installed FerroLB, with the field manager {0}: upgrade it with that program"
    )]
    OtherProgram(String),
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
    let found = here(deployments, namespace).or(deployments.first());
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
    let apply = match manager.as_deref() {
        Some(KUBECTL_SERVER_SIDE) => "--server-side ",
        Some(manager) if manager.starts_with(KUBECTL) => "",
        _ => return Err(Refusal::OtherProgram(manager.unwrap_or_else(|| "unknown".to_owned()))),
    };
    let install = match namespace {
        NAMESPACE => String::new(),
        other => format!("--installation {other} "),
    };
    Err(Refusal::KubectlApply { install, apply })
}

/// Returns the variant in `namespace`, whichever program installed it; `None` before an
/// installation.
#[must_use]
pub fn variant_in(
    deployments: &[Deployment],
    namespace: &str,
    has_gobgpd: bool,
) -> Option<Variant> {
    here(deployments, namespace).map(|it| variant(it, has_gobgpd))
}

fn here<'a>(deployments: &'a [Deployment], namespace: &str) -> Option<&'a Deployment> {
    deployments.iter().find(|it| it.metadata.namespace.as_deref() == Some(namespace))
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
