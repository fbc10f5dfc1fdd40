//! `cargo lab down`.

use anyhow::Result;
use ferrolb_tests::teardown;
use ferrolb_tests::topology::LabName;

/// Takes one lab down: the named one, or that of a plain `up`; and whatever killed processes left.
pub(crate) fn down(name: Option<LabName>) -> Result<()> {
    let name = name.map_or_else(|| super::up::DEFAULT_NAME.parse(), Ok)?;
    let there = teardown::down(&name)?;
    for left in teardown::sweep()? {
        println!("The lab {left}, left by a killed process, is gone.");
    }
    println!("The lab {name} {}.", if there { "is gone" } else { "was not there" });
    Ok(())
}
