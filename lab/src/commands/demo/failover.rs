//! Failure of the node that owns the Service's address, and the results for a client.

use super::scenes::{self, ServedPage};
use anyhow::{Result, bail};
use ferrolb_lab::{Lab, ProbeReport, wait};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

const HTTP_PORT: u16 = 80;
/// Length and interval of the client's probe during a node failure. [`PROBE_BEFORE`] is the time
/// from the start of the probe to the failure.
const PROBE_LENGTH: Duration = Duration::from_secs(4);
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_BEFORE: Duration = Duration::from_secs(1);

/// Explanation of the connections that failed although another node owns the address.
pub(crate) const POD_OF_A_FAILED_NODE: &str = "
The other connections went to the failed node's pod, until FerroLB marked it as not Ready. Without
that, every third connection would fail for about 50 s, until Kubernetes marks the node NotReady.
";

/// The client's results of a node failure.
pub(crate) struct FailoverResult {
    failed_node: String,
    after: ServedPage,
    report: ProbeReport,
}

impl fmt::Display for FailoverResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, after) = (&self.failed_node, &self.after);
        let ProbeReport { sent, ok, longest_gap_ms: gap, .. } = &self.report;
        writeln!(
            f,
            "\n{failed} has failed: its switch port is down and all its processes are killed."
        )?;
        writeln!(f, "{} owns {} now.", after.owner, after.address)?;
        writeln!(
            f,
            "The client opened a connection every 10 ms: {ok} of {sent} received the page."
        )?;
        writeln!(f, "Longest time without a page: {gap:.0} ms.")
    }
}

/// Powers the owner off while the client connects, and finds the new owner.
pub(crate) fn power_off(lab: &Lab, served: &ServedPage) -> Result<FailoverResult> {
    let probing =
        lab.start_probe(SocketAddr::new(served.address, HTTP_PORT), PROBE_LENGTH, PROBE_INTERVAL);
    wait::during(PROBE_BEFORE, || Ok(()))?;
    lab.power_off(&served.owner)?;
    let report = probing.finish()?;
    let after = scenes::fetch(lab)?;
    if after.owner == served.owner {
        bail!("{} still replies, although it is off", served.owner);
    }
    Ok(FailoverResult { failed_node: served.owner.clone(), after, report })
}
