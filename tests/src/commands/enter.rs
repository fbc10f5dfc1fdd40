//! `cargo lab kubectl` and `cargo lab exec`: this process becomes the program, inside the lab.

use anyhow::{Context, Result, bail};
use ferrolb_tests::cluster::kubeadm::machine;
use ferrolb_tests::lab::kubectl_command;
use ferrolb_tests::netns;
use ferrolb_tests::state::{self, State};
use ferrolb_tests::topology::{CLIENT, LabName};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Becomes kubectl on the client's host.
pub(crate) fn kubectl(name: Option<LabName>, args: &[String]) -> Result<()> {
    let state = pick(name)?;
    netns::enter(&state.name.namespace(CLIENT))?;
    become_program(kubectl_command(&state)?.args(args))
}

/// Becomes a program on a host, of a machine's own where it is one; elsewhere kubectl is in its PATH and knows the lab, and gobgp is where there is BGP.
pub(crate) fn exec(name: Option<LabName>, host: &str, command: &[String]) -> Result<()> {
    let state = pick(name)?;
    let prefix = state.name.prefix();
    if netns::open(&state.name.namespace(host)).is_err() {
        let hosts: Vec<String> =
            netns::list(&prefix).iter().map(|namespace| namespace[prefix.len()..].to_owned()).collect();
        bail!("the lab {} has no host {host}; it has {}", state.name, hosts.join(", "));
    }
    let facts = state.facts()?;
    if facts.is_machine(host) {
        return become_program(machine::command(&state, host)?.args(command));
    }
    netns::enter(&state.name.namespace(host))?;
    let (program, args) = command.split_first().context("no command was given")?;
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::iter::once(facts.kubernetes).chain(facts.gobgp) {
        path.push(":");
        path.push(folder);
    }
    become_program(Command::new(program).args(args).env("PATH", path).env("KUBECONFIG", state.kubeconfig()))
}

fn become_program(command: &mut Command) -> Result<()> {
    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// The lab of this name, or the only one there is.
fn pick(name: Option<LabName>) -> Result<State> {
    match (name, state::labs().as_slice()) {
        (Some(name), _) => State::open(&name),
        (None, [only]) => State::open(only),
        (None, []) => bail!("no lab is running: `cargo lab up` raises one"),
        (None, several) => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!("several labs are running ({}): say which, with --name before this word", names.join(", "))
        }
    }
}
