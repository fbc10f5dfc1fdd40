//! Everything that a person can get wrong at once: what is right goes on, at run time and after a restart.

use crate::pools::{object, pool, wait_reason};
use crate::services::{self, service};
use crate::stage::step;
use crate::statuses::{community, restart};
use anyhow::{Result, ensure};
use ferrolb_proto::api::Kind;
use ferrolb_tests::Lab;
use serde_json::json;

pub(crate) fn part(lab: &Lab) -> Result<()> {
    let address = services::serve(lab, "good")?;
    let good = services::get(lab, "good")?;
    step("bad pools, a bad advertisement, a bad Community and a bad Service are there, and each says so", || {
        let mut bad = service("bad", json!({}));
        bad["metadata"]["annotations"] = json!({
            "ferrolb.io/loadBalancerIPs": "oops", "ferrolb.io/address-pool": "no such pool", "ferrolb.io/ip-mode": "vip",
            "ferrolb.io/allow-shared-ip": "", "ferrolb.io/ip-allocated-from-pool": "nowhere", "ferrolb.io/health-check": "?",
        });
        lab.apply_objects(&[
            bad,
            community("bad", &[("far", "far:away")]),
            object(Kind::L2Advertisement, "bad", json!({"ipAddressPools": ["nowhere"]})),
            pool("backwards", &["172.30.8.9-172.30.8.1"]),
            pool("overlap", &["172.30.5.128-172.30.8.255"]),
        ])?;
        all_say_so(lab)
    })?;
    step("a new Service is served, and the other one is the very same", || {
        services::serve(lab, "new")?;
        ensure!(services::get(lab, "good")? == good, "it is no longer what it was");
        Ok(())
    })?;
    step("after a restart as well", || {
        restart(lab)?;
        services::serve(lab, "newer")?;
        ensure!(services::get(lab, "good")? == good, "it is no longer what it was");
        ensure!(services::address(lab, "good")? == address, "it had {address}");
        all_say_so(lab)
    })
}

/// Each bad object's status names what is wrong with it.
fn all_say_so(lab: &Lab) -> Result<()> {
    wait_reason(lab, Kind::IPAddressPool, "backwards", "BadAddresses", "ends before it starts")?;
    wait_reason(lab, Kind::IPAddressPool, "overlap", "Overlap", "of pool small")?;
    wait_reason(lab, Kind::L2Advertisement, "bad", "UnknownPool", "nowhere")?;
    wait_reason(lab, Kind::Community, "bad", "BadValue", "far:away")?;
    services::wait_refused(lab, "bad", "BadAnnotation")
}
