//! The nodes' BGP daemons: a gobgpd in each node's namespace, which its speaker alone speaks to, by a socket in the lab's folder.

use crate::process::{self, Launch, Record};
use crate::state::State;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Starts the gobgpd of a node. It knows nothing until it is told by its socket.
///
/// # Errors
/// When it cannot be started.
pub fn start(state: &State, gobgp: &Path, node: &str) -> Result<Record> {
    let launch = Launch { node: Some(node.to_owned()), ..launch(state, gobgp, node, "") };
    process::start(state, launch)
}

/// How to start a gobgpd on a host; `flags` for the shell are added to those of every one.
pub fn launch(state: &State, gobgp: &Path, host: &str, flags: &str) -> Launch {
    // One that was killed leaves its socket behind, and the next does not start on it.
    let script = format!(
        "rm -f \"$1\"; exec \"$0\" --log-plain --pprof-disable --metrics-path '' --api-hosts \"unix://$1\" {flags}"
    );
    let args = [&script, &gobgp.join("gobgpd").display().to_string(), &socket(state, host).display().to_string()];
    Launch {
        name: process_name(host),
        host: host.to_owned(),
        node: None,
        program: "/bin/sh".into(),
        args: std::iter::once("-c").chain(args.iter().map(|arg| arg.as_str())).map(str::to_owned).collect(),
        env: [].into(),
    }
}

/// The socket of a host's gobgpd.
pub fn socket(state: &State, host: &str) -> PathBuf {
    state.file(&format!("gobgpd-{host}.sock"))
}

/// What the gobgpd of a host is called in the lab.
pub fn process_name(host: &str) -> String {
    format!("gobgpd-{host}")
}
