//! Conditions and Events on a real API server: only the invalid object reports its fault, by
//! exactly one Event, and conditions of other controllers stay.

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
fn a_fault_is_reported_once_and_only_on_the_invalid_object() {
    run_scenario(&without_proxy("statuses"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        check_communities(lab)?;
        check_advertisement(lab)?;
        lab.apply_objects(&[pool("lan", &["172.30.5.0/24"])])?;
        step("each cause has one Event, also after a retry and a restart", || check_events(lab))?;
        other_controller::part(lab)?;
        invalid_objects::part(lab)?;
        bgp_conditions::part(lab)
    });
}

/// Returns a Community that defines these names and values.
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

fn check_communities(lab: &Lab) -> Result<()> {
    let wait_condition = |name: &str, reason: &str, word: &str| {
        wait_reason(lab, CustomResourceKind::Community, name, reason, word)
    };
    step("Communities with an invalid value or a duplicate name report it", || {
        lab.apply_objects(&[
            community("first", &[("blackhole", "65535:666"), ("site", "large:4200000000:1:2")]),
            community("second", &[("far", "65536:1")]),
            community("third", &[("near", "64512:1"), ("site", "64512:2")]),
        ])?;
        wait_condition("second", "BadValue", "65536:1")?;
        wait_condition(
            "third",
            "DuplicateName",
            "name \"site\" is already defined by Community first",
        )?;
        wait_condition("first", "Valid", "")
    })?;
    step("after the corrections, the Communities are valid", || {
        lab.apply_objects(&[
            community("second", &[("far", "65535:1")]),
            community("third", &[("near", "64512:1")]),
        ])?;
        wait_condition("second", "Valid", "")?;
        wait_condition("third", "Valid", "")
    })
}

fn check_advertisement(lab: &Lab) -> Result<()> {
    let wait_condition = |reason: &str, word: &str| {
        wait_reason(lab, CustomResourceKind::L2Advertisement, "named", reason, word)
    };
    step("an L2Advertisement reports a pool that does not exist", || {
        let spec = json!({"ipAddressPools": ["small", "later"]});
        let mut small = pool("small", &["172.30.6.0"]);
        small["spec"]["autoAssign"] = json!(false);
        lab.apply_objects(&[small, object(CustomResourceKind::L2Advertisement, "named", spec)])?;
        wait_condition("UnknownPool", "IPAddressPool later does not exist")
    })?;
    step("the L2Advertisement is valid while the pool exists", || {
        lab.apply_objects(&[pool("later", &["172.30.7.0"])])?;
        wait_condition("Valid", "")?;
        lab.kubectl(&["delete", "ipaddresspools", "later", "--namespace", "ferrolb-system"])?;
        wait_condition("UnknownPool", "later")
    })
}

/// Checks the Events of two Services, of which one has the only address of a pool and the other
/// waits for it.
fn check_events(lab: &Lab) -> Result<()> {
    let small_pool = |addresses: &[&str], exclude: &[&str]| {
        let mut small = pool("small", addresses);
        small["spec"]["autoAssign"] = json!(false);
        small["spec"]["excludeAddresses"] = json!(exclude);
        small
    };
    let service_from_small = |name: &str| {
        let mut object = service(name, json!({}));
        object["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": "small"});
        object
    };
    pools::wait_valid(lab, "lan", true)?;
    lab.apply_objects(&[service_from_small("served")])?;
    services::wait_addresses(lab, "served", &["172.30.6.0"])?;
    lab.apply_objects(&[service_from_small("waiting")])?;
    services::wait_refused(lab, "waiting", "PoolExhausted")?;
    check_event_counts(lab, "after-both", 1)?;
    // A larger pool that still has no free address makes the controller retry the waiting Service.
    lab.apply_objects(&[small_pool(&["172.30.6.0/31"], &["172.30.6.1"])])?;
    pools::wait_for(lab, "small", "the new generation", |pool| {
        (pool.status.as_ref()?.observed_generation == pool.metadata.generation?).then_some(())
    })?;
    check_event_counts(lab, "after-the-retry", 1)?;
    restart(lab)?;
    check_event_counts(lab, "after-the-restart", 1)?;
    lab.apply_objects(&[small_pool(&["172.30.6.0/31"], &[])])?;
    services::wait_addresses(lab, "waiting", &["172.30.6.1"])?;
    check_event_counts(lab, "after-the-correction", 2)
}

/// Checks that there is one Event about the Service `served`, and `waiting` Events about the
/// Service `waiting`. Creates the Service `last` first, and waits for its Event.
fn check_event_counts(lab: &Lab, last: &str, waiting: usize) -> Result<()> {
    services::wait_events_sent(lab, last)?;
    let count = |name: &str| -> Result<usize> {
        let events = services::events(lab, name)?;
        ensure!(
            events.iter().all(|event| event.series.is_none()),
            "an Event was repeated: {events:#?}"
        );
        Ok(events.len())
    };
    let counts = (count("served")?, count("waiting")?);
    ensure!(
        counts == (1, waiting),
        "{last}: the numbers of Events about served and waiting are {counts:?}, not (1, {waiting})"
    );
    Ok(())
}
