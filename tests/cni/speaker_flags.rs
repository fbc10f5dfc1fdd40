//! The flag with which speakers check pods in ranges that no Node has in its spec.

use anyhow::Result;
use ferrolb_lab::Lab;
use ferrolb_proto::api::NAMESPACE;

/// Variable of the flag, and the ranges of the pods by default in Cilium's chart, IPv4 and IPv6.
const VARIABLE: &str = "FERROLB_HEALTH_CHECKS";
const RANGES: &str = "10.0.0.0/8,fd00::/104";

/// Restarts the speakers with the flag, or without it.
pub(crate) fn set(lab: &Lab, on: bool) -> Result<()> {
    let variable = if on { format!("{VARIABLE}={RANGES}") } else { format!("{VARIABLE}-") };
    lab.kubectl(&["-n", NAMESPACE, "set", "env", "daemonset/speaker", &variable])?;
    let status = ["rollout", "status", "daemonset/speaker", "--timeout=180s"];
    lab.kubectl(&[&["-n", NAMESPACE], &status[..]].concat()).map(drop)
}
