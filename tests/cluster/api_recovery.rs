//! Return of the API server: expired watches are listed again, missed changes are processed, and
//! nothing else is written.

use crate::metrics::metric;
use crate::pools::pool;
use crate::scenario::{print_measured, run_scenario, step, without_proxy};
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::bench::services as bench;
use ferrolb_lab::cluster::api;
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

/// Number of Services, and of the addresses in the pool.
const SERVICES: usize = 25;
const ADDRESSES: usize = 20;
const POOL: &str = "172.31.0.0-172.31.0.19";
/// A lease that outlasts the restart of the API server, so that the leader's watches themselves
/// receive the error "expired". The longer outage ends it.
const LEASE: [&str; 6] =
    ["--lease-duration", "40s", "--lease-renew-deadline", "30s", "--lease-retry", "2s"];
/// Length of the outage.
const OUTAGE: Duration = Duration::from_secs(60);
/// Maximum time until pending work is done after the API server returns: the longest backoff is 20
/// s.
const BACK_MAX: Duration = Duration::from_secs(40);
/// Time in which nothing may change after the expected state is reached.
const QUIET: Duration = Duration::from_secs(3);
/// Maximum number of writes to a server that does not reply: after 0.2 s, 0.4 s ... every 10 s for
/// each of two objects, while the lease lasts.
const WRITES_IN_VAIN_MAX: f64 = 20.0;
/// Maximum number of writes after the outage: the Service that gets the free address, its condition
/// "not announced", and the pool's counts with and without the deleted Service. Each may be
/// repeated once if its first attempt used a broken connection.
const WRITES_AFTER_MAX: f64 = 8.0;
/// Message of the API server for an expired resourceVersion (HTTP status 410).
const EXPIRED: &str = "too old resource version";

#[test]
fn after_an_api_outage_missed_changes_are_processed_and_nothing_else_is_written() {
    run_scenario(&without_proxy("back"), |lab| {
        lab.install_ferrolb()?;
        lab.apply_objects(&[pool("few", &[POOL])])?;
        lab.start_controller(&[&LEASE[..], &["--log-level", "debug"]].concat())?;
        step("more Services than addresses: some wait", || {
            lab.api(async |client| bench::post_all(&client, "few", SERVICES, &bench::V4).await)?;
            settled(lab).map(drop)
        })?;
        step(
            "a restart that the controller sleeps through: its watches have expired, and what it missed is made good",
            || {
                let before = settled(lab)?;
                let gone = restarted(lab, &before)?;
                processed(lab, "restart", &before, &gone)?;
                let expired = lab
                    .logs(CONTROLLER)
                    .lines()
                    .any(|line| line.contains(EXPIRED) && line.contains("Services"));
                ensure!(expired, "no watch of Services received \"{EXPIRED}\"");
                Ok(())
            },
        )?;
        step("a minute without an API server, and what happened just before is made good", || {
            let before = settled(lab)?;
            let missed = minute_without(lab, &before)?;
            processed(lab, "outage", &before, &missed)
        })
    });
}

/// State of the Services: addresses and resourceVersion by name.
type ServiceStates = BTreeMap<String, (Vec<IpAddr>, String)>;

/// Waits until all addresses are assigned, each Service without an address reports it, and each
/// Service with one reports why it is not announced.
fn settled(lab: &Lab) -> Result<ServiceStates> {
    wait::until("all addresses are given, and who has none says so", BACK_MAX, || {
        let ours = ListParams::default().labels("bench");
        let all = lab.api(async |client| {
            Ok(Api::<Service>::default_namespaced(client).list(&ours).await?.items)
        })?;
        let (have, lack): (Vec<&Service>, Vec<&Service>) =
            all.iter().partition(|service| !services::addresses(service).is_empty());
        let says = |service: &Service, kind: &str| services::condition(service, kind).is_some();
        let silent = lack.iter().filter(|service| !says(service, ADDRESS_ASSIGNED)).count()
            + have.iter().filter(|service| !says(service, ANNOUNCED)).count();
        ensure!(
            have.len() == ADDRESSES && silent == 0,
            "{} Services have an address, {silent} have no condition",
            have.len()
        );
        let known = |service: &Service| {
            Ok((service.name_any(), (services::addresses(service), services::version(service)?)))
        };
        all.iter().map(known).collect::<Result<_>>().map(Some)
    })
}

/// Change that the controller could not process during the outage.
struct MissedChange {
    /// Name of the deleted Service. It had an address.
    deleted: String,
    /// Numbers of writes before the API server returned.
    counts: WriteCounts,
}

/// Restarts the API server while the controller is stopped (SIGSTOP), then deletes a Service.
fn restarted(lab: &Lab, before: &ServiceStates) -> Result<MissedChange> {
    let (gone, counts) = (assigned_service(before)?, WriteCounts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    advance_version(lab, "before-the-restart")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    start_again(lab)?;
    services::delete(lab, &gone)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    Ok(MissedChange { deleted: gone, counts })
}

/// Stops the API server for a minute. A Service is deleted just before, so the controller receives
/// the event when no write can succeed.
fn minute_without(lab: &Lab, before: &ServiceStates) -> Result<MissedChange> {
    let (gone, counts) = (assigned_service(before)?, WriteCounts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    services::delete(lab, &gone)?;
    advance_version(lab, "before-the-outage")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    wait::during(OUTAGE, || lab.pid(CONTROLLER).map(drop))?;
    let now = WriteCounts::now(lab)?;
    let vain = now.since(&counts);
    print_measured(&format!(
        "{OUTAGE:?} without an API server: {} writes, {} of them in vain",
        vain.writes, vain.errors
    ));
    ensure!(vain.writes <= WRITES_IN_VAIN_MAX, "{} writes during the outage", vain.writes);
    start_again(lab)?;
    Ok(MissedChange { deleted: gone, counts: now })
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

fn start_again(lab: &Lab) -> Result<()> {
    lab.restart("kube-apiserver")?;
    lab.api(async |client| api::wait_ready(&client).await)
}

fn assigned_service(picture: &ServiceStates) -> Result<String> {
    let has = picture.iter().find(|(_, (addresses, _))| !addresses.is_empty());
    has.map(|(name, _)| name.clone()).context("no Service has an address")
}

/// Checks that a waiting Service soon gets the address of the deleted one, and that all other
/// objects are unchanged.
fn processed(lab: &Lab, what: &str, before: &ServiceStates, missed: &MissedChange) -> Result<()> {
    let back = wait::now();
    let after = settled(lab)?;
    let taken = back.elapsed();
    wait::during(QUIET, || {
        let now = settled(lab)?;
        ensure!(now == after, "it was {after:?} and is {now:?}");
        Ok(())
    })?;
    let changed = |(name, now): &(&String, _)| before.get(*name) != Some(*now);
    let written: Vec<&String> = after.iter().filter(changed).map(|(name, _)| name).collect();
    let [lucky] = written[..] else {
        bail!("changed Services: {written:?}; before: {before:?}, after: {after:?}")
    };
    let (free, given) = (&before[&missed.deleted].0, &after[lucky].0);
    ensure!(
        before[lucky].0.is_empty() && given == free,
        "{free:?} of {} became free, and {lucky} has {given:?}",
        missed.deleted
    );
    let done = WriteCounts::now(lab)?.since(&missed.counts);
    print_measured(&format!(
        "{what}: all as it should be {taken:?} after the API server was back; {} writes, {} of them in vain",
        done.writes, done.errors
    ));
    ensure!(done.writes <= WRITES_AFTER_MAX, "{} writes", done.writes);
    Ok(())
}

/// Counters of the controller: status writes, and those of them that failed or got no reply.
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
