//! The second kind of cluster: machines whose kubelets run pods, made by `kubeadm init` and `kubeadm join` as a user makes them. The wire is the same, and
//! so are the addresses; node1 is the control plane.

pub mod config;
pub mod machine;

use super::{api, wire};
use crate::setup::images;
use crate::setup::kubeadm::{Parts, Pod};
use crate::state::{Facts, State};
use crate::topology::node_name;
use crate::{run, wait};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long all images may take onto a machine, on a busy one.
const IMAGES_MAX: Duration = Duration::from_secs(180);
/// How long the cluster may take to be whole after its last machine has joined.
const WHOLE_MAX: Duration = Duration::from_secs(180);
/// How many lines of a log tell why a machine failed.
const LOG_LINES: usize = 30;

/// Raises the cluster: after this every node is ready, and kube-proxy and CoreDNS are.
///
/// # Errors
/// When a machine does not come up, with the last words of its kubelet.
pub fn raise(state: &State, facts: &Facts, parts: &Parts, lab: &Path) -> Result<()> {
    let own = machine::folder(&state.name).join("images");
    fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    images::of_programs(&parts.ferrolb, facts.gobgp.as_deref(), &own)?;
    Pod::make(lab, &own)?;
    wire::build(&state.name, facts)?;
    let nodes: Vec<String> = (1..=facts.nodes).map(node_name).collect();
    for (index, node) in (1..).zip(&nodes) {
        machine::start(state, parts, lab, node, &config::files(facts, parts, index)?)?;
    }
    let (first, others) = nodes.split_first().context("a lab has a node")?;
    wait_images(state, first)?;
    kubeadm(state, first, "init")?;
    fs::copy(machine::inside_file(state, first, "etc/kubernetes/admin.conf"), state.kubeconfig())?;
    std::thread::scope(|scope| {
        let join = |node| {
            wait_images(state, node)?;
            kubeadm(state, node, "join")
        };
        let joins: Vec<_> = others.iter().map(|node| scope.spawn(move || join(node))).collect();
        joins.into_iter().try_for_each(|join| join.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    api::with_client(state, &state.kubeconfig(), async |client| wait_whole(&client, nodes.len()).await)
}

fn wait_images(state: &State, node: &str) -> Result<()> {
    wait::until(&format!("the images of {node}"), IMAGES_MAX, || {
        ensure!(machine::is_on(state, node), "{node} has ended: {}", machine::last_words(state, node, LOG_LINES));
        Ok(machine::has_images(state, node).then_some(()))
    })
}

/// `kubeadm init` or `join` on a machine, by the file that is there for it.
fn kubeadm(state: &State, node: &str, word: &str) -> Result<()> {
    let mut command = machine::command(state, node)?;
    command.args(["kubeadm", word, "--config", config::KUBEADM_FILE]);
    run::run(&mut command).with_context(|| machine::last_words(state, node, LOG_LINES)).map(drop)
}

async fn wait_whole(client: &Client, nodes: usize) -> Result<()> {
    wait::until_async("a whole cluster", WHOLE_MAX, async || match missing(client, nodes).await? {
        None => Ok(Some(())),
        Some(missing) => bail!("{missing}"),
    })
    .await
}

/// What the cluster still lacks.
async fn missing(client: &Client, nodes: usize) -> Result<Option<String>> {
    let all: Api<Node> = Api::all(client.clone());
    let ready = all.list(&ListParams::default()).await?.items.iter().filter(|node| is_ready(node)).count();
    if ready < nodes {
        return Ok(Some(format!("{ready} of {nodes} nodes are ready")));
    }
    let proxies: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let proxies = proxies.get("kube-proxy").await?.status.map_or(0, |status| status.number_ready);
    if usize::try_from(proxies)? < nodes {
        return Ok(Some(format!("{proxies} of {nodes} kube-proxies are ready")));
    }
    let dns: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let dns = dns.get("coredns").await?.status.unwrap_or_default();
    let served = dns.ready_replicas.is_some() && dns.ready_replicas == dns.replicas;
    Ok((!served).then(|| "CoreDNS is not ready".to_owned()))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
