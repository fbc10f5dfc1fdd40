//! Signals to the programs of a machine, as systemd sends them.

use super::machine;
use crate::cluster::groups;
use crate::netns;
use crate::state::LabState;
use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;

/// Name of the process of a kubelet.
pub const KUBELET: &str = "kubelet";

/// Stops all services of a machine like `systemctl poweroff`: its kubelet and its containers
/// receive SIGTERM at the same time, and nothing starts them again.
///
/// # Errors
/// If no kubelet runs there.
pub fn stop(state: &LabState, node: &str) -> Result<()> {
    // The first process would start the kubelet again.
    send(machine::first_process(state, node)?, Signal::STOP)?;
    signal(state, node, KUBELET, Signal::TERM)?;
    groups::pods(&state.name, node).into_iter().try_for_each(|pid| send(pid, Signal::TERM))
}

/// Sends a signal to the program of this name in the network namespace of a node: a daemon, or one
/// in a pod on the network of the node.
///
/// # Errors
/// If no such program runs there.
pub fn signal(state: &LabState, node: &str, program: &str, signal: Signal) -> Result<()> {
    let is_program = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == program)
    };
    let found = netns::pids(&[state.name.namespace(node)]).into_iter().find(is_program);
    send(found.with_context(|| format!("no {program} runs on {node}"))?, signal)
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("0 is no process")?;
    match kill_process(pid, signal) {
        // The process has just ended.
        Err(Errno::SRCH) => Ok(()),
        sent => sent.context("cannot send a signal"),
    }
}
