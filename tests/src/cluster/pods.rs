//! The lab's pods: a namespace on a node's bridge with a web server in it, and a Pod object that says so. Whether a pod is ready is ours to say.

use super::wire;
use crate::process::{self, Launch, Record};
use crate::state::State;
use crate::topology;
use crate::{netns, run};
use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// How long a pod that is deleted may go on, in seconds: the default of `terminationGracePeriodSeconds`.
const GRACE_SECONDS: u32 = 30;

/// Where a pod is.
#[derive(Clone, Debug)]
pub struct Place {
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// Makes the pod's namespace and starts its web server: on a node, with its number in the lab, on a port.
///
/// # Errors
/// When there is no such node, or the name is taken.
pub fn start(state: &State, server: &Path, name: &str, (node, number, port): (&str, u8, u16)) -> Result<Place> {
    let index = topology::node_index(node).ok_or_else(|| anyhow!("{node} is no node of the lab"))?;
    let (lab, families) = (&state.name, state.facts()?.families);
    run::ip_batch(None, &format!("netns add {}\n", lab.namespace(name)))?;
    wire::set_families(&lab.namespace(name), families)?;
    run::ip_batch(Some(&lab.namespace(node)), &topology::batch_pod_link(lab, name, number))?;
    run::ip_batch(Some(&lab.namespace(name)), &topology::batch_pod(index, number, families))?;
    let launch = Launch {
        name: process_name(name),
        host: name.to_owned(),
        node: Some(node.to_owned()),
        program: server.to_owned(),
        args: vec!["serve".to_owned(), name.to_owned(), port.to_string()],
        env: [].into(),
        yields: false,
    };
    process::start(state, launch)?;
    Ok(Place { node: node.to_owned(), addresses: families.of(topology::pod_addresses(index, number)), port })
}

/// Tells the API server of a pod that runs: it is ready from the start.
///
/// # Errors
/// When the API server refuses it.
pub async fn register(client: &Client, name: &str, place: &Place, labels: &[(&str, &str)]) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": place.node, "containers": [
            {"name": "web", "image": "none", "ports": [{"containerPort": place.port, "name": "http"}]},
        ]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.with_context(|| format!("pod {name}"))?;
    let all: Vec<Value> = place.addresses.iter().map(|address| json!({"ip": address})).collect();
    let status = json!({"status": {"phase": "Running", "podIP": place.addresses.first(), "podIPs": all}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    set_ready(client, name, true).await
}

/// Says whether a pod is ready, as its kubelet would.
///
/// # Errors
/// When there is no such pod.
pub async fn set_ready(client: &Client, name: &str, ready: bool) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let status = if ready { "True" } else { "False" };
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("pod {name}"))?;
    Ok(())
}

/// Begins the end of a pod: the API server keeps it, as terminating, for its kubelet to end.
///
/// # Errors
/// When there is no such pod.
pub async fn terminate(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete(name, &DeleteParams::default().grace_period(GRACE_SECONDS))
        .await
        .with_context(|| format!("pod {name}"))?;
    Ok(())
}

/// Takes a pod from the API server.
///
/// # Errors
/// When there is no such pod.
pub async fn unregister(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.with_context(|| format!("pod {name}"))?;
    Ok(())
}

/// Ends a pod's web server and removes its namespace.
///
/// # Errors
/// When there is no such pod.
pub fn stop(state: &State, name: &str) -> Result<()> {
    let namespace = state.name.namespace(name);
    process::kill(netns::pids(std::slice::from_ref(&namespace)).into_iter().map(|pid| (pid, None)))?;
    process::forget(state, &process_name(name));
    run::ip_batch(None, &format!("netns del {namespace}\n"))
}

/// What a pod's web server is called in the lab.
pub fn process_name(pod: &str) -> String {
    format!("pod-{pod}")
}

/// The names of the pods on `node`.
pub fn on_node(state: &State, node: &str) -> Vec<String> {
    let on_node = |record: &Record| record.launch.node.as_deref() == Some(node) && record.launch.host != node;
    process::records(state).into_iter().filter(on_node).map(|record| record.launch.host).collect()
}
