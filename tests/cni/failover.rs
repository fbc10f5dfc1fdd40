//! Power failure of the machine that owns an address with policy Local.

use crate::scenario::print_measured;
use crate::workload::Servers;
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::bench::power_off;
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::POWER_OFF_GAP;
use std::time::Duration;

/// Time for which the client connects after the failure.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(4);

/// Powers the owner off, and checks the longest time without a page.
pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    let server = servers.local[0];
    let (failure, ()) =
        power_off::power_off_owner(lab, server, PROBE_AFTER_FAILURE, |_, _| Ok(()))?;
    let report = &failure.report;
    print_measured(&format!(
        "{} powered off: longest gap {:.0} ms, {} of {} connections lost",
        failure.machine, report.longest_gap_ms, report.lost, report.sent
    ));
    let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR;
    ensure!(report.longest_gap_ms < limit, "the longest gap is above {limit} ms: {report:?}");
    for server in servers.local {
        let now = lab.owner_of(server.ip())?;
        let has_moved = now.as_ref().is_some_and(|now| *now != failure.machine);
        ensure!(has_moved, "{now:?} owns {server}");
    }
    Ok(())
}
