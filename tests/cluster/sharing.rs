//! Two Services that share an address, and a change that makes them incompatible: only the changed
//! Service loses the address.

use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Address that both Services request.
const SHARED_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 3, 5);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("Services with TCP/53 and UDP/53 share an address, which the pool counts once", || {
        lab.apply_objects(&[pool("shared", &["172.30.3.0/28"])])?;
        // Without a valid pool, the first Events about the Services could correctly report that
        // there is no pool.
        pools::wait_valid(lab, "shared", true)?;
        lab.apply_objects(&[dns("tcp", "TCP"), dns("udp", "UDP")])?;
        check_both_assigned(lab)?;
        pools::wait_for(lab, "shared", "one address in use", |pool| {
            (pool.status.as_ref()?.assigned_ipv4 == 1).then_some(())
        })
    })?;
    services::wait_events_sent(lab, "reported")?;
    let (tcp, events) = (services::get(lab, "tcp")?, services::events(lab, "tcp")?);
    ensure!(events.len() == 1, "there is not exactly one Event: {events:#?}");
    step(
        "a Service whose port changes to that of the other one loses the address and reports it",
        || {
            services::patch(
                lab,
                "udp",
                &json!({"spec": {"ports": [{"port": 53, "protocol": "TCP"}]}}),
            )?;
            services::wait_refused(lab, "udp", "SharingConflict")
        },
    )?;
    step("the other Service is unchanged, and there is no Event about it", || {
        services::wait_events_sent(lab, "reported-again")?;
        let now = services::get(lab, "tcp")?;
        ensure!(now == tcp, "the Service changed from {tcp:#?}\nto {now:#?}");
        let now = services::events(lab, "tcp")?;
        ensure!(now == events, "the Events changed to {now:#?}");
        Ok(())
    })?;
    step("with its former port, the Service gets the address again", || {
        services::patch(
            lab,
            "udp",
            &json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}}),
        )?;
        check_both_assigned(lab)
    })
}

/// Returns a DNS Service that shares its address.
fn dns(name: &str, protocol: &str) -> Value {
    let mut object = service(name, json!({"ports": [{"port": 53, "protocol": protocol}]}));
    object["metadata"]["annotations"] =
        json!({"ferrolb.io/allow-shared-ip": "dns", "ferrolb.io/loadBalancerIPs": SHARED_ADDRESS});
    object
}

fn check_both_assigned(lab: &Lab) -> Result<()> {
    let assigned = [services::address(lab, "tcp")?, services::address(lab, "udp")?];
    ensure!(assigned == [SHARED_ADDRESS, SHARED_ADDRESS], "the Services have {assigned:?}");
    Ok(())
}
