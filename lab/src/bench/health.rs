//! Health: cost of changing endpoints and of health checks to a speaker, and moves of an address
//! away from an owner that is no candidate any more. The benchmark uses three labs.
//!
//! The processor time of a speaker is that of the busiest of three, all threads and kernel part
//! included.

mod changes;
mod checked;
mod moves;

use super::report::Findings;
use super::targets::{CHANGES_1000, CHANGES_10000};
use super::{in_lab, with_ferrolb};
use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};

/// Runs this benchmark in three labs: two labs without kube-proxies for a thousand and for ten
/// thousand Services, to which no client connects, and a lab with kube-proxies for one Service.
///
/// # Errors
/// If an address does not move.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let without_proxies = Options { proxy_mode: None, ..options.clone() };
    let mut findings = in_lab(tools, &without_proxies, run_thousand_services)
        .context("cannot measure a thousand Services")?;
    findings.extend(
        in_lab(tools, &without_proxies, |lab| changes::run(lab, 10_000, &CHANGES_10000))
            .context("cannot measure ten thousand Services")?,
    );
    findings.extend(
        with_ferrolb(tools, options, run_one_service).context("cannot measure one Service")?,
    );
    Ok(findings)
}

fn run_thousand_services(lab: &Lab) -> Result<Findings> {
    let mut findings = changes::run(lab, changes::CHANGED, &CHANGES_1000)?;
    findings.extend(checked::run(lab).context("cannot measure health checks of all endpoints")?);
    Ok(findings)
}

fn run_one_service(lab: &Lab) -> Result<Findings> {
    for node in lab.nodes() {
        lab.pod(&pod_name(&node), &node, &[("app", "health")])?;
    }
    moves::run(lab).context("cannot measure the moves of an address")
}

/// Returns the name of a node's pod.
fn pod_name(node: &str) -> String {
    format!("web{node}")
}
