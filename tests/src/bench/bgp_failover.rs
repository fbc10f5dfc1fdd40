//! What a client behind a router sees when the node that it is sent to by BGP dies, drains, or has its programs started anew; and when the router
//! uses that node no more. A row for each way in which the router can know, and each kind of router.

mod dies;
mod planned;
mod scene;

use super::in_lab;
use super::report::Findings;
use crate::Options;
use crate::setup::Tools;
use anyhow::Result;
use scene::Scene;
use std::time::Duration;

/// A lab comes up and goes down, and a router is started for each row.
const ROWS_USUAL: Duration = Duration::from_secs(120);
/// One run of all rows.
const RUN_USUAL: Duration = Duration::from_secs(240);

/// What it usually takes.
pub fn usual(runs: usize) -> Duration {
    ROWS_USUAL + RUN_USUAL * u32::try_from(runs).unwrap_or(u32::MAX)
}

/// # Errors
/// When sessions do not come up, or a router never uses the nodes that are left.
pub(super) fn run(tools: &Tools, options: &Options, runs: usize) -> Result<Findings> {
    in_lab(tools, &Options { bgp: true, ..options.clone() }, |lab| {
        let (scene, mut findings) = (Scene::raise(lab)?, Findings::default());
        dies::run(&scene, runs, &mut findings)?;
        planned::run(&scene, runs, &mut findings)?;
        Ok(findings)
    })
}
