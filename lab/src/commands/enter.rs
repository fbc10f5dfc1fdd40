//! `cargo lab kubectl` and `cargo lab exec`: this process becomes the program, inside the lab.

use anyhow::{Context, Result, bail};
use ferrolb_lab::cluster::kubeadm::machine;
use ferrolb_lab::lab::kubectl_command;
use ferrolb_lab::netns;
use ferrolb_lab::state::{self, LabState};
use ferrolb_lab::topology::{CLIENT, LabName};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Replaces this process with kubectl on the client's host.
pub(crate) fn kubectl(name: Option<LabName>, args: &[String]) -> Result<()> {
    let state = open_lab(name)?;
    netns::enter(&state.name.namespace(CLIENT))?;
    become_program(kubectl_command(&state)?.args(args))
}

/// Replaces this process with a program on a host. On a machine of a kubeadm cluster the program
/// runs inside the machine. Elsewhere PATH contains kubectl, which uses the lab's kubeconfig, and
/// with BGP also gobgp.
pub(crate) fn exec(name: Option<LabName>, host: &str, command: &[String]) -> Result<()> {
    let state = open_lab(name)?;
    let prefix = state.name.prefix();
    if netns::open(&state.name.namespace(host)).is_err() {
        let hosts: Vec<String> = netns::list(&prefix)
            .iter()
            .map(|namespace| namespace[prefix.len()..].to_owned())
            .collect();
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
    become_program(
        Command::new(program).args(args).env("PATH", path).env("KUBECONFIG", state.kubeconfig()),
    )
}

fn become_program(command: &mut Command) -> Result<()> {
    Err(command.exec())
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// Opens the lab with this name, or the only running lab.
fn open_lab(name: Option<LabName>) -> Result<LabState> {
    match (name, state::labs().as_slice()) {
        (Some(name), _) => LabState::open(&name),
        (None, [only]) => LabState::open(only),
        (None, []) => bail!("no lab is running: start one with `cargo lab up`"),
        (None, several) => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!(
                "several labs are running ({}): select one with --name before the subcommand",
                names.join(", ")
            )
        }
    }
}
