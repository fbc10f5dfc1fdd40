//! Others write what is ours to write, before us, against us and between our read and our write: our Services have our addresses, nothing is
//! written at full speed, and what is not ours is not touched.

use crate::metrics::metric;
use crate::pools::pool;
use crate::relay::Relay;
use crate::rival::{self, ITS_ADDRESS};
use crate::services::{self, service};
use crate::stage::{measured, play, step, without_proxy};
use anyhow::{Result, ensure};
use ferrolb_proto::api::{GROUP, from_pool};
use ferrolb_tests::cluster::ferrolb::CONTROLLER;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, Signal};
use k8s_openapi::api::core::v1::Service as Object;
use kube::api::Api;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The first and the second address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
/// The field manager of what the controller writes.
pub(crate) const OURS: &str = "ferrolb-controller";
/// How long somebody insists on an address that is not ours.
const QUARREL: Duration = Duration::from_secs(15);
/// How often we may answer that: at once, after 0.2 s, 0.4 s, 0.8 s ... that is 7 times; at full speed it would be hundreds.
const ANSWERS: std::ops::RangeInclusive<f64> = 3.0..=12.0;
/// How long no version of a Service lasts.
const FIDGET: Duration = Duration::from_secs(4);
/// How often we may try to write to it: at once, after 0.2 s, 0.4 s ... until it works.
const TRIES_MAX: f64 = 10.0;
/// How long each answer of the API server takes, so that whoever fidgets always comes between our read and our write.
const ANSWER: Duration = Duration::from_millis(100);

#[test]
fn what_others_write_into_our_services_is_put_right_without_a_fight_at_full_speed() {
    play(&without_proxy("quarrel"), |lab| {
        lab.install_ferrolb()?;
        let _relay = Relay::before_api(lab, ANSWER)?;
        lab.apply_objects(&[
            pool("lan", &["172.30.0.200-172.30.0.209"]),
            service("theirs", json!({"loadBalancerClass": "example.com/other"})),
            service("web", json!({})),
        ])?;
        step("somebody has written addresses and pool before us: they are ours after one write", || {
            api(lab, async |services| {
                rival::claim(&services, "theirs").await?;
                rival::claim(&services, "web").await?;
                rival::annotate(&services, "web").await
            })?;
            lab.start_controller(&[])?;
            ours(lab, "web", FIRST)?;
            ensure!(errors(lab)? < 1.0, "{} writes were refused", errors(lab)?);
            Ok(())
        })?;
        step("somebody insists on another address: we answer ever more slowly", || {
            let before = writes(lab)?;
            let claims = rival::insist(lab, "web", QUARREL)?;
            let answers = writes(lab)? - before;
            let rate = answers / QUARREL.as_secs_f64();
            measured(&format!(
                "quarrel: {claims} claims, {answers} answers in {QUARREL:?}, {rate:.2} writes per second"
            ));
            ensure!(ANSWERS.contains(&answers), "{answers} answers to {claims} claims in {QUARREL:?}");
            ours(lab, "web", FIRST)
        })?;
        step("no version of a Service lasts until we have written: we try ever more slowly, and get there", || {
            outrun(lab)
        })?;
        step("what is of another class was never written by us", || {
            let theirs = services::get(lab, "theirs")?;
            let owners = managers(&theirs);
            ensure!(!owners.iter().any(|owner| owner == OURS), "it was written by {owners:?}");
            ensure!(services::addresses(&theirs) == [ITS_ADDRESS.parse::<IpAddr>()?], "{:?}", theirs.status);
            Ok(())
        })
    });
}

/// A Service whose addresses somebody else has written must be read before it is written, and is changed in between.
fn outrun(lab: &Lab) -> Result<()> {
    let (tries, refused) = (writes(lab)?, errors(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    lab.apply_objects(&[service("busy", json!({}))])?;
    api(lab, async |services| rival::claim(&services, "busy").await)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    let changes = rival::fidget(lab, "busy", FIDGET)?;
    ours(lab, "busy", SECOND)?;
    let (tries, refused) = (writes(lab)? - tries, errors(lab)? - refused);
    measured(&format!(
        "a Service that was changed {changes} times in {FIDGET:?}: {tries} tries to write it, {refused} refused"
    ));
    ensure!(refused >= 1.0, "no version of it was outdated: nothing was shown");
    ensure!(tries <= TRIES_MAX, "{tries} tries");
    Ok(())
}

/// Waits until a Service has this address, from our pool, written by us.
fn ours(lab: &Lab, name: &str, address: Ipv4Addr) -> Result<()> {
    let found = services::wait_for(lab, name, &format!("{address} from our pool"), |service| {
        let pool = service.metadata.annotations.as_ref()?.get(&from_pool(GROUP))?;
        (services::addresses(service) == [IpAddr::V4(address)] && pool == "lan").then(|| service.clone())
    })?;
    let owners = managers(&found);
    ensure!(owners.iter().any(|owner| owner == OURS), "it was written by {owners:?}");
    Ok(())
}

/// Who wrote to an object, as the API server keeps it.
fn managers(service: &Object) -> Vec<String> {
    let fields = service.metadata.managed_fields.iter().flatten();
    fields.filter_map(|entry| entry.manager.clone()).collect()
}

fn api(lab: &Lab, work: impl AsyncFnOnce(Api<Object>) -> Result<()> + Send) -> Result<()> {
    lab.api(async |client| work(Api::default_namespaced(client)).await)
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

fn errors(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")
}
