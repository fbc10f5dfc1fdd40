//! Health checks of pods in the ranges of Cilium's IPAM `cluster-pool`, which no Node has in its
//! spec: without a flag the speakers do not check them, and say so.

use super::condition;
use crate::health;
use crate::scenario::step;
use crate::speaker_flags;
use crate::workload::Servers;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use std::time::Duration;

/// Finding about unchecked endpoints.
const UNCHECKED: &str = "FLB073";
/// Text of the condition, of `why` and of `check`.
const TEXT: &str = "endpoints on node2, node3 are not checked";
const REPORTED_MAX: Duration = Duration::from_secs(60);

/// Runs the speakers without the flag, and with it.
pub(super) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    step("unchecked endpoints are reported", || {
        speaker_flags::set(lab, false)?;
        wait::until("unchecked endpoints are reported", REPORTED_MAX, || reported(lab).map(Some))
    })?;
    step("with the flag, a failed health check moves an address", || {
        speaker_flags::set(lab, true)?;
        super::clean(lab, "restart of the speakers")?;
        health::check(lab, servers)
    })
}

fn reported(lab: &Lab) -> Result<()> {
    let check = lab.kubectl_ferrolb(&["check"])?;
    ensure!(check.contains(UNCHECKED), "{UNCHECKED} is missing: {check}");
    let texts =
        [condition(lab, "local", "Announced")?, check, lab.kubectl_ferrolb(&["why", "local"])?];
    for text in texts {
        ensure!(
            text.contains(TEXT) && text.contains("--health-checks"),
            "{TEXT:?} is missing: {text}"
        );
    }
    let status = lab.kubectl_ferrolb(&["status"])?;
    let is_warned = |line: &str| line.starts_with("default/local") && line.ends_with("! Announced");
    ensure!(status.lines().any(is_warned), "status has no warning: {status}");
    Ok(())
}
