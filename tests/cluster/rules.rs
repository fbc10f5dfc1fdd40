//! The rules of addresses where only a real API server can show that they work: what it defaults, allocates, drops and refuses by itself.
//! What the rules say is in the table of `controller/src/state/tests/rows`.

use crate::stage::{play, step, without_proxy};
use crate::{allocation, families, sharing, types};
use anyhow::Result;
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::Lab;

#[test]
fn addresses_follow_class_type_allocation_sharing_and_families() {
    play(&without_proxy("rules"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for part in [types::part, allocation::part, sharing::part, families::part] {
            part(lab)?;
            step("all is deleted", || clear(lab))?;
        }
        Ok(())
    });
}

/// The next part has addresses of its own, so it need not wait until the controller has seen this.
fn clear(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "services", "--field-selector", "metadata.name!=kubernetes"])?;
    lab.kubectl(&["delete", "ipaddresspools", "--all", "--namespace", NAMESPACE]).map(drop)
}
