//! Stops a lab completely, even if another process started the lab, or if only a part of the lab
//! has started. Ends first the recorded processes, then all other processes in the namespaces,
//! containers and machines of the lab. Then removes the namespaces, containers and machines, and at
//! last the directories. A second run has no effect.

use crate::cluster::groups;
use crate::cluster::kubeadm::machine;
use crate::state::{self, LabState};
use crate::topology::LabName;
use crate::{netns, process, run};
use anyhow::Result;

/// Maximum number of searches for processes in the namespaces: one search may miss a process that
/// is just starting.
const SEARCHES_MAX: usize = 5;

/// Stops the lab of this name; returns false if there is none.
///
/// # Errors
/// If a live process owns the lab, or a part of the lab cannot be removed.
pub fn down(name: &LabName) -> Result<bool> {
    let state = LabState::claim(name)?;
    let existed = state.is_some() || !netns::list(&name.prefix()).is_empty();
    if let Some(state) = state {
        down_owned(&state)?;
    }
    // Without a directory (removed by hand, or a lost `/run`) there may still be namespaces and
    // containers.
    remove_remains(name)?;
    Ok(existed)
}

/// Stops a lab that this process owns. A part that cannot be removed keeps no other part: only the
/// directory stays, so that the next run removes the lab.
///
/// # Errors
/// If a part of the lab cannot be removed.
pub fn down_owned(state: &LabState) -> Result<()> {
    let records = process::records(state);
    let killed = process::kill(records.iter().map(|record| (record.pid, Some(record.start))));
    killed.and(remove_remains(&state.name))?;
    state.remove()
}

/// Stops every lab whose owner was killed. One that cannot be removed is reported, and stops no
/// other lab from its start.
///
/// # Errors
/// If a directory cannot be read or removed.
pub fn sweep() -> Result<Vec<LabName>> {
    let mut stopped = Vec::new();
    for name in state::labs() {
        // A lab of a live process is left alone.
        let Ok(Some(state)) = LabState::claim(&name) else { continue };
        if state.facts().is_ok_and(|facts| facts.kept) {
            continue;
        }
        match down_owned(&state) {
            Ok(()) => stopped.push(name),
            Err(error) => {
                eprintln!("cannot clean the lab {name} that a killed process left: {error:#}");
            }
        }
    }
    state::remove_unfinished()?;
    Ok(stopped)
}

fn remove_remains(name: &LabName) -> Result<()> {
    let parts = [remove_namespaces(name), groups::remove_all(name), machine::remove_all(name)];
    parts.into_iter().collect()
}

fn remove_namespaces(name: &LabName) -> Result<()> {
    let namespaces = netns::list(&name.prefix());
    let mut ended = Ok(());
    for _ in 0..SEARCHES_MAX {
        let pids = netns::pids(&namespaces);
        if pids.is_empty() {
            break;
        }
        ended = process::kill(pids.into_iter().map(|pid| (pid, None)));
    }
    let removals = namespaces.iter().map(|namespace| format!("netns del {namespace}\n"));
    ended.and(run::ip_batch_to_its_end(&removals.collect::<String>()))
}
