//! Runs the command `install`. The progress goes to stderr. Each step can be repeated, so a second
//! run continues after a failure, and upgrades.

use anyhow::{Context as _, Result, anyhow};
use ferrolb_proto::api::{self, CustomResourceKind, GROUP, SpeakerStatusObject};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use super::decision::{self, CONTROLLER_LABELS, installed};
use super::manifests::Variant;
use super::wait::{Progress, is_established, wait};
use crate::apply::apply;
use crate::check::{self, report::Report};
use crate::init;
use crate::init::propose::Request;
use crate::installation::{GOBGPD, SPEAKER};
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
    let has_gobgpd = target.daemon_set(GOBGPD).await?.is_some();
    let deployments = Api::<Deployment>::all(client.clone());
    let deployments = deployments.list(&ListParams::default().labels(CONTROLLER_LABELS)).await;
    let deployments = permitted(deployments)?.map(|list| list.items).unwrap_or_default();
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
    /// Applies the manifests, and waits until all pods are ready. In an upgrade, one workload
    /// follows the other. Images that do not run then stop it before the speakers, and gobgpd is
    /// replaced after them: a node where both are replaced at the same time drops its routes.
    async fn apply(&self, variant: Variant, is_upgrade: bool) -> Result<()> {
        let stages = variant.stages(self.namespace).context("the manifests cannot be decoded")?;
        self.apply_all(&stages.first).await?;
        self.wait("established CustomResourceDefinitions", async || {
            self.established(&stages.first).await
        })
        .await?;
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

    async fn wait(&self, what: &str, read: impl AsyncFn() -> Result<Progress>) -> Result<()> {
        let namespace = self.namespace;
        let next = format!(
            "see `kubectl -n {namespace} get pods -o wide`, and run this command again, or \
             continue with `kubectl ferrolb init`"
        );
        wait(what, &next, read, |line| eprintln!("{line}")).await
    }

    async fn wait_for_pods(&self, workload: &Value) -> Result<()> {
        let (kind, name) = (text(workload, "/kind"), name(workload));
        self.wait(&format!("ready pods of {kind} {name}"), async || {
            let missing = || anyhow!("another client deleted {kind} {name}");
            match kind {
                "DaemonSet" => {
                    let object = self.daemon_set(name).await?.ok_or_else(missing)?;
                    Ok(Progress::from(&object))
                }
                _ => {
                    let api = Api::<Deployment>::namespaced(self.client.clone(), self.namespace);
                    let object = permitted(api.get_opt(name).await)?.flatten();
                    Ok(Progress::from(&object.ok_or_else(missing)?))
                }
            }
        })
        .await
    }

    /// Waits until all speakers have reported their interfaces, from which the pool follows.
    async fn wait_for_reports(&self) -> Result<()> {
        let (client, kind) = (self.client.clone(), CustomResourceKind::SpeakerStatus);
        let resource = api::resource(kind, GROUP);
        let api = Api::<SpeakerStatusObject>::namespaced_with(client, self.namespace, &resource);
        self.wait("speakers with a SpeakerStatus", async || {
            let speakers = self.daemon_set(SPEAKER).await?;
            let list = api.list(&ListParams::default().match_any()).await?;
            let has_interfaces = |it: &&SpeakerStatusObject| {
                it.status.as_ref().is_some_and(|status| !status.interfaces.is_empty())
            };
            Ok(Progress {
                done: list.items.iter().filter(has_interfaces).count(),
                all: speakers.as_ref().map_or(0, |it| Progress::from(it).all),
            })
        })
        .await
    }

    async fn established(&self, objects: &[Value]) -> Result<Progress> {
        let names = objects.iter().filter(|it| text(it, "/kind") != "Namespace");
        let names: Vec<_> = names.map(name).collect();
        let crds = Api::<CustomResourceDefinition>::all(self.client.clone());
        let crds = crds.list(&ListParams::default()).await?;
        let is_ready = |it: &&CustomResourceDefinition| {
            let name = it.metadata.name.as_deref();
            is_established(it) && name.is_some_and(|name| names.contains(&name))
        };
        let done = crds.items.iter().filter(is_ready).count();
        Ok(Progress { done, all: names.len() })
    }

    async fn daemon_set(&self, name: &str) -> Result<Option<DaemonSet>> {
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), self.namespace);
        Ok(permitted(api.get_opt(name).await)?.flatten())
    }
}
