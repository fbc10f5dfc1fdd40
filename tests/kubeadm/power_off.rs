//! Memory of FerroLB's containers, and a power failure of the owner's machine: another node soon
//! announces the address.

use crate::scenario::{print_measured, run_scenario, step};
use crate::{memory, three_nodes};
use anyhow::ensure;
use ferrolb_lab::bench::power_off;
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::POWER_OFF_GAP;
use std::time::Duration;

/// Time for which the client connects after the failure: long enough for the failover, but too
/// short for Kubernetes to remove the failed node's pod, which only the benchmark measures.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(5);

#[test]
fn clients_lose_less_than_a_second_at_a_machine_failure() {
    run_scenario(&three_nodes("poweroff"), |lab| {
        let server = step("FerroLB is deployed, and a Service has a pod on each machine", || {
            lab.deploy_ferrolb()?;
            power_off::create_service(lab)
        })?;
        step("the memory of FerroLB's containers is within the targets", || memory::check(lab))?;
        let (cut, ()) = step("the owner's machine loses power", || {
            power_off::power_off_owner(lab, server, PROBE_AFTER_FAILURE, |_, _| Ok(()))
        })?;
        let (gap, lost, sent) = (cut.report.longest_gap_ms, cut.report.lost, cut.report.sent);
        print_measured(&format!(
            "{} powered off: longest gap {gap:.0} ms, {lost} of {sent} connections lost",
            cut.machine
        ));
        step("another machine owns the address, and two of three pods reply", || {
            let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR;
            ensure!(gap < limit, "the longest gap is above {limit} ms: {:?}", cut.report);
            // At least half of the connections must succeed: until the failed pod is removed,
            // kube-proxy still sends it a third of them.
            ensure!(cut.report.ok > sent / 2, "too few connections succeeded: {:?}", cut.report);
            let now = lab.owner_of(server.ip())?;
            ensure!(
                now.as_ref().is_some_and(|now| *now != cut.machine),
                "{now:?} owns the address"
            );
            Ok(())
        })
    });
}
