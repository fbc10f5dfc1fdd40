//! The nodes' BGP daemons: a gobgpd in each node's namespace, which its speaker alone speaks to, by a socket in the lab's folder.

use super::apply;
use crate::process::{self, Launch, Record};
use crate::state::State;
use crate::traffic::page::Page;
use crate::{Lab, setup};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where its DaemonSet is.
const MANIFEST: &str = "deploy/overlays/bgp/gobgpd.yaml";
/// The socket in there.
const DEPLOYED_SOCKET: &str = "/run/ferrolb/gobgp.sock";
/// How long its hook and gobgpd itself may take to end (`terminationGracePeriodSeconds` of the pod).
pub const GRACE: Duration = Duration::from_secs(20);
/// Becomes a gobgpd (`$0`) as its container would run it: without any capability. No kubelet of the lab starts one again that came too early: it waits
/// 5 s for a speaker that lives to take away the socket (`$1`) that the one before has left, which one that has just started does after some 2 s.
const DEPLOYED: &str = r#"program=$0 socket=$1; shift; for _ in $(seq 100); do [ -e "$socket" ] || break; sleep 0.05; done
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$program" --log-plain "$@""#;
/// Becomes a gobgpd that is a router, with a file (`$2`).
const ROUTER: &str =
    r#"rm -f "$1"; exec "$0" --log-plain --pprof-disable --metrics-path '' --api-hosts "unix://$1" --config-file "$2""#;

/// Starts the gobgpd of a node, with the flags of its DaemonSet. It knows nothing until it is told by its socket.
///
/// # Errors
/// When it cannot be started, or the manifest is not what it was.
pub fn start(state: &State, gobgp: &Path, node: &str) -> Result<Record> {
    let socket = socket(state, node).display().to_string();
    let container = container()?;
    let args = container["args"].as_array().with_context(|| format!("{MANIFEST}: no args"))?.iter();
    let args = args.filter_map(Value::as_str).map(|arg| arg.replace(DEPLOYED_SOCKET, &socket)).collect::<Vec<_>>();
    let args = std::iter::once(socket).chain(args);
    process::start(state, Launch { node: Some(node.to_owned()), ..launch(gobgp, node, DEPLOYED, args) })
}

/// How to start a gobgpd that is the router on a host.
pub fn router(state: &State, gobgp: &Path, host: &str, config: &Path) -> Launch {
    launch(gobgp, host, ROUTER, [&socket(state, host), config].map(|path| path.display().to_string()))
}

fn launch(gobgp: &Path, host: &str, script: &str, args: impl IntoIterator<Item = String>) -> Launch {
    let program = gobgp.join("gobgpd").display().to_string();
    Launch {
        name: process_name(host),
        host: host.to_owned(),
        node: None,
        program: "/bin/sh".into(),
        args: ["-c".to_owned(), script.to_owned(), program].into_iter().chain(args).collect(),
        env: [].into(),
        yields: false,
    }
}

/// Does what the DaemonSet has a kubelet do on a node before it ends its gobgpd; what was answered.
///
/// # Errors
/// When nobody answers in time, as where the speaker is dead.
pub fn before_stop(lab: &Lab, node: &str, limit: Duration) -> Result<Page> {
    let get = &container()?["lifecycle"]["preStop"]["httpGet"];
    let host = get["host"].as_str().with_context(|| format!("{MANIFEST}: no host to ask before it is stopped"))?;
    let port = get["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("a port")?;
    lab.http_get_within(node, SocketAddr::new(host.parse()?, port), get["path"].as_str().context("a path")?, limit)
}

/// The container of the DaemonSet.
///
/// # Errors
/// When it is not there.
pub fn container() -> Result<Value> {
    let objects = apply::objects(&fs::read_to_string(setup::repository().join(MANIFEST))?)?;
    let container = objects.first().and_then(|set| set.pointer("/spec/template/spec/containers/0")).cloned();
    container.with_context(|| format!("{MANIFEST}: no container"))
}

/// The socket of a host's gobgpd.
pub fn socket(state: &State, host: &str) -> PathBuf {
    state.file(&format!("gobgpd-{host}.sock"))
}

/// What the gobgpd of a host is called in the lab.
pub fn process_name(host: &str) -> String {
    format!("gobgpd-{host}")
}
