//! BGP failover: outage of a client behind a router when the node that its connections use fails or
//! drains, or its components restart; and the time until the router stops using that node. The
//! results have one row per failure detection method and kind of router.
//!
//! # Method
//!
//! - Three nodes each have a gobgpd and a pod of one Service with policy Local. A router has a
//!   session to each node. IPv4 only.
//! - A client on the other side of the router opens a new connection every 10 ms. The kernel of the
//!   router selects the node by addresses alone, so it sends this client to one node, and each row
//!   disturbs that node.
//! - Before each run, the router has used all three nodes for 5 s, and BFD, if enabled, is up
//!   according to the speakers.
//! - The kernel's routes of the router are checked every 20 ms. GoBGP does not write to the kernel,
//!   so its paths are checked, and it has no row with a client.

mod node_failure;
mod planned;
mod setup;

use super::in_lab;
use super::report::Findings;
use crate::Options;
use crate::setup::Tools;
use anyhow::Result;
use setup::BgpFailoverSetup;
use std::time::Duration;

/// Usual time to start and stop a lab, and to start a router for each row.
const SETUP_USUAL_TIME: Duration = Duration::from_secs(120);
/// Usual time for one run of all rows.
const RUN_USUAL_TIME: Duration = Duration::from_secs(240);

/// Returns the usual duration of the BGP failover benchmark with `runs` runs per row.
pub fn usual_duration(runs: usize) -> Duration {
    SETUP_USUAL_TIME + RUN_USUAL_TIME * u32::try_from(runs).unwrap_or(u32::MAX)
}

/// Measures all rows.
///
/// # Errors
/// If a session is not established, or a router never uses the remaining nodes.
pub(super) fn run(tools: &Tools, options: &Options, runs: usize) -> Result<Findings> {
    in_lab(tools, &Options { bgp: true, ..options.clone() }, |lab| {
        let (setup, mut findings) = (BgpFailoverSetup::start(lab)?, Findings::default());
        node_failure::run(&setup, runs, &mut findings)?;
        planned::run(&setup, runs, &mut findings)?;
        Ok(findings)
    })
}
