//! FerroLB in the lab, with least privilege. The lab applies the rendered manifests of `deploy/`,
//! and each component runs with a token of its own ServiceAccount, never as administrator.

use super::{apply, bgp, control_plane};
use crate::process::{self, Launch, ProcessRecord};
use crate::setup;
use crate::state::LabState;
use crate::topology::{self, CONTROL_PLANE};
use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Namespace of FerroLB.
pub const NAMESPACE: &str = "ferrolb-system";
/// Process name of the controller in the lab.
pub const CONTROLLER: &str = "controller";
/// Port of `/healthz`, `/readyz`, `/metrics` and `/state` of the components.
pub const ADMIN_PORT: u16 = 7472;
/// Validity of a component's token in seconds: a lab may run for days.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
/// Kinds in the manifests that the lab does not apply, because no kubelet would run their pods.
const WORKLOAD_KINDS: [&str; 2] = ["Deployment", "DaemonSet"];
/// Manifest that a user applies, for layer 2 alone and with BGP.
const MANIFEST: &str = "deploy/install.yaml";
const MANIFEST_WITH_BGP: &str = "deploy/install-bgp.yaml";
/// Manifest of an in-place migration from MetalLB.
const MIGRATION_MANIFEST: &str = "deploy/install-metallb-takeover.yaml";

/// Applies the user's manifest (with BGP in a lab with BGP) without the workloads, and writes each
/// component's kubeconfig.
///
/// # Errors
/// If the API server rejects an object, or an account is missing from `deploy/`.
pub async fn install(client: &Client, state: &LabState) -> Result<()> {
    apply::apply(client, &without_workloads(rendered(state.facts()?.gobgp.is_some())?)).await?;
    let write = |process: &str, token: &str| {
        control_plane::write_kubeconfig(state, &kubeconfig(state, process), token)
    };
    write(CONTROLLER, &token(client, "controller", None).await?)?;
    for index in 1..=state.facts()?.nodes {
        let node = topology::node_name(index);
        write(&speaker_name(&node), &token(client, "speaker", Some(&node)).await?)?;
    }
    Ok(())
}

/// Returns the Roles and RoleBindings of an in-place migration from MetalLB: permissions of the
/// components in MetalLB's namespace, for its custom resources.
///
/// # Errors
/// If the file cannot be read.
pub fn migration_permissions() -> Result<Vec<Value>> {
    let mut permissions =
        apply::objects(&fs::read_to_string(setup::repository().join(MIGRATION_MANIFEST))?)?;
    permissions.retain(|object| ["Role", "RoleBinding"].contains(&apply::kind(object)));
    Ok(permissions)
}

/// Returns the objects that a user applies, for layer 2 alone or with BGP.
///
/// # Errors
/// If the file cannot be read.
pub fn rendered(with_bgp: bool) -> Result<Vec<Value>> {
    let file = rendered_file(with_bgp);
    apply::objects(&fs::read_to_string(setup::repository().join(file))?)
        .with_context(|| format!("in {file}"))
}

/// Returns the path of the file that a user applies, relative to the root of the repository.
pub const fn rendered_file(with_bgp: bool) -> &'static str {
    if with_bgp { MANIFEST_WITH_BGP } else { MANIFEST }
}

/// Returns the objects that the lab applies.
fn without_workloads(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| !WORKLOAD_KINDS.contains(&apply::kind(object)));
    objects
}

/// Returns a token of a ServiceAccount. That of a speaker names its node, as that of a pod does.
async fn token(client: &Client, account: &str, node: Option<&str>) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let bound_object_ref = node.map(|node| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: None,
    });
    let spec = TokenRequestSpec {
        expiration_seconds: Some(TOKEN_SECONDS),
        bound_object_ref,
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let response = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let response = response
        .with_context(|| format!("no token for the ServiceAccount {NAMESPACE}/{account}"))?;
    let token = response.status.and_then(|status| status.token);
    token.ok_or_else(|| anyhow!("the API server returned no token for {account}"))
}

/// Starts a controller as the process `name`.
///
/// # Errors
/// If the process cannot be started.
pub fn start_controller(
    state: &LabState,
    program: &Path,
    name: &str,
    extra_args: &[&str],
) -> Result<ProcessRecord> {
    let args = extra_args.iter().map(|arg| (*arg).to_owned()).collect();
    process::start(state, launch(state, CONTROLLER, name, (CONTROL_PLANE, None), program, args))
}

/// Starts the speaker of a node, with the gobgpd of the node if there is one.
///
/// # Errors
/// If the process cannot be started.
pub fn start_speaker(
    state: &LabState,
    program: &Path,
    node: &str,
    extra_args: &[&str],
) -> Result<ProcessRecord> {
    let mut args = vec!["--node-name".to_owned(), node.to_owned()];
    if state.facts()?.gobgp.is_some() {
        args.extend(["--gobgp".to_owned(), format!("unix:{}", bgp::socket(state, node).display())]);
    }
    args.extend(extra_args.iter().map(|arg| (*arg).to_owned()));
    let name = speaker_name(node);
    process::start(state, launch(state, &name, &name, (node, Some(node)), program, args))
}

fn launch(
    state: &LabState,
    credentials: &str,
    name: &str,
    location: (&str, Option<&str>),
    program: &Path,
    args: Vec<String>,
) -> Launch {
    let (host, node) = location;
    Launch {
        name: name.to_owned(),
        host: host.to_owned(),
        node: node.map(str::to_owned),
        program: program.to_owned(),
        args,
        low_priority: false,
        env: [
            ("KUBECONFIG".to_owned(), kubeconfig(state, credentials).display().to_string()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ]
        .into(),
    }
}

/// Returns the process name of a node's speaker in the lab.
pub fn speaker_name(node: &str) -> String {
    format!("speaker-{node}")
}

/// Returns the path of the kubeconfig with the token of the process: [`CONTROLLER`], which all
/// controllers use, or a node's [`speaker_name`].
pub fn kubeconfig(state: &LabState, process: &str) -> PathBuf {
    state.file(&format!("{process}.kubeconfig"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_omitted_and_the_namespace_is_first() {
        for with_bgp in [false, true] {
            let objects = without_workloads(rendered(with_bgp).unwrap());
            let kinds: Vec<&str> = objects.iter().map(apply::kind).collect();
            assert_eq!(kinds[..2], ["Namespace", "CustomResourceDefinition"]);
            assert!(
                kinds.contains(&"ServiceAccount")
                    && !kinds.iter().any(|kind| WORKLOAD_KINDS.contains(kind)),
                "{kinds:?}"
            );
        }
    }
}
