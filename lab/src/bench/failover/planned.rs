//! Rows of planned changes by an operator: no connection may be lost.

use super::runs::RowResults;
use super::setup::FailoverSetup;
use crate::Signal;
use crate::bench::report::Findings;
use crate::bench::targets;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use anyhow::Result;

/// Stops the owner's speaker, and restarts it after the observation.
pub(super) fn stopped(
    setup: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let all = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let speaker = speaker_name(&owner);
        let results = setup.watch(|| setup.lab.stop(&speaker, Signal::TERM))?;
        setup.lab.restart(&speaker)?;
        setup.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(results)
    })?;
    all.conclude(findings, &targets::FAILOVER_STOPPED)
}

/// Restarts all speakers like a rolling update of a DaemonSet: a speaker is stopped when the
/// previous one is ready.
pub(super) fn rolling(
    setup: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let lab = setup.lab;
    let all = RowResults::of(runs, || {
        setup.settle()?;
        setup.watch(|| {
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
