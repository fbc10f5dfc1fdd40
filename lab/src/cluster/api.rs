//! Access to the lab's API server. It is reachable only inside the lab, so each client runs on a
//! thread in the client's namespace.

use crate::process::ProcessRecord;
use crate::state::LabState;
use crate::topology::CLIENT;
use crate::{netns, wait};
use anyhow::{Context, Result, ensure};
use kube::api::{GetParams, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// Maximum time from the API server's start to its first reply, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// Runs `work` with a new client that has the identity of the kubeconfig. `work` may borrow from
/// the caller.
///
/// # Errors
/// If `work` fails, or the lab does not exist.
pub fn with_client<T: Send, F: Future<Output = Result<T>>>(
    state: &LabState,
    kubeconfig: &Path,
    work: impl FnOnce(Client) -> F + Send,
) -> Result<T> {
    netns::within(&state.name.namespace(CLIENT), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { work(client(kubeconfig).await?).await })
    })?
}

/// Returns a client for the namespace of the calling thread.
///
/// # Errors
/// If the kubeconfig cannot be read.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let settings = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(settings, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server, whose process is `server`, reports that it is ready.
///
/// # Errors
/// If the API server is not ready within a minute, with its reason, or has ended.
pub async fn wait_ready(client: &Client, server: &ProcessRecord) -> Result<()> {
    let is_ready = wait::until_async("the API server's /readyz", READY_MAX, async || {
        if !server.is_alive() {
            return Ok(Some(false));
        }
        let request = Request::new("").get("readyz", &GetParams::default())?;
        Ok((client.request_text(request).await? == "ok").then_some(true))
    })
    .await?;
    ensure!(is_ready, "the API server has ended");
    Ok(())
}
