//! BGP daemons of the nodes: one gobgpd in each node's namespace. Only the node's speaker uses the
//! gobgpd, over a Unix socket in the lab's directory.

use super::apply;
use crate::process::{self, Launch, ProcessRecord};
use crate::state::LabState;
use crate::traffic::page::Page;
use crate::{Lab, setup};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Manifest of gobgpd's DaemonSet.
const MANIFEST: &str = "deploy/overlays/bgp/gobgpd.yaml";
/// Path of the socket in the manifest.
const DEPLOYED_SOCKET: &str = "/run/ferrolb/gobgp.sock";
/// Time limit of the pre-stop hook and of gobgpd's own shutdown (`terminationGracePeriodSeconds` of
/// the pod).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Starts gobgpd (`$0`) without any capability, like its container.
///
/// The lab has no kubelet that restarts a gobgpd that started too early. So the script waits up to
/// 5 s until the node's speaker removes the socket (`$1`) of the previous gobgpd; a speaker that
/// has just started does that after about 2 s.
const NODE_SCRIPT: &str = r#"program=$0 socket=$1; shift; for _ in $(seq 100); do [ -e "$socket" ] || break; sleep 0.05; done
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$program" --log-plain "$@""#;
/// Starts gobgpd as a router, with a configuration file (`$2`).
const ROUTER_SCRIPT: &str = r#"rm -f "$1"; exec "$0" --log-plain --pprof-disable --metrics-path '' --api-hosts "unix://$1" --config-file "$2""#;

/// Starts the gobgpd of a node with the flags of its DaemonSet. The gobgpd has no configuration
/// until the speaker sends one over the socket.
///
/// # Errors
/// If gobgpd cannot be started, or the manifest has an unexpected form.
pub fn start(state: &LabState, gobgp: &Path, node: &str) -> Result<ProcessRecord> {
    let socket = socket(state, node).display().to_string();
    let container = container()?;
    let args =
        container["args"].as_array().with_context(|| format!("{MANIFEST} has no args"))?.iter();
    let args = args
        .filter_map(Value::as_str)
        .map(|arg| arg.replace(DEPLOYED_SOCKET, &socket))
        .collect::<Vec<_>>();
    let args = std::iter::once(socket).chain(args);
    process::start(
        state,
        Launch { node: Some(node.to_owned()), ..launch(gobgp, node, NODE_SCRIPT, args) },
    )
}

/// Returns the launch parameters of a gobgpd that is the router on a host.
pub fn router(state: &LabState, gobgp: &Path, host: &str, config: &Path) -> Launch {
    launch(
        gobgp,
        host,
        ROUTER_SCRIPT,
        [&socket(state, host), config].map(|path| path.display().to_string()),
    )
}

fn launch(
    gobgp: &Path,
    host: &str,
    script: &str,
    args: impl IntoIterator<Item = String>,
) -> Launch {
    let program = gobgp.join("gobgpd").display().to_string();
    Launch {
        name: process_name(host),
        host: host.to_owned(),
        node: None,
        program: "/bin/sh".into(),
        args: ["-c".to_owned(), script.to_owned(), program].into_iter().chain(args).collect(),
        env: [].into(),
        low_priority: false,
    }
}

/// Calls the pre-stop hook of the DaemonSet on a node, like a kubelet does before it stops gobgpd,
/// and returns the response.
///
/// # Errors
/// If there is no response in time, for example because the speaker does not run.
pub fn call_pre_stop_hook(lab: &Lab, node: &str, limit: Duration) -> Result<Page> {
    let hook = &container()?["lifecycle"]["preStop"]["httpGet"];
    let host = hook["host"]
        .as_str()
        .with_context(|| format!("the preStop hook in {MANIFEST} has no host"))?;
    let port = hook["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .context("the preStop hook has no port")?;
    lab.http_get_within(
        node,
        SocketAddr::new(host.parse()?, port),
        hook["path"].as_str().context("the preStop hook has no path")?,
        limit,
    )
}

/// Returns the container of the DaemonSet.
///
/// # Errors
/// If the manifest has no container.
pub fn container() -> Result<Value> {
    let objects = apply::objects(&fs::read_to_string(setup::repository().join(MANIFEST))?)?;
    let container =
        objects.first().and_then(|set| set.pointer("/spec/template/spec/containers/0")).cloned();
    container.with_context(|| format!("{MANIFEST} has no container"))
}

/// Returns the path of the socket of a host's gobgpd.
pub fn socket(state: &LabState, host: &str) -> PathBuf {
    state.file(&format!("gobgpd-{host}.sock"))
}

/// Returns the process name of a host's gobgpd in the lab.
pub fn process_name(host: &str) -> String {
    format!("gobgpd-{host}")
}
