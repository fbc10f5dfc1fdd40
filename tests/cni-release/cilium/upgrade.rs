//! Upgrade of Cilium while addresses are announced: all its pods get images with another tag.

use super::{clean, configure};
use crate::client::{Limits, run_within, run_without_loss};
use crate::restart::named;
use crate::scenario::step;
use crate::workload::Servers;
use anyhow::Result;
use ferrolb_lab::{Lab, wait};
use std::time::Duration;

/// Images, each with the value of the chart for its tag.
const IMAGES: [(&str, &str); 2] = [
    ("quay.io/cilium/cilium", "image.tag"),
    ("quay.io/cilium/operator-generic", "operator.image.tag"),
];
/// Limits for each Service: three times what was measured.
const LIMITS: Limits = Limits { lost: 2_046, gap_ms: 11_400.0 };
const TAG: &str = "v1.20.3-lab";
/// Time for which clients connect after the upgrade.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Upgrades Cilium.
pub(super) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    step("Cilium is upgraded while addresses are announced", || {
        for node in lab.nodes() {
            for (image, _) in IMAGES {
                let [old, new] = [super::PLUGIN.version(), TAG].map(|tag| format!("{image}:{tag}"));
                lab.exec(&node, &["ctr", "--namespace", "k8s.io", "images", "tag", &old, &new])?;
            }
        }
        let values = IMAGES.map(|(_, value)| format!("{value}={TAG}"));
        run_within(&LIMITS, lab, "upgrade of Cilium", &named(servers), || {
            configure(lab, &values.each_ref().map(String::as_str))
        })?;
        clean(lab, "upgrade")?;
        run_without_loss(lab, "after the upgrade of Cilium", &named(servers), || {
            wait::during(PROBE_TIME, || Ok(()))
        })
    })
}
