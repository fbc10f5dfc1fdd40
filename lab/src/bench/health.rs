//! Health: cost of changing endpoints and of health checks to a speaker; moves of an address away
//! from an owner that is no candidate any more; and cost to a client of endpoints that Kubernetes
//! reports as ready although their node has failed. Two labs.

mod changes;
mod checked;
mod failed_node;
mod moves;

use super::report::Findings;
use super::{in_lab, with_ferrolb};
use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};

/// Starts a lab without kube-proxies for the first part, because no client connects and they would
/// only use processor time; and a lab with node leases for the second part.
///
/// # Errors
/// If an address does not move, or Kubernetes never detects the failed node.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let without_proxies = Options { proxy_mode: None, ..options.clone() };
    let mut findings = in_lab(tools, &without_proxies, thousand).context("a thousand Services")?;
    let with_leases = Options { leases: true, ..options.clone() };
    findings.extend(with_ferrolb(tools, &with_leases, one).context("one Service")?);
    Ok(findings)
}

fn thousand(lab: &Lab) -> Result<Findings> {
    let mut findings = changes::run(lab)?;
    findings.extend(checked::run(lab).context("all are checked")?);
    Ok(findings)
}

fn one(lab: &Lab) -> Result<Findings> {
    for node in lab.nodes() {
        lab.pod(&pod(&node), &node, &[("app", "health")])?;
    }
    let mut findings = moves::run(lab).context("an address that leaves its owner")?;
    findings.extend(failed_node::run(lab).context("a failed node")?);
    Ok(findings)
}

/// Returns the name of a node's pod.
fn pod(node: &str) -> String {
    format!("web{node}")
}
