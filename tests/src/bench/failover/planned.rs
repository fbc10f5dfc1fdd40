//! The rows of what an operator does: nothing of it may cost a connection.

use super::runs::Runs;
use super::scene::Scene;
use crate::Signal;
use crate::bench::budgets;
use crate::bench::report::Findings;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use anyhow::Result;

/// The owner's speaker is told to stop, and started again when it is over.
pub(super) fn stopped(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    let all = Runs::of(runs, || {
        let owner = scene.rest()?;
        let speaker = speaker_name(&owner);
        let seen = scene.watch(|| scene.lab.stop(&speaker, Signal::TERM))?;
        scene.lab.restart(&speaker)?;
        scene.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(seen)
    })?;
    all.conclude(findings, &budgets::FAILOVER_STOPPED)
}

/// All speakers are restarted as a DaemonSet's update does it: the next is told to stop when the one before is ready.
pub(super) fn rolling(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    let lab = scene.lab;
    let all = Runs::of(runs, || {
        scene.rest()?;
        scene.watch(|| {
            lab.nodes().iter().try_for_each(|node| {
                let speaker = speaker_name(node);
                lab.stop(&speaker, Signal::TERM)?;
                lab.restart(&speaker)?;
                lab.wait_healthy(&speaker, node, ADMIN_PORT, "/readyz")
            })
        })
    })?;
    all.conclude(findings, &budgets::FAILOVER_ROLLING)
}
