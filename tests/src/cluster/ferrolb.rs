//! FerroLB in the lab, under least privilege: what `deploy/` is rendered to is applied, and each program runs with a token of its own ServiceAccount, never as
//! the administrator.

use super::{apply, bgp, control_plane};
use crate::process::{self, Launch, Record};
use crate::setup;
use crate::state::State;
use crate::topology::CONTROL_PLANE;
use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// FerroLB's own namespace.
pub const NAMESPACE: &str = "ferrolb-system";
/// What the controller is called in the lab.
pub const CONTROLLER: &str = "controller";
/// The port of the programs' `/healthz`, `/readyz`, `/metrics` and `/state`.
pub const ADMIN_PORT: u16 = 7472;
/// How long a program's token is good for, in seconds: a lab that is kept should outlive a weekend.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
/// Kinds in there that the lab does not apply: no kubelet would run their pods.
const NOT_APPLIED: [&str; 2] = ["Deployment", "DaemonSet"];
/// What a user applies, and the same with BGP.
const RENDERED: &str = "deploy/install.yaml";
const RENDERED_WITH_BGP: &str = "deploy/install-bgp.yaml";
/// What one applies in MetalLB's place.
const TAKEOVER: &str = "deploy/install-metallb-takeover.yaml";

/// Applies what a user does, in a lab with BGP with BGP, but for the workloads, and writes each program's kubeconfig.
///
/// # Errors
/// When the API server refuses an object, or an account is missing from `deploy/`.
pub async fn install(client: &Client, state: &State) -> Result<()> {
    apply::apply(client, &applied(rendered(state.facts()?.gobgp.is_some())?)).await?;
    for account in ["controller", "speaker"] {
        let token = token(client, account).await?;
        control_plane::write_kubeconfig(state, &kubeconfig(state, account), &token)?;
    }
    Ok(())
}

/// The Roles and their bindings that a user applies in MetalLB's place: what the programs need in its namespace, for its kinds.
///
/// # Errors
/// When the file cannot be read.
pub fn rights_in_metallbs_place() -> Result<Vec<Value>> {
    let mut rights = apply::objects(&fs::read_to_string(setup::repository().join(TAKEOVER))?)?;
    rights.retain(|object| ["Role", "RoleBinding"].contains(&apply::kind(object)));
    Ok(rights)
}

/// What a user applies, for layer 2 alone or with BGP.
///
/// # Errors
/// When the file cannot be read.
pub fn rendered(with_bgp: bool) -> Result<Vec<Value>> {
    let file = rendered_file(with_bgp);
    apply::objects(&fs::read_to_string(setup::repository().join(file))?).with_context(|| format!("in {file}"))
}

/// The file that a user applies, from the root of the repository.
pub const fn rendered_file(with_bgp: bool) -> &'static str {
    if with_bgp { RENDERED_WITH_BGP } else { RENDERED }
}

/// What of the objects the lab applies.
fn applied(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| !NOT_APPLIED.contains(&apply::kind(object)));
    objects
}

async fn token(client: &Client, account: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("no token for the ServiceAccount {NAMESPACE}/{account}"))?;
    let token = answer.status.and_then(|status| status.token);
    token.ok_or_else(|| anyhow!("the token request for {account} came back without a token"))
}

/// Starts a controller under this name.
///
/// # Errors
/// When it cannot be started.
pub fn start_controller(state: &State, program: &Path, name: &str, extra: &[&str]) -> Result<Record> {
    let args = extra.iter().map(|arg| (*arg).to_owned()).collect();
    process::start(state, launch(state, "controller", name, (CONTROL_PLANE, None), program, args))
}

/// Starts the speaker of a node; where that has a gobgpd, it is told.
///
/// # Errors
/// When it cannot be started.
pub fn start_speaker(state: &State, program: &Path, node: &str, extra: &[&str]) -> Result<Record> {
    let mut args = vec!["--node-name".to_owned(), node.to_owned()];
    if state.facts()?.gobgp.is_some() {
        args.extend(["--gobgp".to_owned(), format!("unix:{}", bgp::socket(state, node).display())]);
    }
    args.extend(extra.iter().map(|arg| (*arg).to_owned()));
    process::start(state, launch(state, "speaker", &speaker_name(node), (node, Some(node)), program, args))
}

fn launch(
    state: &State,
    account: &str,
    name: &str,
    place: (&str, Option<&str>),
    program: &Path,
    args: Vec<String>,
) -> Launch {
    let (host, node) = place;
    Launch {
        name: name.to_owned(),
        host: host.to_owned(),
        node: node.map(str::to_owned),
        program: program.to_owned(),
        args,
        yields: false,
        env: [
            ("KUBECONFIG".to_owned(), kubeconfig(state, account).display().to_string()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ]
        .into(),
    }
}

/// What the speaker of a node is called in the lab.
pub fn speaker_name(node: &str) -> String {
    format!("speaker-{node}")
}

/// The kubeconfig with a program's own token.
pub fn kubeconfig(state: &State, account: &str) -> PathBuf {
    state.file(&format!("{account}.kubeconfig"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_left_out_and_the_namespace_comes_first() {
        for with_bgp in [false, true] {
            let objects = applied(rendered(with_bgp).unwrap());
            let kinds: Vec<&str> = objects.iter().map(apply::kind).collect();
            assert_eq!(kinds[..2], ["Namespace", "CustomResourceDefinition"]);
            assert!(
                kinds.contains(&"ServiceAccount") && !kinds.iter().any(|kind| NOT_APPLIED.contains(kind)),
                "{kinds:?}"
            );
        }
    }
}
