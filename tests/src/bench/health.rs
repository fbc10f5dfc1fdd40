//! Health: what a speaker makes of endpoints that change all the time, and of those that it asks; how an address leaves an owner that should not
//! have it; and what a client pays for endpoints that Kubernetes takes for ready although their node is dead. Two labs.

mod changes;
mod checked;
mod dead_node;
mod leaves;

use super::report::Findings;
use super::{beside_ferrolb, in_lab};
use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};

/// Raises a lab without kube-proxies for the first, for nobody connects and they would only be kept busy; and one with leases for the second.
///
/// # Errors
/// When an address does not move, or a dead node is never found.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let without_proxies = Options { proxy_mode: None, ..options.clone() };
    let mut findings = in_lab(tools, &without_proxies, thousand).context("a thousand Services")?;
    let with_leases = Options { leases: true, ..options.clone() };
    findings.extend(beside_ferrolb(tools, &with_leases, one).context("one Service")?);
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
    let mut findings = leaves::run(lab).context("an owner that another replaces")?;
    findings.extend(dead_node::run(lab).context("a dead node")?);
    Ok(findings)
}

/// The pod of a node.
fn pod(node: &str) -> String {
    format!("web{node}")
}
