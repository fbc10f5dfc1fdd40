//! FerroLB in the lab, under least privilege: `deploy/` is applied, and each program runs with a token of its own ServiceAccount, never as
//! the administrator.

use super::{apply, bgp, control_plane};
use crate::process::{self, Launch, Record};
use crate::setup;
use crate::state::State;
use crate::topology::CONTROL_PLANE;
use anyhow::{Context, Result, anyhow};
use ferrolb_proto::api::GROUP;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
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
/// Kinds in `deploy/` that the lab does not apply: no kubelet would run their pods, and kustomize's file is no object.
const NOT_APPLIED: [&str; 3] = ["Deployment", "DaemonSet", "Kustomization"];

/// Applies everything in `deploy/` but the workloads, in a lab with BGP what is in `deploy/bgp/`, too, and writes each program's kubeconfig.
///
/// # Errors
/// When the API server refuses an object, or an account is missing from `deploy/`.
pub async fn install(client: &Client, state: &State) -> Result<()> {
    let deploy = setup::repository().join("deploy");
    let folders = [Some(deploy.clone()), state.facts()?.gobgp.map(|_| deploy.join("bgp"))];
    let mut objects = Vec::new();
    for file in folders.into_iter().flatten().map(|folder| manifests(&folder)).collect::<Result<Vec<_>>>()?.concat() {
        let text = fs::read_to_string(&file)?;
        objects.extend(apply::objects(&text).with_context(|| format!("in {}", file.display()))?);
    }
    apply::apply(client, &applied(objects)).await?;
    for account in ["controller", "speaker"] {
        let token = token(client, account).await?;
        control_plane::write_kubeconfig(state, &kubeconfig(state, account), &token)?;
    }
    Ok(())
}

/// The Roles in files of `deploy/` and their bindings, for another API group in a namespace of its own: what the programs need there.
///
/// # Errors
/// When a file cannot be read.
pub fn rights(group: &str, namespace: &str, files: &[&str]) -> Result<Vec<Value>> {
    let mut rights = Vec::new();
    for file in files {
        let text = fs::read_to_string(setup::repository().join("deploy").join(file))?;
        rights.extend(apply::objects(&text).with_context(|| format!("in {file}"))?);
    }
    rights.retain(|object| ["Role", "RoleBinding"].contains(&apply::kind(object)));
    for object in &mut rights {
        object["metadata"]["namespace"] = json!(namespace);
        for rule in object.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
            if rule["apiGroups"] == json!([GROUP]) {
                rule["apiGroups"] = json!([group]);
            }
        }
    }
    Ok(rights)
}

/// The YAML files of a folder, by name.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// What of several files' objects the lab applies. Each file is in order; together they must be so again.
fn applied(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| !NOT_APPLIED.contains(&apply::kind(object)));
    objects.sort_by_key(apply::rank);
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
        let yaml = [
            "kind: Deployment\n---\nkind: ServiceAccount",
            "kind: CustomResourceDefinition",
            "kind: Namespace\n---\nkind: DaemonSet",
        ];
        let objects = yaml.iter().flat_map(|text| apply::objects(text).unwrap()).collect();
        let kinds: Vec<String> = applied(objects).iter().map(|object| apply::kind(object).to_owned()).collect();
        assert_eq!(kinds, ["Namespace", "CustomResourceDefinition", "ServiceAccount"]);
    }
}
