//! Return of the API server: the controller lists the objects of expired watches again, processes
//! the changes that it missed, and writes nothing else.

use crate::metrics::metric;
use crate::pools::pool;
use crate::scenario::{print_measured, run_scenario, step, without_proxy};
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::bench::services as bench;
use ferrolb_lab::cluster::ferrolb::CONTROLLER;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Signal, wait};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Number of Services, and number of addresses in the pool.
const SERVICES: usize = 25;
const ADDRESSES: usize = 20;
const POOL: &str = "172.31.0.0-172.31.0.19";
/// Flags of a leader lease that outlasts the restart of the API server, so that the same leader's
/// watches receive the error "expired". The lease ends during [`OUTAGE`].
const LEASE_FLAGS: [&str; 6] =
    ["--lease-duration", "40s", "--lease-renew-deadline", "30s", "--lease-retry", "2s"];
/// Length of the API server's outage in the second step. In the first step it only restarts.
const OUTAGE: Duration = Duration::from_secs(60);
/// Maximum time from the return of the API server to the end of all pending work: the longest
/// backoff is 20 s.
const RECOVERY_MAX: Duration = Duration::from_secs(40);
/// Time in which nothing may change after the expected state is reached.
const QUIET: Duration = Duration::from_secs(3);
/// Maximum number of attempted writes during the outage. Until the lease ends, the controller
/// repeats the writes of two objects after 0.2 s, 0.4 s and so on, and later every 10 s.
const OUTAGE_WRITES_MAX: f64 = 20.0;
/// Maximum number of writes after the outage: the Service that gets the free address, its condition
/// "not announced", and the pool's counts with and without the deleted Service. Each may be
/// repeated once if its first attempt used a broken connection.
const RECOVERY_WRITES_MAX: f64 = 8.0;
/// Message of the API server for an expired resourceVersion (HTTP status 410).
const EXPIRED: &str = "too old resource version";

#[test]
fn after_an_api_outage_only_missed_changes_are_written() {
    run_scenario(&without_proxy("apirecovery"), |lab| {
        lab.install_ferrolb()?;
        lab.apply_objects(&[pool("few", &[POOL])])?;
        lab.start_controller(&[&LEASE_FLAGS[..], &["--log-level", "debug"]].concat())?;
        step("there are more Services than addresses, so some Services wait", || {
            lab.api(async |client| bench::post_all(&client, "few", SERVICES, &bench::V4).await)?;
            wait_settled(lab).map(drop)
        })?;
        step(
            "the API server restarts while the controller is stopped: expired watches are listed again",
            || {
                let before = wait_settled(lab)?;
                let missed = restart_api_server(lab, &before)?;
                check_recovery(lab, "restart", &before, &missed)?;
                let expired = lab
                    .logs(CONTROLLER)
                    .lines()
                    .any(|line| line.contains(EXPIRED) && line.contains("Services"));
                ensure!(expired, "no watch of Services received \"{EXPIRED}\"");
                Ok(())
            },
        )?;
        step(
            "the API server is down for a minute: the change before the outage is processed",
            || {
                let before = wait_settled(lab)?;
                let missed = interrupt_api_server(lab, &before)?;
                check_recovery(lab, "outage", &before, &missed)
            },
        )
    });
}

/// Addresses and resourceVersion of each Service, by the name of the Service.
type ServiceStates = BTreeMap<String, (Vec<IpAddr>, String)>;

/// Waits until all addresses are assigned, the condition of each Service without an address reports
/// this, and the condition of each other Service reports why its address is not announced.
fn wait_settled(lab: &Lab) -> Result<ServiceStates> {
    wait::until(
        "every Service has an address or a condition that reports why not",
        RECOVERY_MAX,
        || {
            let params = ListParams::default().labels("bench");
            let all = lab.api(async |client| {
                Ok(Api::<Service>::default_namespaced(client).list(&params).await?.items)
            })?;
            let (assigned, waiting): (Vec<&Service>, Vec<&Service>) =
                all.iter().partition(|service| !services::addresses(service).is_empty());
            let has_condition =
                |service: &Service, kind: &str| services::condition(service, kind).is_some();
            let unreported =
                waiting.iter().filter(|service| !has_condition(service, ADDRESS_ASSIGNED)).count()
                    + assigned.iter().filter(|service| !has_condition(service, ANNOUNCED)).count();
            ensure!(
                assigned.len() == ADDRESSES && unreported == 0,
                "{} Services have an address, {unreported} have no condition",
                assigned.len()
            );
            let state = |service: &Service| {
                Ok((
                    service.name_any(),
                    (services::addresses(service), services::version(service)?),
                ))
            };
            all.iter().map(state).collect::<Result<_>>().map(Some)
        },
    )
}

/// Deletion of a Service that the controller could not process during the outage.
struct MissedChange {
    /// Name of the deleted Service, which had an address.
    deleted: String,
    /// Counters of the controller before the API server returned.
    counts: WriteCounts,
}

/// Restarts the API server while the controller is stopped (SIGSTOP), then deletes a Service.
fn restart_api_server(lab: &Lab, before: &ServiceStates) -> Result<MissedChange> {
    let (deleted, counts) = (assigned_service(before)?, WriteCounts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    advance_version(lab, "before-the-restart")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    start_api_server(lab)?;
    services::delete(lab, &deleted)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    Ok(MissedChange { deleted, counts })
}

/// Stops the API server for a minute. A Service is deleted just before, so the controller receives
/// the watch event when no write can succeed.
fn interrupt_api_server(lab: &Lab, before: &ServiceStates) -> Result<MissedChange> {
    let (deleted, counts) = (assigned_service(before)?, WriteCounts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    services::delete(lab, &deleted)?;
    advance_version(lab, "before-the-outage")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    wait::during(OUTAGE, || lab.pid(CONTROLLER).map(drop))?;
    let now = WriteCounts::now(lab)?;
    let outage = now.since(&counts);
    print_measured(&format!(
        "{OUTAGE:?} without an API server: {} writes, {} of them failed",
        outage.writes, outage.errors
    ));
    ensure!(outage.writes <= OUTAGE_WRITES_MAX, "{} writes during the outage", outage.writes);
    start_api_server(lab)?;
    Ok(MissedChange { deleted, counts: now })
}

/// Writes an unrelated object, so that the cluster's resourceVersion advances.
fn advance_version(lab: &Lab, name: &str) -> Result<()> {
    lab.api(async |client| {
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::<ConfigMap>::default_namespaced(client)
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    })
}

/// Starts the API server and waits until it is ready.
fn start_api_server(lab: &Lab) -> Result<()> {
    lab.restart("kube-apiserver")?;
    lab.wait_api_ready()
}

/// Returns the name of a Service with an address.
fn assigned_service(states: &ServiceStates) -> Result<String> {
    let found = states.iter().find(|(_, (addresses, _))| !addresses.is_empty());
    found.map(|(name, _)| name.clone()).context("no Service has an address")
}

/// Checks that a waiting Service gets the address of the deleted Service, and that all other
/// Services are unchanged.
fn check_recovery(
    lab: &Lab,
    what: &str,
    before: &ServiceStates,
    missed: &MissedChange,
) -> Result<()> {
    let start = wait::now();
    let after = wait_settled(lab)?;
    let took = start.elapsed();
    wait::during(QUIET, || {
        let now = wait_settled(lab)?;
        ensure!(now == after, "the Services changed from {after:?} to {now:?}");
        Ok(())
    })?;
    let changed = |(name, now): &(&String, _)| before.get(*name) != Some(*now);
    let written: Vec<&String> = after.iter().filter(changed).map(|(name, _)| name).collect();
    let [receiver] = written[..] else {
        bail!("not exactly one Service changed: {written:?}; before: {before:?}, after: {after:?}")
    };
    let (freed, assigned) = (&before[&missed.deleted].0, &after[receiver].0);
    ensure!(
        before[receiver].0.is_empty() && assigned == freed,
        "{freed:?} of {} became free, and {receiver} has {assigned:?}",
        missed.deleted
    );
    let counts = WriteCounts::now(lab)?.since(&missed.counts);
    print_measured(&format!(
        "{what}: all changes processed {took:?} after the API server returned; {} writes, {} of them failed",
        counts.writes, counts.errors
    ));
    ensure!(counts.writes <= RECOVERY_WRITES_MAX, "{} writes after the outage", counts.writes);
    Ok(())
}

/// Numbers of the controller's attempted and failed status writes.
struct WriteCounts {
    writes: f64,
    errors: f64,
}

impl WriteCounts {
    fn now(lab: &Lab) -> Result<Self> {
        let count =
            |name: &str| metric(lab, CONTROL_PLANE, &format!("ferrolb_controller_{name}_total"));
        Ok(Self { writes: count("writes")?, errors: count("write_errors")? })
    }

    fn since(&self, before: &Self) -> Self {
        Self { writes: self.writes - before.writes, errors: self.errors - before.errors }
    }
}
