//! Takes a lab down to nothing, whoever raised it and however far it came: processes by id, then whatever still lives in its
//! namespaces, containers and machines, then these, then its folders. Done twice it does no harm.

use crate::cluster::groups;
use crate::cluster::kubeadm::machine;
use crate::state::{self, State};
use crate::topology::LabName;
use crate::{netns, process, run};
use anyhow::{Context, Result};

/// How often the namespaces are searched for processes: one that is just being started may slip through the first time.
const SWEEPS_MAX: usize = 5;

/// Takes down the lab of this name; false when there was none.
///
/// # Errors
/// When a living process is at work on it, or something cannot be removed.
pub fn down(name: &LabName) -> Result<bool> {
    let state = State::claim(name)?;
    let there = state.is_some() || !netns::list(&name.prefix()).is_empty();
    if let Some(state) = state {
        down_owned(&state)?;
    }
    // Without a folder (removed by hand, or a crash of the machine's `/run`) there may still be namespaces and containers.
    empty(name)?;
    Ok(there)
}

/// Takes down a lab that this process owns.
///
/// # Errors
/// When something cannot be removed.
pub fn down_owned(state: &State) -> Result<()> {
    process::kill(process::records(state).iter().map(|record| (record.pid, Some(record.start))))?;
    empty(&state.name)?;
    state.remove()
}

/// Takes down every lab whose owner was killed before it was done.
///
/// # Errors
/// When one of them cannot be removed.
pub fn sweep() -> Result<Vec<LabName>> {
    let mut swept = Vec::new();
    for name in state::labs() {
        // One that is claimed by a living process is no concern of ours.
        let Ok(Some(state)) = State::claim(&name) else { continue };
        if state.facts().is_ok_and(|facts| facts.kept) {
            continue;
        }
        down_owned(&state).with_context(|| format!("cannot clean the lab {name} that a killed process left"))?;
        swept.push(name);
    }
    state::remove_unfinished()?;
    Ok(swept)
}

fn empty(name: &LabName) -> Result<()> {
    empty_namespaces(name)?;
    groups::sweep(name)?;
    machine::sweep(name)
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
    run::ip_batch(None, &namespaces.iter().map(|namespace| format!("netns del {namespace}\n")).collect::<String>())
}
