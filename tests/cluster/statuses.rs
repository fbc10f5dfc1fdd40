//! What FerroLB says in statuses and events on a real API server: of the culprit only, once, and beside what others say.

use crate::bgp_conditions;
use crate::neighbour;
use crate::pools::{self, object, pool, wait_reason};
use crate::services::{self, service};
use crate::spoilt;
use crate::stage::{play, step, without_proxy};
use anyhow::{Result, ensure};
use ferrolb_proto::api::Kind;
use ferrolb_tests::cluster::ferrolb::CONTROLLER;
use ferrolb_tests::{Lab, Signal};
use serde_json::{Value, json};

#[test]
fn what_is_wrong_is_said_once_of_the_culprit_and_nothing_else_suffers() {
    play(&without_proxy("statuses"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        communities(lab)?;
        advertisement(lab)?;
        lab.apply_objects(&[pool("lan", &["172.30.5.0/24"])])?;
        step("one event for each cause, also after a retry and a restart", || events(lab))?;
        neighbour::part(lab)?;
        spoilt::part(lab)?;
        bgp_conditions::part(lab)
    });
}

/// A Community with these names.
pub(crate) fn community(name: &str, names: &[(&str, &str)]) -> Value {
    let names: Vec<_> = names.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    object(Kind::Community, name, json!({"communities": names}))
}

/// Stops the controller and starts it again.
pub(crate) fn restart(lab: &Lab) -> Result<()> {
    lab.stop(CONTROLLER, Signal::TERM)?;
    lab.restart(CONTROLLER)
}

fn communities(lab: &Lab) -> Result<()> {
    let says = |name: &str, reason: &str, word: &str| wait_reason(lab, Kind::Community, name, reason, word);
    step(
        "of three Communities, the one with a bad value and the later one of two with the same name are told",
        || {
            lab.apply_objects(&[
                community("first", &[("blackhole", "65535:666"), ("site", "large:4200000000:1:2")]),
                community("second", &[("far", "65536:1")]),
                community("third", &[("near", "64512:1"), ("site", "64512:2")]),
            ])?;
            says("second", "BadValue", "65536:1")?;
            says("third", "DuplicateName", "Community first gives the name \"site\"")?;
            says("first", "Valid", "")
        },
    )?;
    step("put right, they are valid", || {
        lab.apply_objects(&[community("second", &[("far", "65535:1")]), community("third", &[("near", "64512:1")])])?;
        says("second", "Valid", "")?;
        says("third", "Valid", "")
    })
}

fn advertisement(lab: &Lab) -> Result<()> {
    let says = |reason: &str, word: &str| wait_reason(lab, Kind::L2Advertisement, "named", reason, word);
    step("an L2Advertisement says which of its pools is not there", || {
        let spec = json!({"ipAddressPools": ["small", "later"]});
        let mut small = pool("small", &["172.30.6.0"]);
        small["spec"]["autoAssign"] = json!(false);
        lab.apply_objects(&[small, object(Kind::L2Advertisement, "named", spec)])?;
        says("UnknownPool", "no IPAddressPool later;")
    })?;
    step("and is valid as soon as it is", || {
        lab.apply_objects(&[pool("later", &["172.30.7.0"])])?;
        says("Valid", "")?;
        lab.kubectl(&["delete", "ipaddresspools", "later", "--namespace", "ferrolb-system"])?;
        says("UnknownPool", "later")
    })
}

/// One Service has the only address of a pool, and another one waits for it.
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
    told(lab, "after-both", 1)?;
    // A larger pool that has no more room: who waits is tried again.
    lab.apply_objects(&[small(&["172.30.6.0/31"], &["172.30.6.1"])])?;
    pools::wait_for(lab, "small", "the new generation", |pool| {
        (pool.status.as_ref()?.observed_generation == pool.metadata.generation?).then_some(())
    })?;
    told(lab, "after-the-retry", 1)?;
    restart(lab)?;
    told(lab, "after-the-restart", 1)?;
    lab.apply_objects(&[small(&["172.30.6.0/31"], &[])])?;
    services::wait_addresses(lab, "waiting", &["172.30.6.1"])?;
    told(lab, "after-the-cure", 2)
}

/// After all is told, there is one event about `served` and so many about `waiting`. `last` names the Service that comes last.
fn told(lab: &Lab, last: &str, waiting: usize) -> Result<()> {
    services::all_told(lab, last)?;
    let count = |name: &str| -> Result<usize> {
        let events = services::events(lab, name)?;
        ensure!(events.iter().all(|event| event.series.is_none()), "{events:#?}");
        Ok(events.len())
    };
    let counts = (count("served")?, count("waiting")?);
    ensure!(counts == (1, waiting), "{last}: {counts:?} events");
    Ok(())
}
