//! Rules of address assignment that depend on a real API server: fields that it defaults,
//! allocates, drops or refuses. The table in `controller/src/state/tests/rows` covers the rules
//! themselves.

use crate::scenario::{run_scenario, step, without_proxy};
use crate::{allocation, families, sharing, types};
use anyhow::Result;
use ferrolb_lab::Lab;
use ferrolb_proto::api::NAMESPACE;

#[test]
fn addresses_follow_class_type_allocation_sharing_and_families() {
    run_scenario(&without_proxy("rules"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for part in [types::part, allocation::part, sharing::part, families::part] {
            part(lab)?;
            step("all is deleted", || clear(lab))?;
        }
        Ok(())
    });
}

/// Deletes all Services and pools. The next part uses other addresses, so it need not wait for the
/// controller.
fn clear(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "services", "--field-selector", "metadata.name!=kubernetes"])?;
    lab.kubectl(&["delete", "ipaddresspools", "--all", "--namespace", NAMESPACE]).map(drop)
}
