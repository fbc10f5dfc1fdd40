//! Stops a lab completely, whichever process started it and however far the start came. First
//! processes by id, then all other processes in its namespaces, containers and machines, then those
//! themselves, then its directories. A second run has no effect.

use crate::cluster::groups;
use crate::cluster::kubeadm::machine;
use crate::state::{self, LabState};
use crate::topology::LabName;
use crate::{netns, process, run};
use anyhow::{Context, Result};

/// Maximum number of searches for processes in the namespaces: the first may miss a process that is
/// just starting.
const SWEEPS_MAX: usize = 5;

/// Stops the lab of this name; returns false if there is none.
///
/// # Errors
/// If a live process owns it, or something cannot be removed.
pub fn down(name: &LabName) -> Result<bool> {
    let state = LabState::claim(name)?;
    let there = state.is_some() || !netns::list(&name.prefix()).is_empty();
    if let Some(state) = state {
        down_owned(&state)?;
    }
    // Without a directory (removed by hand, or a lost `/run`) there may still be namespaces and
    // containers.
    empty(name)?;
    Ok(there)
}

/// Stops a lab that this process owns.
///
/// # Errors
/// If something cannot be removed.
pub fn down_owned(state: &LabState) -> Result<()> {
    process::kill(process::records(state).iter().map(|record| (record.pid, Some(record.start))))?;
    empty(&state.name)?;
    state.remove()
}

/// Stops every lab whose owner was killed.
///
/// # Errors
/// If one of them cannot be removed.
pub fn sweep() -> Result<Vec<LabName>> {
    let mut swept = Vec::new();
    for name in state::labs() {
        // A lab of a live process is left alone.
        let Ok(Some(state)) = LabState::claim(&name) else { continue };
        if state.facts().is_ok_and(|facts| facts.kept) {
            continue;
        }
        down_owned(&state)
            .with_context(|| format!("cannot clean the lab {name} that a killed process left"))?;
        swept.push(name);
    }
    state::remove_unfinished()?;
    Ok(swept)
}

fn empty(name: &LabName) -> Result<()> {
    empty_namespaces(name)?;
    groups::remove_all(name)?;
    machine::remove_all(name)
}

fn empty_namespaces(name: &LabName) -> Result<()> {
    let namespaces = netns::list(&name.prefix());
    for _ in 0..SWEEPS_MAX {
        let alive = netns::pids(&namespaces);
        if alive.is_empty() {
            break;
        }
        process::kill(alive.into_iter().map(|pid| (pid, None)))?;
    }
    run::ip_batch(
        None,
        &namespaces.iter().map(|namespace| format!("netns del {namespace}\n")).collect::<String>(),
    )
}
