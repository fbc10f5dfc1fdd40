//! Failure and restart of the controller: assigned addresses stay, and Services that were created
//! meanwhile get theirs.

use crate::scenario::{one_node, print_measured, run_scenario, step};
use crate::segment;
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::json;
use std::time::Duration;

/// A lease short enough for a test.
pub(crate) const LEASE: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry", "500ms"];
/// Time in which nothing may change after the controller is back.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn a_controller_that_is_killed_and_started_again_changes_no_service() {
    run_scenario(&one_node("outage"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&LEASE)?;
        lab.start_speaker("node1", &[])?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = step("a Service is served", || {
            services::serve(lab, "other")?;
            let address = services::serve(lab, "web")?;
            segment::wait_owner(lab, address)?;
            Ok(address)
        })?;
        // Deletes the Service with the lower address: a controller that lost the assignments would
        // assign that address to the first Service by name.
        services::delete(lab, "other")?;
        services::wait_announced(lab, "web", "Announced", "")?;
        let before = services::get(lab, "web")?;
        step("the controller is killed; a Service that comes now waits", || {
            lab.stop("controller", Signal::KILL)?;
            lab.apply_objects(&[services::service("younger", json!({}))])?;
            segment::owner(lab, address).map(drop)
        })?;
        let back = wait::now();
        step("started again, it serves what came meanwhile", || {
            lab.restart("controller")?;
            let given = services::address(lab, "younger")?;
            ensure!(given != address, "two Services have {address}");
            Ok(())
        })?;
        print_measured(&format!(
            "controller killed and started again: the waiting Service has its address after {:?}",
            back.elapsed()
        ));
        step("and leaves the first Service as it was", || {
            unchanged(lab, &services::version(&before)?)
        })
    });
}

/// Checks that the Service `web` keeps its resourceVersion for [`QUIET`].
fn unchanged(lab: &Lab, version: &str) -> Result<()> {
    wait::during(QUIET, || {
        let now = services::get(lab, "web")?;
        ensure!(
            services::version(&now)? == version,
            "the Service was changed: {:#?}",
            now.metadata.managed_fields
        );
        Ok(())
    })
}
