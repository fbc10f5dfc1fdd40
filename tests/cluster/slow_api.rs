//! An API server whose every reply takes two seconds: the controller becomes the leader, assigns
//! every Service its address, and writes no more than with a fast one.

use crate::metrics::metric;
use crate::other_field_manager::{self, OTHER_ADDRESS};
use crate::relay::Relay;
use crate::scenario::{print_measured, run_scenario, step, without_proxy};
use crate::services::{self, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::services as bench;
use ferrolb_lab::bench::stats::Spread;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// Delay of each reply.
const REPLY_DELAY: Duration = Duration::from_secs(2);
/// Maximum time from the controller's start to its lease: some requests, each on a new connection.
const LEADING_MAX: Duration = Duration::from_secs(30);
/// Number of Services that are created together.
const SERVICES: usize = 200;
/// Maximum number of writes per Service: its address, and the condition about its announcement. The
/// pool's counts are written too.
const WRITES_EACH_MAX: f64 = 3.0;
/// Maximum time until the last write and its reply.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// Time in which nothing may be written after all Services are served and the last replies and pool
/// counts are written.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn with_an_api_server_delay_of_two_seconds_each_service_takes_about_two_writes() {
    run_scenario(&without_proxy("slow"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(bench::POOL)?;
        let _relay = Relay::before_api(lab, REPLY_DELAY)?;
        lab.apply_objects(&[service("contested", json!({}))])?;
        lab.api(async |client| {
            other_field_manager::claim_addresses(&Api::default_namespaced(client), "contested")
                .await
        })?;
        let start = wait::now();
        step("the controller takes the lease", || {
            lab.start_controller(&[])?;
            wait::until("it leads", LEADING_MAX, || {
                Ok((metric(lab, CONTROL_PLANE, "ferrolb_controller_leader")? > 0.0).then_some(()))
            })
        })?;
        print_measured(&format!(
            "answers after {REPLY_DELAY:?}: the controller leads after {:?}",
            start.elapsed()
        ));
        let before = lease(lab)?;
        step(
            "a Service whose addresses somebody else has written is put right at once, in three requests",
            || contested(lab),
        )?;
        step("all Services get their address", || serve(lab))?;
        step("then nothing more is written", || {
            let settled = wait::until("the last counts", SETTLED_MAX, || {
                let first = writes(lab)?;
                wait::during(QUIET, || writes(lab).map(drop))?;
                Ok((writes(lab)? <= first).then_some(first))
            })?;
            ensure!(
                settled <= WRITES_EACH_MAX * SERVICES as f64,
                "{settled} writes for {SERVICES} Services"
            );
            let errors = errors(lab)?;
            print_measured(&format!(
                "answers after {REPLY_DELAY:?}: {settled} writes for {SERVICES} Services, {errors} of them in vain"
            ));
            Ok(())
        })?;
        step("the lease was never lost", || {
            let now = lease(lab)?;
            ensure!(
                now == before,
                "holder and transitions of the lease changed from {before:?} to {now:?}"
            );
            Ok(())
        })
    });
}

/// Waits until a Service that another manager has claimed has an address of FerroLB, and checks
/// that no write failed.
fn contested(lab: &Lab) -> Result<()> {
    let its: IpAddr = OTHER_ADDRESS.parse()?;
    services::wait_for(lab, "contested", "an address of ours", |service| {
        let has = services::addresses(service);
        (!has.is_empty() && !has.contains(&its)).then_some(())
    })?;
    let errors = errors(lab)?;
    ensure!(errors < 1.0, "{errors} writes failed");
    Ok(())
}

fn serve(lab: &Lab) -> Result<()> {
    let (before, start) = (writes(lab)?, wait::now());
    let assigned =
        lab.api(async |client| bench::create(&client, "slow", SERVICES, &bench::V4).await)?;
    let (taken, done) = (start.elapsed(), writes(lab)? - before);
    let times: Vec<f64> = assigned.iter().map(|it| it.address_ms()).collect();
    let spread = Spread::of(&times).context("no Service was created")?;
    print_measured(&format!(
        "answers after {REPLY_DELAY:?}: {SERVICES} Services have an address after {taken:?}, by {:.1} writes per second; each after {:.0} ms (median), {:.0} ms (99 %)",
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

/// Returns the holder of the lease, and the number of its transitions.
fn lease(lab: &Lab) -> Result<(Option<String>, Option<i32>)> {
    lab.api(async |client| {
        let lease = Api::<Lease>::namespaced(client, NAMESPACE).get("ferrolb-controller").await?;
        let spec = lease.spec.context("a Lease has a spec")?;
        Ok((spec.holder_identity, spec.lease_transitions))
    })
}
