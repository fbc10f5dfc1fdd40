//! Memory of FerroLB's containers by their kubelets' numbers, and a power failure of the owner's
//! machine: another node soon announces its address.

use crate::scenario::{print_measured, run_scenario, step};
use crate::{memory, three_nodes};
use anyhow::ensure;
use ferrolb_lab::bench::power_off;
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::POWER_OFF_GAP;
use std::time::Duration;

/// Time of connections after the failure: long enough for the move, but not for Kubernetes' own
/// reaction, which the benchmark shows.
const AFTER: Duration = Duration::from_secs(5);

#[test]
fn a_machine_failure_costs_a_client_less_than_a_second() {
    run_scenario(&three_nodes("poweroff"), |lab| {
        let server = step("FerroLB is deployed, and serves from a pod on each machine", || {
            lab.deploy_ferrolb()?;
            power_off::serve(lab)
        })?;
        step("its containers hold what they may", || memory::check(lab))?;
        let (cut, ()) = step("the plug of the owner is pulled", || {
            power_off::cut(lab, server, AFTER, |_, _| Ok(()))
        })?;
        let (gap, lost, sent) = (cut.report.longest_gap_ms, cut.report.lost, cut.report.sent);
        print_measured(&format!(
            "{} powered off: longest gap {gap:.0} ms, {lost} of {sent} connections lost",
            cut.machine
        ));
        step("another machine has the address, and two of three pods answer", || {
            let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR;
            ensure!(gap < limit, "the gap is above {limit} ms: {:?}", cut.report);
            // At least half of the connections must succeed: until the failed pod is removed,
            // kube-proxy still sends it a third of them.
            ensure!(cut.report.ok > sent / 2, "too few pages: {:?}", cut.report);
            let now = lab.owner_of(server.ip())?;
            ensure!(
                now.as_ref().is_some_and(|now| *now != cut.machine),
                "{now:?} owns the address"
            );
            Ok(())
        })
    });
}
