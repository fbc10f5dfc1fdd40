//! Rules of address assignment that depend on a real API server, because the API server sets,
//! allocates, drops or refuses fields. The table in `proto/src/controller/state/tests/rows` covers
//! the rules themselves.

use crate::scenario::{run_scenario, step, without_proxy};
use crate::{allocation, families, sharing, types};
use anyhow::Result;
use ferrolb_lab::Lab;
use ferrolb_proto::api::NAMESPACE;

#[test]
fn assignment_rules_hold_on_a_real_api_server() {
    run_scenario(&without_proxy("rules"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for part in [types::part, allocation::part, sharing::part, families::part] {
            part(lab)?;
            step("all Services and pools are deleted", || delete_all(lab))?;
        }
        Ok(())
    });
}

/// Deletes all Services and pools. The next part uses other addresses, so the test need not wait
/// for the controller.
fn delete_all(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "services", "--field-selector", "metadata.name!=kubernetes"])?;
    lab.kubectl(&["delete", "ipaddresspools", "--all", "--namespace", NAMESPACE]).map(drop)
}
