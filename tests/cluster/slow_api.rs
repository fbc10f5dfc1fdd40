//! An API server with a delay of two seconds for every reply: the controller becomes the leader,
//! assigns an address to every Service, and writes no more often than without the delay.

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
use ferrolb_proto::api::{LOAD_BALANCER_CLASS, NAMESPACE};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// Delay of each reply of the API server to the controller.
const REPLY_DELAY: Duration = Duration::from_secs(2);
/// Maximum time from the controller's start until it has the leader lease, which takes some
/// requests, each on a new connection.
const LEADING_MAX: Duration = Duration::from_secs(30);
/// Number of Services that are created together.
const SERVICES: usize = 200;
/// Maximum number of writes per Service: one for its address, one for the condition `Announced`,
/// and a share of the writes of the pool's counts.
const WRITES_PER_SERVICE_MAX: f64 = 3.0;
/// Maximum time until the controller has written everything.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// Time without a write after which the controller has written everything.
const QUIET: Duration = Duration::from_secs(5);

#[test]
fn a_slow_api_server_causes_no_additional_writes() {
    run_scenario(&without_proxy("slow"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(bench::POOL)?;
        let _relay = Relay::before_api(lab, REPLY_DELAY)?;
        // The class makes the Service FerroLB's, whoever has written its address.
        let class = json!({"loadBalancerClass": LOAD_BALANCER_CLASS});
        lab.apply_objects(&[service("corrected", class)])?;
        lab.api(async |client| {
            other_field_manager::write_addresses(&Api::default_namespaced(client), "corrected")
                .await
        })?;
        let start = wait::now();
        step("the controller takes the lease", || {
            lab.start_controller(&[])?;
            wait::until("the controller is the leader", LEADING_MAX, || {
                Ok((metric(lab, CONTROL_PLANE, "ferrolb_controller_leader")? > 0.0).then_some(()))
            })
        })?;
        print_measured(&format!(
            "reply delay {REPLY_DELAY:?}: the controller leads after {:?}",
            start.elapsed()
        ));
        let before = lease(lab)?;
        step(
            "the addresses that another controller wrote to a Service are corrected without an error",
            || wait_corrected(lab),
        )?;
        step("all Services get an address", || create_services(lab))?;
        step("the controller writes each Service at most three times on average", || {
            let settled = wait::until("the controller writes nothing more", SETTLED_MAX, || {
                let first = writes(lab)?;
                wait::during(QUIET, || writes(lab).map(drop))?;
                Ok((writes(lab)? <= first).then_some(first))
            })?;
            ensure!(
                settled <= WRITES_PER_SERVICE_MAX * SERVICES as f64,
                "{settled} writes for {SERVICES} Services"
            );
            let errors = errors(lab)?;
            print_measured(&format!(
                "reply delay {REPLY_DELAY:?}: {settled} writes for {SERVICES} Services, {errors} of them failed"
            ));
            Ok(())
        })?;
        step("the controller has never lost the lease", || {
            let now = lease(lab)?;
            ensure!(
                now == before,
                "holderIdentity and leaseTransitions changed from {before:?} to {now:?}"
            );
            Ok(())
        })
    });
}

/// Waits until the Service whose address another field manager has written has an address from
/// FerroLB's pool instead, and checks that no write of FerroLB failed.
fn wait_corrected(lab: &Lab) -> Result<()> {
    let foreign: IpAddr = OTHER_ADDRESS.parse()?;
    services::wait_for(lab, "corrected", "an address from FerroLB's pool", |service| {
        let addresses = services::addresses(service);
        (!addresses.is_empty() && !addresses.contains(&foreign)).then_some(())
    })?;
    let errors = errors(lab)?;
    ensure!(errors < 1.0, "{errors} writes failed");
    Ok(())
}

fn create_services(lab: &Lab) -> Result<()> {
    let (before, start) = (writes(lab)?, wait::now());
    let assigned =
        lab.api(async |client| bench::create(&client, "slow", SERVICES, &bench::V4).await)?;
    let (took, written) = (start.elapsed(), writes(lab)? - before);
    let times: Vec<f64> = assigned.iter().map(|service| service.address_ms()).collect();
    let spread = Spread::of(&times).context("no Service was created")?;
    print_measured(&format!(
        "reply delay {REPLY_DELAY:?}: {SERVICES} Services have an address after {took:?}, {:.1} writes per second; each after {:.0} ms (median), {:.0} ms (99 %)",
        written / took.as_secs_f64(),
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

/// Returns the holder of the leader lease, and the number of changes of the holder.
fn lease(lab: &Lab) -> Result<(Option<String>, Option<i32>)> {
    lab.api(async |client| {
        let lease = Api::<Lease>::namespaced(client, NAMESPACE).get("ferrolb-controller").await?;
        let spec = lease.spec.context("the Lease has no spec")?;
        Ok((spec.holder_identity, spec.lease_transitions))
    })
}
