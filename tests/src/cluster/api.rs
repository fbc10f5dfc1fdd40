//! The way to the lab's API server: it answers only inside the lab, so every conversation runs on a thread inside the client's namespace.

use crate::state::State;
use crate::topology::CLIENT;
use crate::{netns, wait};
use anyhow::{Context, Result};
use kube::api::{GetParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// How long the API server may take from its start to its first answer, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// Runs `work` with a client of its own, as whom the kubeconfig says; what it borrows it may go on using.
///
/// # Errors
/// As `work`, or when the lab is not there.
pub fn with_client<T: Send, F: Future<Output = Result<T>>>(
    state: &State,
    kubeconfig: &Path,
    work: impl FnOnce(Client) -> F + Send,
) -> Result<T> {
    netns::within(&state.name.namespace(CLIENT), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { work(client(kubeconfig).await?).await })
    })?
}

/// A client for the namespace that the calling thread is in.
///
/// # Errors
/// When the kubeconfig cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let settings =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(settings, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server answers and says that it is ready.
///
/// # Errors
/// When it does not within a minute, with its reason.
pub async fn wait_ready(client: &Client) -> Result<()> {
    wait::until_async("the API server's /readyz", READY_MAX, async || {
        let request = Request::new("").get("readyz", &GetParams::default())?;
        Ok((client.request_text(request).await? == "ok").then_some(()))
    })
    .await
}
