//! Runs the command `install`. The progress goes to stderr. Each step can be repeated, so a second
//! run continues after a failure, and upgrades.

use anyhow::{Context as _, Result};
use futures::Stream;
use futures::stream::select;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use super::decision::{self, CONTROLLER_LABELS, installed};
use super::manifests::Variant;
use super::progress::Progress;
use super::read::{Reader, changes};
use super::wait::wait;
use crate::apply::apply;
use crate::check::{self, report::Report};
use crate::init;
use crate::init::propose::Request;
use crate::installation::GOBGPD;
use crate::objects::{name, text};
use crate::read::permitted;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The options of the command.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallRequest {
    /// Installation method; default: the installed one, or l2
    #[arg(long, value_enum, value_name = "VARIANT")]
    pub variant: Option<Variant>,
    /// Print the manifests, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The first pool.
    #[command(flatten)]
    pub pool: Request,
}

/// The cluster, as the command line names it.
pub struct Target<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Host of the API server in the kubeconfig file.
    pub server: &'a str,
    /// Namespace of the installation.
    pub namespace: &'a str,
}

/// Installs FerroLB or upgrades it, and proposes a first pool as `init` does. Returns false if the
/// check prevents the installation. `now` returns the present time in seconds since 1970.
///
/// # Errors
/// The API server is unavailable or rejects an object, another program installed FerroLB, or the
/// pods do not become ready.
pub async fn install(
    target: &Target<'_>,
    request: &InstallRequest,
    now: fn() -> i64,
    print: impl Fn(&str) -> Result<bool>,
) -> Result<bool> {
    let Target { client, server, namespace } = *target;
    let (deployments, has_gobgpd) = target.installation().await?;
    let installed = installed(&deployments, namespace, has_gobgpd)?;
    let variant = decision::chosen(installed, request.variant)?;

    let facts = check::read::read(client, namespace, true, now()).await?;
    let report = Report::new(&facts);
    eprintln!("{}", check::text::text(&report));
    if let Some(obstacle) = decision::obstacle(&report, variant, installed.is_some()) {
        eprintln!("error: {obstacle}");
        return Ok(false);
    }

    eprintln!("FerroLB {VERSION} (variant {variant}) in the namespace {namespace} of {server}");
    target.apply(variant, installed.is_some()).await?;
    if variant != Variant::MetallbTakeover {
        target.wait_for_reports().await?;
    }
    eprintln!();
    init::apply::init(client, namespace, now(), server, &request.pool, print)
        .await
        .context("FerroLB is installed, and `kubectl ferrolb init` creates its first pool")?;
    Ok(true)
}

impl Target<'_> {
    /// Returns the installed variant, or the one that this command would install.
    ///
    /// # Errors
    /// The API server is unavailable.
    pub async fn variant(&self) -> Result<Variant> {
        let (deployments, has_gobgpd) = self.installation().await?;
        let installed = decision::variant_in(&deployments, self.namespace, has_gobgpd);
        Ok(installed.unwrap_or_default())
    }

    /// Returns the Deployments of controllers in all namespaces, and whether this namespace has a
    /// DaemonSet of gobgpd.
    async fn installation(&self) -> Result<(Vec<Deployment>, bool)> {
        let deployments = Api::<Deployment>::all(self.client.clone());
        let deployments = deployments.list(&ListParams::default().labels(CONTROLLER_LABELS)).await;
        let deployments = permitted(deployments)?.map(|list| list.items).unwrap_or_default();
        Ok((deployments, self.reader().find_daemon_set(GOBGPD).await?.is_some()))
    }

    /// Applies the manifests, and waits until all pods are ready. In an upgrade, one workload
    /// follows the other. Images that do not run then stop it before the speakers, and gobgpd is
    /// replaced after them: a node where both are replaced at the same time drops its routes.
    async fn apply(&self, variant: Variant, is_upgrade: bool) -> Result<()> {
        let stages = variant.stages(self.namespace).context("the manifests cannot be decoded")?;
        self.apply_all(&stages.first).await?;
        let reader = self.reader();
        let crds = stages.first.iter().filter(|it| text(it, "/kind") != "Namespace");
        let crds: Vec<_> = crds.map(name).collect();
        let read = async || reader.established(&crds).await;
        self.wait("established CustomResourceDefinitions", changes(reader.crds()), read).await?;
        self.apply_all(&stages.then).await?;
        let at_once = if is_upgrade { 1 } else { stages.workloads.len().max(1) };
        for workloads in stages.workloads.chunks(at_once) {
            self.apply_all(workloads).await?;
            for workload in workloads {
                self.wait_for_pods(workload).await?;
            }
        }
        Ok(())
    }

    async fn apply_all(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let (kind, name) = (text(object, "/kind"), name(object));
            apply(self.client, object, true)
                .await
                .with_context(|| format!("cannot apply {kind} {name}"))?;
        }
        Ok(())
    }

    /// Waits for a workload.
    async fn wait_for_pods(&self, workload: &Value) -> Result<()> {
        let (reader, name) = (self.reader(), name(workload));
        let kind = text(workload, "/kind");
        let what = format!("ready pods of {kind} {name}");
        match kind {
            "DaemonSet" => {
                let read = async || reader.daemon_set(name).await;
                self.wait(&what, changes(reader.daemon_sets()), read).await
            }
            _ => {
                let read = async || reader.deployment(name).await;
                self.wait(&what, changes(reader.deployments()), read).await
            }
        }
    }

    /// Waits until all speakers have reported their interfaces, from which the pool follows.
    async fn wait_for_reports(&self) -> Result<()> {
        let reader = self.reader();
        let changes = select(changes(reader.speaker_statuses()), changes(reader.daemon_sets()));
        self.wait("speakers with a SpeakerStatus", changes, async || reader.reports().await).await
    }

    async fn wait(
        &self,
        what: &str,
        changes: impl Stream<Item = ()>,
        read: impl AsyncFn() -> Result<Progress>,
    ) -> Result<()> {
        let namespace = self.namespace;
        let next = format!(
            "see `kubectl -n {namespace} get pods -o wide`, and run this command again, or \
             continue with `kubectl ferrolb init`"
        );
        wait(what, &next, changes, read, |line| eprintln!("{line}")).await
    }

    const fn reader(&self) -> Reader<'_> {
        Reader { client: self.client, namespace: self.namespace }
    }
}
