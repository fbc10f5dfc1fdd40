//! Statuses and events on a real API server: only the wrong object reports a fault, once, and
//! conditions of other controllers stay.

use crate::bgp_conditions;
use crate::invalid_objects;
use crate::other_controller;
use crate::pools::{self, object, pool, wait_reason};
use crate::scenario::{run_scenario, step, without_proxy};
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::ferrolb::CONTROLLER;
use ferrolb_lab::{Lab, Signal};
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

#[test]
fn a_fault_is_reported_once_on_the_wrong_object_and_others_are_unaffected() {
    run_scenario(&without_proxy("statuses"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        communities(lab)?;
        advertisement(lab)?;
        lab.apply_objects(&[pool("lan", &["172.30.5.0/24"])])?;
        step("one event for each cause, also after a retry and a restart", || events(lab))?;
        other_controller::part(lab)?;
        invalid_objects::part(lab)?;
        bgp_conditions::part(lab)
    });
}

/// Returns a Community with these names.
pub(crate) fn community(name: &str, names: &[(&str, &str)]) -> Value {
    let names: Vec<_> =
        names.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    object(CustomResourceKind::Community, name, json!({"communities": names}))
}

/// Stops the controller and starts it again.
pub(crate) fn restart(lab: &Lab) -> Result<()> {
    lab.stop(CONTROLLER, Signal::TERM)?;
    lab.restart(CONTROLLER)
}

fn communities(lab: &Lab) -> Result<()> {
    let says = |name: &str, reason: &str, word: &str| {
        wait_reason(lab, CustomResourceKind::Community, name, reason, word)
    };
    step(
        "of three Communities, the one with a bad value and the later one of two with the same name are told",
        || {
            lab.apply_objects(&[
                community("first", &[("blackhole", "65535:666"), ("site", "large:4200000000:1:2")]),
                community("second", &[("far", "65536:1")]),
                community("third", &[("near", "64512:1"), ("site", "64512:2")]),
            ])?;
            says("second", "BadValue", "65536:1")?;
            says("third", "DuplicateName", "name \"site\" is already defined by Community first")?;
            says("first", "Valid", "")
        },
    )?;
    step("put right, they are valid", || {
        lab.apply_objects(&[
            community("second", &[("far", "65535:1")]),
            community("third", &[("near", "64512:1")]),
        ])?;
        says("second", "Valid", "")?;
        says("third", "Valid", "")
    })
}

fn advertisement(lab: &Lab) -> Result<()> {
    let says = |reason: &str, word: &str| {
        wait_reason(lab, CustomResourceKind::L2Advertisement, "named", reason, word)
    };
    step("an L2Advertisement says which of its pools is not there", || {
        let spec = json!({"ipAddressPools": ["small", "later"]});
        let mut small = pool("small", &["172.30.6.0"]);
        small["spec"]["autoAssign"] = json!(false);
        lab.apply_objects(&[small, object(CustomResourceKind::L2Advertisement, "named", spec)])?;
        says("UnknownPool", "IPAddressPool later does not exist")
    })?;
    step("and is valid as soon as it is", || {
        lab.apply_objects(&[pool("later", &["172.30.7.0"])])?;
        says("Valid", "")?;
        lab.kubectl(&["delete", "ipaddresspools", "later", "--namespace", "ferrolb-system"])?;
        says("UnknownPool", "later")
    })
}

/// Checks the events of two Services: one has the only address of a pool, and the other waits for
/// it.
fn events(lab: &Lab) -> Result<()> {
    let small = |addresses: &[&str], exclude: &[&str]| {
        let mut small = pool("small", addresses);
        small["spec"]["autoAssign"] = json!(false);
        small["spec"]["excludeAddresses"] = json!(exclude);
        small
    };
    let asking = |name: &str| {
        let mut object = service(name, json!({}));
        object["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": "small"});
        object
    };
    pools::wait_valid(lab, "lan", true)?;
    lab.apply_objects(&[asking("served")])?;
    services::wait_addresses(lab, "served", &["172.30.6.0"])?;
    lab.apply_objects(&[asking("waiting")])?;
    services::wait_refused(lab, "waiting", "PoolExhausted")?;
    event_counts(lab, "after-both", 1)?;
    // A larger pool that still has no free address makes the controller retry the waiting Service.
    lab.apply_objects(&[small(&["172.30.6.0/31"], &["172.30.6.1"])])?;
    pools::wait_for(lab, "small", "the new generation", |pool| {
        (pool.status.as_ref()?.observed_generation == pool.metadata.generation?).then_some(())
    })?;
    event_counts(lab, "after-the-retry", 1)?;
    restart(lab)?;
    event_counts(lab, "after-the-restart", 1)?;
    lab.apply_objects(&[small(&["172.30.6.0/31"], &[])])?;
    services::wait_addresses(lab, "waiting", &["172.30.6.1"])?;
    event_counts(lab, "after-the-cure", 2)
}

/// Checks that, after all earlier events, there is one event about `served` and `waiting` events
/// about the other. `last` is the name of the Service that is served last.
fn event_counts(lab: &Lab, last: &str, waiting: usize) -> Result<()> {
    services::wait_events_sent(lab, last)?;
    let count = |name: &str| -> Result<usize> {
        let events = services::events(lab, name)?;
        ensure!(events.iter().all(|event| event.series.is_none()), "{events:#?}");
        Ok(events.len())
    };
    let counts = (count("served")?, count("waiting")?);
    ensure!(counts == (1, waiting), "{last}: {counts:?} events");
    Ok(())
}
