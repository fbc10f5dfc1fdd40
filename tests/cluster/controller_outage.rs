//! Failure and restart of the controller: assigned addresses stay, and a Service that was created
//! during the outage gets an address.

use crate::scenario::{one_node, print_measured, run_scenario, step};
use crate::segment;
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::json;
use std::time::Duration;

/// Flags of a leader lease short enough for a test.
pub(crate) const LEASE_FLAGS: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry", "500ms"];
/// Time after the controller's restart in which nothing may change.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn a_restarted_controller_keeps_all_assignments() {
    run_scenario(&one_node("outage"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&LEASE_FLAGS)?;
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
        step("the controller is killed, and a new Service waits for an address", || {
            lab.stop("controller", Signal::KILL)?;
            lab.apply_objects(&[services::service("younger", json!({}))])?;
            segment::owner(lab, address).map(drop)
        })?;
        let restart = wait::now();
        step("the restarted controller assigns an address to the waiting Service", || {
            lab.restart("controller")?;
            let second = services::address(lab, "younger")?;
            ensure!(second != address, "two Services have {address}");
            Ok(())
        })?;
        print_measured(&format!(
            "controller killed and restarted: the waiting Service has its address after {:?}",
            restart.elapsed()
        ));
        step("the restarted controller does not write the first Service", || {
            check_unchanged(lab, &services::version(&before)?)
        })
    });
}

/// Checks that the Service `web` keeps its resourceVersion for [`QUIET`].
fn check_unchanged(lab: &Lab, version: &str) -> Result<()> {
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
