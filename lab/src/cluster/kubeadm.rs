//! Kubeadm cluster: machines whose kubelets run pods, created with `kubeadm init` and `kubeadm
//! join` like a user's cluster. Network segment and addresses are the same as in a lab without
//! kubelets; node1 is the control plane.

pub mod config;
pub mod machine;
pub mod services;

use super::{api, network, registry};
use crate::setup::images::{self, Arch};
use crate::setup::kubeadm::{KubeadmParts, PodImage};
use crate::shared_folder;
use crate::state::{LabFacts, LabState};
use crate::topology::node_name;
use crate::{run, wait};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Maximum time to load all images on a machine, on a busy host.
const IMAGES_MAX: Duration = Duration::from_secs(180);
/// Maximum time from the last `kubeadm join` until the cluster is complete.
const COMPLETE_MAX: Duration = Duration::from_secs(180);
/// Number of log lines to show when a machine fails.
const LOG_LINES: usize = 30;

/// Starts the cluster. When this function returns, every node, kube-proxy and CoreDNS are ready.
/// With a network plugin, they become so after its installation: see [`wait_complete`].
///
/// # Errors
/// If a machine does not start, with the end of its kubelet's log.
pub fn start(state: &LabState, facts: &LabFacts, parts: &KubeadmParts, lab: &Path) -> Result<()> {
    let image_folder = machine::folder(&state.name).join("images");
    shared_folder::create(Path::new(machine::ROOT), &image_folder)
        .with_context(|| format!("cannot create {}", image_folder.display()))?;
    network::build(&state.name, facts)?;
    if facts.registry {
        registry::start(state, facts)?;
    } else {
        for program in images::of(Arch::own(), &parts.ferrolb, facts.gobgp.as_deref()) {
            program.archive(&image_folder)?;
        }
        PodImage::make(lab, &image_folder)?;
    }
    if let Some(plugin) = facts.network_plugin {
        fs::copy(plugin.build(&parts.root)?, image_folder.join("network-plugin.tar"))?;
    }
    let nodes: Vec<String> = (1..=facts.nodes).map(node_name).collect();
    for (index, node) in (1..).zip(&nodes) {
        machine::start(state, parts, lab, node, &config::files(facts, parts, index)?)?;
    }
    let (first, others) = nodes.split_first().context("the lab has no node")?;
    wait_images(state, first)?;
    kubeadm(state, first, "init")?;
    fs::copy(machine::inside_file(state, first, "etc/kubernetes/admin.conf"), state.kubeconfig())?;
    std::thread::scope(|scope| {
        let join = |node| {
            wait_images(state, node)?;
            kubeadm(state, node, "join")
        };
        let joins: Vec<_> = others.iter().map(|node| scope.spawn(move || join(node))).collect();
        joins.into_iter().try_for_each(|join| {
            join.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    if facts.network_plugin.is_some() {
        return Ok(());
    }
    api::with_client(state, &state.kubeconfig(), async |client| {
        wait_complete(&client, nodes.len()).await
    })
}

fn wait_images(state: &LabState, node: &str) -> Result<()> {
    wait::until(&format!("the images of {node} are loaded"), IMAGES_MAX, || {
        ensure!(
            machine::is_on(state, node),
            "the machine {node} has ended: {}",
            machine::log_tail(state, node, LOG_LINES)
        );
        Ok(machine::has_images(state, node).then_some(()))
    })
}

/// Runs `kubeadm init` or `join` on a machine, with the configuration file of that machine.
fn kubeadm(state: &LabState, node: &str, subcommand: &str) -> Result<()> {
    let mut command = machine::command(state, node)?;
    command.args(["kubeadm", subcommand, "--config", config::KUBEADM_FILE]);
    run::run(&mut command).with_context(|| machine::log_tail(state, node, LOG_LINES)).map(drop)
}

/// Waits until every node, all DaemonSets and CoreDNS are ready.
///
/// # Errors
/// If a part is not ready in time.
pub async fn wait_complete(client: &Client, nodes: usize) -> Result<()> {
    wait::until_async("the cluster is complete", COMPLETE_MAX, async || {
        match missing_part(client, nodes).await? {
            None => Ok(Some(())),
            Some(missing_part) => bail!("{missing_part}"),
        }
    })
    .await
}

/// Returns the missing part of the cluster, if any.
async fn missing_part(client: &Client, nodes: usize) -> Result<Option<String>> {
    let all: Api<Node> = Api::all(client.clone());
    let ready =
        all.list(&ListParams::default()).await?.items.iter().filter(|node| is_ready(node)).count();
    if ready < nodes {
        return Ok(Some(format!("{ready} of {nodes} nodes are ready")));
    }
    // kube-proxy, and the network plugin.
    let daemons: Api<DaemonSet> = Api::all(client.clone());
    for daemon in daemons.list(&ListParams::default()).await? {
        let ready = daemon.status.as_ref().map_or(0, |status| status.number_ready);
        if usize::try_from(ready)? < nodes {
            let name = daemon.name_any();
            return Ok(Some(format!("{ready} of {nodes} pods of {name} are ready")));
        }
    }
    let dns: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let dns = dns.get("coredns").await?.status.unwrap_or_default();
    let served = dns.ready_replicas.is_some() && dns.ready_replicas == dns.replicas;
    Ok((!served).then(|| "CoreDNS is not ready".to_owned()))
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
