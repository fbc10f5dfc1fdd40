//! Repeated power failures of the owner's machine, which starts again after each. The machine has
//! one of the two pods behind the address with policy Cluster.

use crate::client::{PROBE_INTERVAL, PROBE_TIME_MAX};
use crate::scenario::print_measured;
use crate::steps;
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::power_off;
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::bench::targets::{POWER_OFF_CLUSTER_OWNER, POWER_OFF_GAP};
use ferrolb_lab::{Lab, wait};
use std::fs;
use std::time::Duration;

/// Number of power failures.
const FAILURES: usize = 3;
/// Time for which the client connects after a failure: too short for Kubernetes to remove the
/// failed node's pod itself.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(12);
/// Time before each failure: each speaker has probed the kubelet's port of each node, and the
/// controller marks the pods of one node at most once a minute.
const PAUSE: Duration = Duration::from_secs(70);
/// Time of the client's connections that show which pods reply.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// Maximum time until a machine serves again after its start, on a busy computer.
const BACK_MAX: Duration = Duration::from_secs(240);

/// Lets the owner fail several times.
pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    for _ in 0..FAILURES {
        wait::during(PAUSE, || Ok(()))?;
        let machine = fail(lab, servers)?;
        let start = wait::now();
        lab.power_on(&machine)?;
        wait::until("the pods of both workers reply", BACK_MAX, || {
            let report = lab.start_probe(servers.open[0], PROBE_TIME, PROBE_INTERVAL).finish()?;
            ensure!(report.lost == 0 && report.pods.len() == 2, "{report:?}");
            Ok(Some(()))
        })?;
        let after = start.elapsed().as_secs_f64();
        print_measured(&format!("{machine} serves {after:.1} s after its start"));
        steps::check_clean(lab)?;
    }
    Ok(())
}

/// Powers the owner off. Checks the longest time without a page from the address with policy Local,
/// and the time until no connection to the one with policy Cluster is lost. Others wait for the
/// detection time that a busy owner states. Returns the name of the machine.
fn fail(lab: &Lab, servers: &Servers) -> Result<String> {
    let owner = lab.owner_of(servers.local[0].ip())?.context("a node owns the address")?;
    let stated = power_off::stated_detection_ms(lab, &owner)?;
    let probing = lab.start_probe(servers.local[0], PROBE_TIME_MAX, PROBE_INTERVAL);
    let (failure, ()) =
        power_off::power_off(lab, &owner, servers.open[0], PROBE_AFTER_FAILURE, |_, _| Ok(()))?;
    let (local, open, (good, later)) = (probing.stop()?, &failure.report, failure.good_after_ms());
    let load = fs::read_to_string("/proc/loadavg")?;
    print_measured(&format!(
        "{owner} powered off, load {}: local: longest gap {:.0} ms, {} of {} lost; open: {} of {} \
         lost, good again after {good:.0} ms, {later} lost later; stated {stated} ms",
        load.split(' ').next().unwrap_or_default(),
        local.longest_gap_ms,
        local.lost,
        local.sent,
        open.lost,
        open.sent
    ));
    let limit = POWER_OFF_GAP.target.unwrap_or_default() * CHECK_FACTOR + stated;
    ensure!(local.longest_gap_ms < limit, "the longest gap is above {limit} ms: {local:?}");
    let limit = POWER_OFF_CLUSTER_OWNER[1].target.unwrap_or_default() * CHECK_FACTOR + stated;
    ensure!(good < limit, "connections are lost after {limit} ms: {open:?}");
    Ok(owner)
}
