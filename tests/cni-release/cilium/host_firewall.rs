//! Cilium's host firewall, which drops the speakers' hellos: addresses are announced, and a
//! failover takes longer.

use super::{clean, configure, replacement};
use crate::client::PROBE_INTERVAL;
use crate::failover;
use crate::scenario::{print_measured, step};
use crate::workload::Servers;
use anyhow::{Result, ensure};
use ferrolb_lab::bench::report::CHECK_FACTOR;
use ferrolb_lab::{Lab, wait};
use std::time::Duration;

const ON: &str = "hostFirewall.enabled=true";
/// Finding about hellos that do not arrive.
const FILTERED: &str = "FLB042";
const REPORTED_MAX: Duration = Duration::from_secs(60);
/// Time for which the client connects without an event.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// Time for which the client connects after the power failure.
const PROBE_AFTER_FAILURE: Duration = Duration::from_secs(8);
/// Longest failover if hellos are filtered, as the pages state it.
const FAILOVER_MS: f64 = 1_300.0;
/// Longest time until a machine that is on again is Ready.
const READY_MAX: &str = "--timeout=180s";

/// Turns the host firewall on, powers the owner of an address off and on, and turns it off.
pub(super) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    step("the host firewall of Cilium is named", || {
        configure(lab, &[replacement::VALUE, ON])?;
        let start = wait::now();
        wait::until("the host firewall is reported", REPORTED_MAX, || {
            let found = lab.kubectl_ferrolb(&["check"])?;
            let is_named = found.contains(FILTERED) && found.contains("hostFirewall.enabled");
            ensure!(is_named, "{found}");
            Ok(Some(()))
        })?;
        let after = start.elapsed().as_secs_f64();
        print_measured(&format!("host firewall reported after {after:.1} s"));
        Ok(())
    })?;
    step("addresses are announced behind the host firewall", || pages(lab, servers))?;
    let failed =
        step("a failover takes place behind the host firewall", || failover(lab, servers))?;
    step("the machine is on again, and the host firewall is off", || {
        lab.power_on(&failed)?;
        lab.kubectl(&["wait", "--for=condition=Ready", "node", &failed, READY_MAX])?;
        configure(lab, &[replacement::VALUE])?;
        clean(lab, "end of the host firewall")
    })
}

fn pages(lab: &Lab, servers: &Servers) -> Result<()> {
    for server in servers.open.iter().chain(&servers.local) {
        let report = lab.start_probe(*server, PROBE_TIME, PROBE_INTERVAL).finish()?;
        let (lost, sent, gap) = (report.lost, report.sent, report.longest_gap_ms);
        print_measured(&format!("{server}: {lost} of {sent} lost, longest gap {gap:.0} ms"));
        ensure!(report.lost == 0, "connections are lost: {report:?}");
    }
    Ok(())
}

/// Powers the owner off, and returns its name.
fn failover(lab: &Lab, servers: &Servers) -> Result<String> {
    let limit = FAILOVER_MS * CHECK_FACTOR;
    let machine = failover::power_off_owner(lab, servers, PROBE_AFTER_FAILURE, limit)?;
    let probe = lab.start_probe(servers.local[0], PROBE_TIME, PROBE_INTERVAL).finish()?;
    ensure!(probe.lost == 0, "connections are lost after the failover: {probe:?}");
    Ok(machine)
}
