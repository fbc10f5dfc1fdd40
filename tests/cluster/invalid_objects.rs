//! Invalid objects of every kind at once: the valid objects continue to work, also after a restart
//! of the controller.

use crate::pools::{object, pool, wait_reason};
use crate::scenario::step;
use crate::services::{self, service};
use crate::statuses::{community, restart};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::CustomResourceKind;
use serde_json::json;

pub(crate) fn part(lab: &Lab) -> Result<()> {
    let address = services::serve(lab, "good")?;
    let good = services::get(lab, "good")?;
    step("each invalid pool, advertisement, Community and Service reports its fault", || {
        let mut bad = service("bad", json!({}));
        bad["metadata"]["annotations"] = json!({
            "ferrolb.io/loadBalancerIPs": "oops", "ferrolb.io/address-pool": "no such pool", "ferrolb.io/ip-mode": "vip",
            "ferrolb.io/allow-shared-ip": "", "ferrolb.io/ip-allocated-from-pool": "nowhere", "ferrolb.io/health-check": "?",
            "ferrolb.io/assigned": "{",
        });
        lab.apply_objects(&[
            bad,
            community("bad", &[("far", "far:away")]),
            object(
                CustomResourceKind::L2Advertisement,
                "bad",
                json!({"ipAddressPools": ["nowhere"]}),
            ),
            pool("backwards", &["172.30.8.9-172.30.8.1"]),
            pool("overlap", &["172.30.5.128-172.30.8.255"]),
        ])?;
        wait_all_reported(lab)
    })?;
    step("a new Service is served, and the existing one is unchanged", || {
        services::serve(lab, "new")?;
        ensure!(services::get(lab, "good")? == good, "the Service has changed");
        Ok(())
    })?;
    step("after a restart, a new Service is served, and the existing one is unchanged", || {
        restart(lab)?;
        services::serve(lab, "newer")?;
        ensure!(services::get(lab, "good")? == good, "the Service has changed");
        ensure!(
            services::address(lab, "good")? == address,
            "the Service lost its address {address}"
        );
        wait_all_reported(lab)
    })
}

/// Waits until the condition of each invalid object names its fault.
fn wait_all_reported(lab: &Lab) -> Result<()> {
    wait_reason(
        lab,
        CustomResourceKind::IPAddressPool,
        "backwards",
        "BadAddresses",
        "ends before it starts",
    )?;
    wait_reason(
        lab,
        CustomResourceKind::IPAddressPool,
        "overlap",
        "Overlap",
        "of IPAddressPool small",
    )?;
    wait_reason(lab, CustomResourceKind::L2Advertisement, "bad", "UnknownPool", "nowhere")?;
    wait_reason(lab, CustomResourceKind::Community, "bad", "BadValue", "far:away")?;
    services::wait_refused(lab, "bad", "BadAnnotation")
}
