//! A Service and the power failure of its node, on a machine with version 2 of control groups
//! alone, like those of current distributions.

use crate::evidence::wait_replies;
use crate::failures::{self, PAUSE, PROBE_AFTER};
use crate::scenario::{beside_other_labs, run_scenario, step};
use crate::stops::INCLUDE;
use crate::{CONTROL_PLANE, install, workers};
use anyhow::{Context, Result};
use ferrolb_lab::bench::power_off;
use ferrolb_lab::setup::Tools;
use ferrolb_lab::{Lab, virtual_machine, wait};

/// Target of the time from the failure until no connection is lost, in milliseconds. A virtual
/// machine is slow; without FerroLB, connections would be lost for 50 s.
const TARGET_MS: f64 = 5_000.0;
const TEST: &str = "version_2::a_node_loses_power_with_version_2_of_control_groups";

#[test]
fn a_node_loses_power_with_version_2_of_control_groups() {
    let options = workers("version2", 1);
    if virtual_machine::is_inside() {
        run_scenario(&options, power_off_worker);
    } else {
        beside_other_labs(&options, |_| {
            Tools::with_kubeadm()?;
            virtual_machine::run(&std::env::current_exe()?, &["--exact", TEST, "--nocapture"])
        });
    }
}

fn power_off_worker(lab: &Lab) -> Result<()> {
    let server = install(lab)?;
    lab.shell(INCLUDE)?;
    wait_replies(lab)?;
    wait::during(PAUSE, || Ok(()))?;
    let worker = lab.nodes().into_iter().find(|it| it != CONTROL_PLANE);
    let worker = worker.context("the lab has a worker")?;
    power_off::move_leader_from(lab, &worker)?;
    step("the worker loses power, and leaves the endpoints", || {
        let (failure, ()) = power_off::power_off(lab, &worker, server, PROBE_AFTER, |_, _| Ok(()))?;
        failures::check(lab, "powered off", &failure, TARGET_MS)
    })
}
