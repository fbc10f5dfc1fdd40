//! An API server whose every answer takes two seconds: the controller leads, gives every Service its address, and writes no more than with a
//! fast one.

use crate::metrics::metric;
use crate::relay::Relay;
use crate::rival::{self, ITS_ADDRESS};
use crate::services::{self, service};
use crate::stage::{measured, play, step, without_proxy};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::bench::services as bench;
use ferrolb_tests::bench::stats::Spread;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, wait};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// How long each answer takes.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the controller may take from its start to the lease: some questions and answers, each on a new connection.
const OFFICE_MAX: Duration = Duration::from_secs(30);
/// Services that are created together.
const SERVICES: usize = 200;
/// Writes for each Service: its address, and from where it is announced or why not. The pool's counts are written, too.
const WRITES_EACH_MAX: f64 = 3.0;
/// How long the last write and its answer may take.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// How long nothing may be written once all is served; the last answers and the pool's counts come before.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn with_an_api_server_that_answers_after_two_seconds_each_service_takes_about_two_writes() {
    play(&without_proxy("slow"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(bench::POOL)?;
        let _relay = Relay::before_api(lab, ANSWER)?;
        lab.apply_objects(&[service("contested", json!({}))])?;
        lab.api(async |client| rival::claim(&Api::default_namespaced(client), "contested").await)?;
        let start = wait::now();
        step("the controller takes the lease", || {
            lab.start_controller(&[])?;
            wait::until("it leads", OFFICE_MAX, || {
                Ok((metric(lab, CONTROL_PLANE, "ferrolb_controller_leader")? > 0.0).then_some(()))
            })
        })?;
        measured(&format!("answers after {ANSWER:?}: the controller leads after {:?}", start.elapsed()));
        let before = lease(lab)?;
        step("a Service whose addresses somebody else has written is put right at once, in three requests", || {
            contested(lab)
        })?;
        step("all Services get their address", || serve(lab))?;
        step("then nothing more is written", || {
            let settled = wait::until("the last counts", SETTLED_MAX, || {
                let first = writes(lab)?;
                wait::during(QUIET, || writes(lab).map(drop))?;
                Ok((writes(lab)? <= first).then_some(first))
            })?;
            ensure!(settled <= WRITES_EACH_MAX * SERVICES as f64, "{settled} writes for {SERVICES} Services");
            let errors = errors(lab)?;
            measured(&format!(
                "answers after {ANSWER:?}: {settled} writes for {SERVICES} Services, {errors} of them in vain"
            ));
            Ok(())
        })?;
        step("the lease was never lost", || {
            let now = lease(lab)?;
            ensure!(now == before, "the holder and how often it changed were {before:?} and are {now:?}");
            Ok(())
        })
    });
}

/// Waits until a Service that somebody has claimed has an address of ours, and nothing was written in vain for it.
fn contested(lab: &Lab) -> Result<()> {
    let its: IpAddr = ITS_ADDRESS.parse()?;
    services::wait_for(lab, "contested", "an address of ours", |service| {
        let has = services::addresses(service);
        (!has.is_empty() && !has.contains(&its)).then_some(())
    })?;
    let errors = errors(lab)?;
    ensure!(errors < 1.0, "{errors} writes were in vain");
    Ok(())
}

fn serve(lab: &Lab) -> Result<()> {
    let (before, start) = (writes(lab)?, wait::now());
    let assigned = lab.api(async |client| bench::create(&client, "slow", SERVICES, &bench::V4).await)?;
    let (taken, done) = (start.elapsed(), writes(lab)? - before);
    let times: Vec<f64> = assigned.iter().map(|it| it.address_ms()).collect();
    let spread = Spread::of(&times).context("no Service was created")?;
    measured(&format!(
        "answers after {ANSWER:?}: {SERVICES} Services have an address after {taken:?}, by {:.1} writes per second; each after {:.0} ms (median), {:.0} ms (99 %)",
        done / taken.as_secs_f64(),
        spread.median,
        spread.p99,
    ));
    Ok(())
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

fn errors(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")
}

/// Who holds the lease, and how often that changed.
fn lease(lab: &Lab) -> Result<(Option<String>, Option<i32>)> {
    lab.api(async |client| {
        let lease = Api::<Lease>::namespaced(client, NAMESPACE).get("ferrolb-controller").await?;
        let spec = lease.spec.context("a Lease has a spec")?;
        Ok((spec.holder_identity, spec.lease_transitions))
    })
}
