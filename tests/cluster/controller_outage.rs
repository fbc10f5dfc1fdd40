//! The controller dies and comes back: what was given stays given, what came meanwhile is served.

use crate::client_wire;
use crate::services;
use crate::stage::{measured, one_node, play, step};
use anyhow::{Result, ensure};
use ferrolb_tests::{Lab, Signal, wait};
use serde_json::json;
use std::time::Duration;

/// A lease that a test can wait for.
pub(crate) const LEASE: [&str; 6] =
    ["--lease-duration", "3s", "--lease-renew-deadline", "2s", "--lease-retry", "500ms"];
/// How long nothing may change once the controller is back.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn a_controller_that_is_killed_and_started_again_changes_no_service() {
    play(&one_node("outage"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&LEASE)?;
        lab.start_speaker("node1", &[])?;
        services::furnish(lab, "node1")?;
        let address = step("a Service is served", || {
            services::serve(lab, "other")?;
            let address = services::serve(lab, "web")?;
            client_wire::wait_owner(lab, address)?;
            Ok(address)
        })?;
        // The one with the lower address goes: a controller that forgot who has what would give that to the first by name.
        services::delete(lab, "other")?;
        services::wait_announced(lab, "web", "Announced", "")?;
        let before = services::get(lab, "web")?;
        step("the controller is killed; a Service that comes now waits", || {
            lab.stop("controller", Signal::KILL)?;
            lab.apply_objects(&[services::service("younger", json!({}))])?;
            client_wire::owner(lab, address).map(drop)
        })?;
        let back = wait::now();
        step("started again, it serves what came meanwhile", || {
            lab.restart("controller")?;
            let given = services::address(lab, "younger")?;
            ensure!(given != address, "two Services have {address}");
            Ok(())
        })?;
        measured(&format!(
            "controller killed and started again: the waiting Service has its address after {:?}",
            back.elapsed()
        ));
        step("and leaves the first Service as it was", || unchanged(lab, &services::version(&before)?))
    });
}

/// The Service `web` keeps its resourceVersion for a while.
fn unchanged(lab: &Lab, version: &str) -> Result<()> {
    wait::during(QUIET, || {
        let now = services::get(lab, "web")?;
        ensure!(services::version(&now)? == version, "it was changed: {:#?}", now.metadata.managed_fields);
        Ok(())
    })
}
