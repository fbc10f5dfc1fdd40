//! Two Services on one address, and a change that makes them incompatible: only the changed one
//! loses the address.

use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Address that both Services request.
const SHARED: Ipv4Addr = Ipv4Addr::new(172, 30, 3, 5);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step(
        "TCP/53 and UDP/53 of two Services are on one address, which the pool counts once",
        || {
            lab.apply_objects(&[pool("shared", &["172.30.3.0/28"])])?;
            // The pool must be valid before the Services exist: otherwise an event could rightly
            // report first that there is no pool.
            pools::wait_valid(lab, "shared", true)?;
            lab.apply_objects(&[dns("tcp", "TCP"), dns("udp", "UDP")])?;
            both_have_it(lab)?;
            pools::wait_for(lab, "shared", "one address in use", |pool| {
                (pool.status.as_ref()?.assigned_ipv4 == 1).then_some(())
            })
        },
    )?;
    services::wait_events_sent(lab, "told")?;
    let (tcp, events) = (services::get(lab, "tcp")?, services::events(lab, "tcp")?);
    ensure!(events.len() == 1, "{events:#?}");
    step("the one that changes its port to the other's loses the address and says why", || {
        services::patch(
            lab,
            "udp",
            &json!({"spec": {"ports": [{"port": 53, "protocol": "TCP"}]}}),
        )?;
        services::wait_refused(lab, "udp", "SharingConflict")
    })?;
    step("the other one is the very same, and nothing is told of it", || {
        services::wait_events_sent(lab, "told-again")?;
        let now = services::get(lab, "tcp")?;
        ensure!(now == tcp, "before: {tcp:#?}\nafter: {now:#?}");
        let now = services::events(lab, "tcp")?;
        ensure!(now == events, "{now:#?}");
        Ok(())
    })?;
    step("put right, it has the address again", || {
        services::patch(
            lab,
            "udp",
            &json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}}),
        )?;
        both_have_it(lab)
    })
}

/// Returns a DNS Service that shares its address.
fn dns(name: &str, protocol: &str) -> Value {
    let mut object = service(name, json!({"ports": [{"port": 53, "protocol": protocol}]}));
    object["metadata"]["annotations"] =
        json!({"ferrolb.io/allow-shared-ip": "dns", "ferrolb.io/loadBalancerIPs": SHARED});
    object
}

fn both_have_it(lab: &Lab) -> Result<()> {
    let given = [services::address(lab, "tcp")?, services::address(lab, "udp")?];
    ensure!(given == [SHARED, SHARED], "the Services have {given:?}");
    Ok(())
}
