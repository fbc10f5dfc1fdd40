//! `cargo lab demo`.

use anyhow::Result;
use ferrolb_tests::topology::LabName;

pub(crate) fn demo(_name: Option<LabName>, _keep: bool) -> Result<()> {
    anyhow::bail!("later")
}
