//! The API server goes and comes back: what it has forgotten is listed anew, what happened meanwhile is made good, and nothing else is
//! written.

use crate::metrics::metric;
use crate::pools::pool;
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED};
use crate::stage::{measured, play, step, without_proxy};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_tests::bench::services as bench;
use ferrolb_tests::cluster::api;
use ferrolb_tests::cluster::ferrolb::CONTROLLER;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, Signal, wait};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Services, and the addresses that there are for them.
const SERVICES: usize = 25;
const ADDRESSES: usize = 20;
const POOL: &str = "172.31.0.0-172.31.0.19";
/// A lease that outlasts the API server's restart, so that the watches are told themselves that they are too old; it is lost in the outage.
const LEASE: [&str; 6] = ["--lease-duration", "40s", "--lease-renew-deadline", "30s", "--lease-retry", "2s"];
/// How long the API server is gone.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long what waits may take once the API server is back: the longest wait between two tries is 20 s.
const BACK_MAX: Duration = Duration::from_secs(40);
/// How long nothing may change once all is as it should be.
const QUIET: Duration = Duration::from_secs(3);
/// Writes to a server that does not answer: after 0.2 s, 0.4 s ... every 10 s for each of two objects, while the lease lasts.
const WRITES_IN_VAIN_MAX: f64 = 20.0;
/// Writes after that: the Service that gets what is free, then that it is not announced, and the pool's counts, without it and with it; each
/// once more if its first try met a connection that was dead.
const WRITES_AFTER_MAX: f64 = 8.0;
/// What the API server says of a version that it no longer knows, HTTP status 410.
const EXPIRED: &str = "too old resource version";

#[test]
fn an_api_server_that_comes_back_finds_what_changed_made_good_and_nothing_else_written() {
    play(&without_proxy("back"), |lab| {
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
                made_good(lab, "restart", &before, &gone)?;
                let expired =
                    lab.logs(CONTROLLER).lines().any(|line| line.contains(EXPIRED) && line.contains("Services"));
                ensure!(expired, "no watch of Services was told \"{EXPIRED}\"");
                Ok(())
            },
        )?;
        step("a minute without an API server, and what happened just before is made good", || {
            let before = settled(lab)?;
            let missed = minute_without(lab, &before)?;
            made_good(lab, "outage", &before, &missed)
        })
    });
}

/// The Services as they are: what each one has, and its resourceVersion.
type Picture = BTreeMap<String, (Vec<IpAddr>, String)>;

/// Waits until all addresses are given, each Service that has none says so, and each that has one says why it is not announced.
fn settled(lab: &Lab) -> Result<Picture> {
    wait::until("all addresses are given, and who has none says so", BACK_MAX, || {
        let ours = ListParams::default().labels("bench");
        let all = lab.api(async |client| Ok(Api::<Service>::default_namespaced(client).list(&ours).await?.items))?;
        let (have, lack): (Vec<&Service>, Vec<&Service>) =
            all.iter().partition(|service| !services::addresses(service).is_empty());
        let says = |service: &Service, kind: &str| services::condition(service, kind).is_some();
        let silent = lack.iter().filter(|service| !says(service, ADDRESS_ASSIGNED)).count()
            + have.iter().filter(|service| !says(service, ANNOUNCED)).count();
        ensure!(have.len() == ADDRESSES && silent == 0, "{} have an address, {silent} say nothing", have.len());
        let known =
            |service: &Service| Ok((service.name_any(), (services::addresses(service), services::version(service)?)));
        all.iter().map(known).collect::<Result<_>>().map(Some)
    })
}

/// What the controller could not do while there was no API server.
struct Missed {
    /// The Service that was deleted: it had an address.
    gone: String,
    /// What had been written until then.
    counts: Counts,
}

/// Restarts the API server while the controller sleeps, and deletes a Service after that.
fn restarted(lab: &Lab, before: &Picture) -> Result<Missed> {
    let (gone, counts) = (one_that_has(before)?, Counts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    move_on(lab, "before-the-restart")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    start_again(lab)?;
    services::delete(lab, &gone)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    Ok(Missed { gone, counts })
}

/// A minute without an API server. A Service is deleted just before: when the controller hears of it, there is nobody left to write to.
fn minute_without(lab: &Lab, before: &Picture) -> Result<Missed> {
    let (gone, counts) = (one_that_has(before)?, Counts::now(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    services::delete(lab, &gone)?;
    move_on(lab, "before-the-outage")?;
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    wait::during(OUTAGE, || lab.pid(CONTROLLER).map(drop))?;
    let now = Counts::now(lab)?;
    let vain = now.since(&counts);
    measured(&format!("{OUTAGE:?} without an API server: {} writes, {} of them in vain", vain.writes, vain.errors));
    ensure!(vain.writes <= WRITES_IN_VAIN_MAX, "{} writes to a server that is not there", vain.writes);
    start_again(lab)?;
    Ok(Missed { gone, counts: now })
}

/// Writes an object that is nobody's business, so that the cluster's version goes on.
fn move_on(lab: &Lab, name: &str) -> Result<()> {
    lab.api(async |client| {
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        Api::<ConfigMap>::default_namespaced(client).create(&PostParams::default(), &object).await?;
        Ok(())
    })
}

fn start_again(lab: &Lab) -> Result<()> {
    lab.restart("kube-apiserver")?;
    lab.api(async |client| api::wait_ready(&client).await)
}

fn one_that_has(picture: &Picture) -> Result<String> {
    let has = picture.iter().find(|(_, (addresses, _))| !addresses.is_empty());
    has.map(|(name, _)| name.clone()).context("no Service has an address")
}

/// The address of the Service that is gone is given to one that waited, and soon; all others are the very same objects as before.
fn made_good(lab: &Lab, what: &str, before: &Picture, missed: &Missed) -> Result<()> {
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
    let [lucky] = written[..] else { bail!("these were written: {written:?}; before: {before:?}, after: {after:?}") };
    let (free, given) = (&before[&missed.gone].0, &after[lucky].0);
    ensure!(before[lucky].0.is_empty() && given == free, "{} had {free:?}, and {lucky} has {given:?}", missed.gone);
    let done = Counts::now(lab)?.since(&missed.counts);
    measured(&format!(
        "{what}: all as it should be {taken:?} after the API server was back; {} writes, {} of them in vain",
        done.writes, done.errors
    ));
    ensure!(done.writes <= WRITES_AFTER_MAX, "{} writes", done.writes);
    Ok(())
}

/// What the controller has counted: statuses that it sent, and those of them that were refused or not answered.
struct Counts {
    writes: f64,
    errors: f64,
}

impl Counts {
    fn now(lab: &Lab) -> Result<Self> {
        let count = |name: &str| metric(lab, CONTROL_PLANE, &format!("ferrolb_controller_{name}_total"));
        Ok(Self { writes: count("writes")?, errors: count("write_errors")? })
    }

    fn since(&self, before: &Self) -> Self {
        Self { writes: self.writes - before.writes, errors: self.errors - before.errors }
    }
}
