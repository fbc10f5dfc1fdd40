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

/// Starts a lab without kube-proxies for a thousand Services, because no client connects and
/// kube-proxies would only use processor time; and a lab with node leases for one Service.
///
/// # Errors
/// If an address does not move, or Kubernetes never detects the failed node.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let without_proxies = Options { proxy_mode: None, ..options.clone() };
    let mut findings =
        in_lab(tools, &without_proxies, run_thousand_services).context("a thousand Services")?;
    let with_leases = Options { leases: true, ..options.clone() };
    findings.extend(with_ferrolb(tools, &with_leases, run_one_service).context("one Service")?);
    Ok(findings)
}

fn run_thousand_services(lab: &Lab) -> Result<Findings> {
    let mut findings = changes::run(lab)?;
    findings.extend(checked::run(lab).context("health checks of all endpoints")?);
    Ok(findings)
}

fn run_one_service(lab: &Lab) -> Result<Findings> {
    for node in lab.nodes() {
        lab.pod(&pod_name(&node), &node, &[("app", "health")])?;
    }
    let mut findings = moves::run(lab).context("moves of an address away from its owner")?;
    findings.extend(failed_node::run(lab).context("a failed node")?);
    Ok(findings)
}

/// Returns the name of a node's pod.
fn pod_name(node: &str) -> String {
    format!("web{node}")
}
