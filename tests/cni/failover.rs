//! Power failure of the machine that owns an address with policy Local.

use crate::scenario::print_measured;
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::bench::power_off;
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::POWER_OFF_GAP;
use std::time::Duration;

/// Time for which the client connects after the failure.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(4);

/// Powers the owner off, and checks the longest time without a page.
pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR;
    power_off_owner(lab, servers, PROBE_AFTER_FAILURE, limit).map(drop)
}

/// Powers the owner off, and checks that the longest time without a page is below `limit`, in
/// milliseconds, and that other machines own the addresses. An owner that was busy before states a
/// detection time, for which the others wait in addition. The client connects for this time after
/// the failure. Returns the name of the machine.
pub(crate) fn power_off_owner(
    lab: &Lab,
    servers: &Servers,
    probe_after: Duration,
    limit: f64,
) -> Result<String> {
    let server = servers.local[0];
    let owner = lab.owner_of(server.ip())?.context("no machine owns the address")?;
    let stated = power_off::stated_detection_ms(lab, &owner)?;
    let limit = limit + stated;
    let (failure, ()) = power_off::power_off_owner(lab, server, probe_after, |_, _| Ok(()))?;
    let (report, machine) = (&failure.report, failure.machine);
    print_measured(&format!(
        "{machine} powered off: longest gap {:.0} ms, {} of {} connections lost; its detection time \
         because of late hellos: {stated} ms (0: none)",
        report.longest_gap_ms, report.lost, report.sent
    ));
    ensure!(report.longest_gap_ms < limit, "the longest gap is above {limit} ms: {report:?}");
    for server in servers.local {
        let now = lab.owner_of(server.ip())?;
        let has_moved = now.as_ref().is_some_and(|now| *now != machine);
        ensure!(has_moved, "{now:?} owns {server}");
    }
    Ok(machine)
}
