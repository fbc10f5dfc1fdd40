//! Health: what a speaker makes of endpoints that change all the time, and what a client pays for endpoints that Kubernetes takes for ready
//! although their node is dead. Each in a lab of its own.

mod changes;
mod dead_node;

use super::report::Findings;
use super::{beside_ferrolb, in_lab};
use crate::Options;
use crate::setup::Tools;
use anyhow::{Context, Result};

/// Raises a lab without kube-proxies for the first, for nobody connects and they would only be kept busy; and one with leases for the second.
///
/// # Errors
/// When an address does not move, or a dead node is never found.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    let without_proxies = Options { proxy_mode: None, ..options.clone() };
    let mut findings = in_lab(tools, &without_proxies, changes::run).context("a thousand Services")?;
    let with_leases = Options { leases: true, ..options.clone() };
    findings.extend(beside_ferrolb(tools, &with_leases, dead_node::run).context("a dead node")?);
    Ok(findings)
}
