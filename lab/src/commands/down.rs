//! `cargo lab down`.

use anyhow::Result;
use ferrolb_lab::teardown;
use ferrolb_lab::topology::LabName;

/// Stops one lab (the named one, or that of a plain `up`), and removes labs of killed processes.
pub(crate) fn down(name: Option<LabName>) -> Result<()> {
    let name = name.map_or_else(|| super::up::DEFAULT_NAME.parse(), Ok)?;
    let existed = teardown::down(&name)?;
    for removed in teardown::sweep()? {
        println!("Removed the lab {removed}, which a killed process had left.");
    }
    println!("The lab {name} {}.", if existed { "is gone" } else { "does not exist" });
    Ok(())
}
