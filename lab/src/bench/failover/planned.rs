//! Rows of planned changes by an operator: none may cost a connection.

use super::runs::RowResults;
use super::setup::FailoverSetup;
use crate::Signal;
use crate::bench::report::Findings;
use crate::bench::targets;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use anyhow::Result;

/// Stops the owner's speaker, and restarts it after the observation.
pub(super) fn stopped(
    scene: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let all = RowResults::of(runs, || {
        let owner = scene.settle()?;
        let speaker = speaker_name(&owner);
        let seen = scene.watch(|| scene.lab.stop(&speaker, Signal::TERM))?;
        scene.lab.restart(&speaker)?;
        scene.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(seen)
    })?;
    all.conclude(findings, &targets::FAILOVER_STOPPED)
}

/// Restarts all speakers like a rolling update of a DaemonSet: a speaker is stopped when the
/// previous one is ready.
pub(super) fn rolling(
    scene: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let lab = scene.lab;
    let all = RowResults::of(runs, || {
        scene.settle()?;
        scene.watch(|| {
            lab.nodes().iter().try_for_each(|node| {
                let speaker = speaker_name(node);
                lab.stop(&speaker, Signal::TERM)?;
                lab.restart(&speaker)?;
                lab.wait_healthy(&speaker, node, ADMIN_PORT, "/readyz")
            })
        })
    })?;
    all.conclude(findings, &targets::FAILOVER_ROLLING)
}
