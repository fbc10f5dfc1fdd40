//! What FerroLB holds in memory by its kubelets' books, and the machine that owns an address loses its power: another has it soon.

use crate::stage::{measured, play, step};
use crate::{memory, three_nodes};
use anyhow::ensure;
use ferrolb_tests::bench::budgets::POWER_OFF_GAP;
use ferrolb_tests::bench::power_off;
use ferrolb_tests::bench::report::CHECK_FACTOR;
use std::time::Duration;

/// How long the client connects after that: for the move, not for what Kubernetes does later, which the benchmark shows.
const AFTER: Duration = Duration::from_secs(5);

#[test]
fn a_machine_s_death_costs_a_client_less_than_a_second() {
    play(&three_nodes("poweroff"), |lab| {
        let server = step("FerroLB is deployed, and serves from a pod on each machine", || {
            lab.deploy_ferrolb()?;
            power_off::serve(lab)
        })?;
        step("its containers hold what they may", || memory::check(lab))?;
        let (cut, ()) = step("the plug of the owner is pulled", || power_off::cut(lab, server, AFTER, |_, _| Ok(())))?;
        let (gap, lost, sent) = (cut.report.longest_gap_ms, cut.report.lost, cut.report.sent);
        measured(&format!("{} powered off: longest gap {gap:.0} ms, {lost} of {sent} connections lost", cut.machine));
        step("another machine has the address, and two of three pods answer", || {
            let limit = POWER_OFF_GAP.budget.unwrap_or_default() * CHECK_FACTOR;
            ensure!(gap < limit, "the gap is above {limit} ms: {:?}", cut.report);
            // A good half at the least: kube-proxy chooses one of three by chance.
            ensure!(cut.report.ok > sent / 2, "hardly a page: {:?}", cut.report);
            let now = lab.who_answers(server.ip())?;
            ensure!(now.as_ref().is_some_and(|now| *now != cut.machine), "{now:?} answers");
            Ok(())
        })
    });
}
