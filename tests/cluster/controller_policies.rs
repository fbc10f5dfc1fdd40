//! Admission policies for the controller: what it may change in `pods/status`, and which Leases and
//! Secrets it may create. All requests are dry runs, except that a pod is marked once.

use crate::privileges::{FERROLB, POLICY_MAX};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::wait;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};

const CONTROLLER: &str = "system:serviceaccount:ferrolb-system:controller";
/// Another client that may write everything, such as a kubelet for its own pods.
const ADMIN: &str = "admin";

/// A request to the API server.
enum Call<'a> {
    /// Creates the object in the folder `path` of the API, by a dry run.
    Create { path: &'a str, object: &'a Value },
    /// Patches the status of a pod in the namespace `default`.
    PatchPod { name: &'a str, patch: &'a Value, dry_run: bool },
}

/// Sends a request as this user. Returns the message of the API server if it refuses the request.
async fn refusal(client: &Client, user: &str, call: &Call<'_>) -> Result<Option<String>> {
    let mut request = match call {
        Call::Create { path, object } => {
            let params = PostParams { dry_run: true, ..PostParams::default() };
            Request::new(*path).create(&params, serde_json::to_vec(object)?)?
        }
        Call::PatchPod { name, patch, dry_run } => {
            let params = PatchParams { dry_run: *dry_run, ..PatchParams::default() };
            let pods = Request::new("/api/v1/namespaces/default/pods");
            pods.patch_subresource("status", name, &params, &Patch::Strategic(patch))?
        }
    };
    if user != ADMIN {
        request.headers_mut().insert("impersonate-user", user.parse()?);
    }
    match client.request::<Value>(request).await {
        Ok(_) => Ok(None),
        // The object exists, which the API server checks after the policies.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => {
            Ok(Some(status.message.clone()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks that the API server allows a request, or refuses it with this text. A new policy takes
/// effect after a moment.
async fn check(client: &Client, user: &str, call: Call<'_>, expected: Option<&str>) -> Result<()> {
    wait::until_async("the API server enforces the policy", POLICY_MAX, async || {
        let refusal = refusal(client, user, &call).await?;
        let is_expected = match (&refusal, expected) {
            (Some(message), Some(text)) => message.contains(text),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        ensure!(is_expected, "{user}: {refusal:?} instead of {expected:?}");
        Ok(Some(()))
    })
    .await
}

/// Checks all changes of the status of a pod: by the controller and by another client, before and
/// after the pod was marked.
pub(crate) async fn check_conditions(client: &Client) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = pods.list(&ListParams::default()).await?.items.into_iter().next();
    let name = pod.and_then(|pod| pod.metadata.name).context("the lab has no pod")?;
    let call = |patch, dry_run| Call::PatchPod { name: &name, patch, dry_run };
    let ready = |status: &str, reason: Value| {
        let now = "2026-01-01T00:00:00Z";
        json!({"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now})
    };
    let mark = || ready("False", json!("NodeSilent"));
    let only = "the controller may change the condition Ready of a pod only";
    let others = [
        json!({"status": {"podIP": "192.0.2.9", "podIPs": [{"$patch": "replace"}, {"ip": "192.0.2.9"}], "conditions": [mark()]}}),
        json!({"status": {"phase": "Failed", "conditions": [mark()]}}),
        json!({"status": {"message": "new", "conditions": [mark()]}}),
        json!({"status": {"conditions": [mark(), {"type": "Other", "status": "True"}]}}),
        json!({"metadata": {"labels": {"app": "other"}}, "status": {"conditions": [mark()]}}),
        json!({"metadata": {"finalizers": ["example.com/other"]}, "status": {"conditions": [mark()]}}),
        json!({"metadata": {"annotations": {"a": "b"}}, "status": {"conditions": [mark()]}}),
        json!({"status": {"conditions": [{"$patch": "delete", "type": "Ready"}]}}),
    ];
    let unmarked = [
        json!({"status": {"conditions": [ready("False", json!("Other"))]}}),
        json!({"status": {"conditions": [ready("False", Value::Null)]}}),
    ];
    for change in others.iter().chain(&unmarked) {
        let context = || format!("{change} of a pod that is not marked");
        check(client, CONTROLLER, call(change, true), Some(only)).await.with_context(context)?;
        check(client, ADMIN, call(change, true), None).await.with_context(context)?;
    }
    let marked = json!({"status": {"conditions": [mark()]}});
    check(client, CONTROLLER, call(&marked, false), None).await.context("the mark")?;
    for change in &others {
        let context = || format!("{change} of a marked pod");
        check(client, CONTROLLER, call(change, true), Some(only)).await.with_context(context)?;
    }
    let restored = json!({"status": {"conditions": [ready("True", Value::Null)]}});
    check(client, CONTROLLER, call(&restored, false), None).await.context("the restoration")
}

/// Checks the names and types of Leases and Secrets that the controller creates.
pub(crate) async fn check_created(client: &Client) -> Result<()> {
    let lease = |name: &str| {
        let kind = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"});
        (format!("/apis/coordination.k8s.io/v1/namespaces/{FERROLB}/leases"), kind, name.to_owned())
    };
    let secret = |name: &str, kind: Option<&str>| {
        let kind = json!({"apiVersion": "v1", "kind": "Secret", "type": kind});
        (format!("/api/v1/namespaces/{FERROLB}/secrets"), kind, name.to_owned())
    };
    let only = Some("the controller may create the Lease ferrolb-controller");
    let token = "kubernetes.io/service-account-token";
    for ((path, mut object, name), expected) in [
        (lease("ferrolb-controller"), None),
        (secret("ferrolb-hello", Some("Opaque")), None),
        (secret("ferrolb-hello", None), None),
        (lease("other"), only),
        (secret("other", Some("Opaque")), only),
        (secret("ferrolb-hello", Some(token)), only),
        (secret("ferrolb-hello", Some("example.com/other")), only),
    ] {
        let annotations = json!({"kubernetes.io/service-account.name": "speaker"});
        object["metadata"] = json!({"name": name, "annotations": annotations});
        let call = Call::Create { path: &path, object: &object };
        check(client, CONTROLLER, call, expected).await.with_context(|| object.to_string())?;
    }
    Ok(())
}
