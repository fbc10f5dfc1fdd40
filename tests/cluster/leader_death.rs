//! Two controllers, and the one that writes dies while a thousand Services are created: the other goes on, and every Service gets one
//! address, once.

use crate::ledger::Ledger;
use crate::metrics::metric_at;
use crate::pools::BRINGING_MAX;
use crate::stage::{measured, play, step, without_proxy};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::bench::services;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, Signal, wait};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ListParams};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Services that are created together.
const SERVICES: usize = 1000;
/// The leader dies when so many of them have an address.
const GIVEN_AT_DEATH: usize = 300;
/// How long all of it may take: on a busy machine the API server needs most of that for the creations.
const ALL_MAX: Duration = Duration::from_secs(120);
/// A lease that a leader keeps although the API server stands still for some seconds, as among a thousand creations it may.
const LEASE: [&str; 6] = ["--lease-duration", "9s", "--lease-renew-deadline", "7s", "--lease-retry", "500ms"];
/// How long the last address may take after the last creation, also when all are created before the follower writes.
const LAST_ADDRESS_MAX: Duration = Duration::from_secs(40);
/// How long nothing may change after that.
const QUIET: Duration = Duration::from_secs(2);
/// After so long without a renewal the leader itself writes no more, and nobody else does before: see [`LEASE`].
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Three times the lease and the interval at which the follower looks at it: see [`LEASE`].
const KILLED_GAP_MAX: Duration = Duration::from_secs(29);
/// A leader that stops gives the lease back: the follower finds that at its next look, every 500 ms, and writes. Three times what both take.
const STOPPED_GAP_MAX: Duration = Duration::from_secs(4);

/// Both controllers run on one host, so each has ports of its own.
const PROBES_ABOVE_ADMIN: u16 = 100;

/// A controller of the lab.
struct Replica {
    process: &'static str,
    port: u16,
}

const FIRST: Replica = Replica { process: "controller", port: 7472 };
const SECOND: Replica = Replica { process: "controller-second", port: 7473 };

impl Replica {
    fn start(&self, lab: &Lab) -> Result<()> {
        let admin = format!("--admin-listen=0.0.0.0:{}", self.port);
        let probes = format!("--probe-listen=127.0.0.1:{}", self.port + PROBES_ABOVE_ADMIN);
        lab.start_controller_named(self.process, &[&LEASE[..], &[&admin, &probes]].concat())
    }

    fn metric(&self, lab: &Lab, name: &str) -> Result<f64> {
        metric_at(lab, SocketAddr::new(lab.address(CONTROL_PLANE)?, self.port), name)
    }

    fn wait_ready(&self, lab: &Lab) -> Result<()> {
        lab.wait_healthy(self.process, CONTROL_PLANE, self.port, "/readyz")
    }

    fn wait_leading(&self, lab: &Lab) -> Result<()> {
        wait::until(&format!("{} leads", self.process), BRINGING_MAX, || {
            Ok((self.metric(lab, "ferrolb_controller_leader")? > 0.0).then_some(()))
        })
    }
}

#[test]
fn a_leader_that_dies_among_a_thousand_creations_loses_and_doubles_no_address() {
    play(&without_proxy("leader"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(services::POOL)?;
        step("two controllers, and the first leads", || {
            FIRST.start(lab)?;
            FIRST.wait_leading(lab)?;
            SECOND.start(lab)?;
            SECOND.wait_ready(lab)
        })?;
        step("the leader is killed among a thousand creations", || {
            let gap = succeed(lab, "killed", &FIRST, &SECOND, Signal::KILL)?;
            ensure!(gap >= SILENCE_MIN, "the follower wrote {gap:?} after the kill, when the lease was not over");
            ensure!(gap <= KILLED_GAP_MAX, "the follower wrote only {gap:?} after the kill");
            Ok(())
        })?;
        step("started again, it follows", || {
            lab.restart(FIRST.process)?;
            FIRST.wait_ready(lab)?;
            ensure!(FIRST.metric(lab, "ferrolb_controller_leader")? < 1.0, "it leads");
            Ok(())
        })?;
        step("the new leader is stopped among a thousand more", || {
            let gap = succeed(lab, "stopped", &SECOND, &FIRST, Signal::TERM)?;
            ensure!(gap <= STOPPED_GAP_MAX, "the follower wrote only {gap:?} after the leader was stopped");
            Ok(())
        })?;
        step("all two thousand have an address of their own", || {
            let mut ledger = Ledger::default();
            let all = lab.api(async |client| {
                Ok(Api::<Service>::default_namespaced(client).list(&ListParams::default().labels("bench")).await?)
            })?;
            all.iter().for_each(|service| ledger.note(service));
            ledger.check(2 * SERVICES)
        })
    });
}

/// Creates Services, ends the leader in the middle of it, and waits for all addresses. The answer is how long it took from the signal to the
/// first write of the follower.
fn succeed(lab: &Lab, batch: &str, leader: &Replica, follower: &Replica, signal: Signal) -> Result<Duration> {
    let writes = || follower.metric(lab, "ferrolb_controller_writes_total");
    let (before, start) = (writes()?, wait::now());
    let (midst, in_the_midst) = mpsc::channel();
    let (gap, (created, done)) = std::thread::scope(|scope| {
        let creation = scope.spawn(|| lab.api(async |client| create(&client, batch, midst).await));
        // Where there is no midst, the other thread has an error that says why.
        let gap = in_the_midst.recv().ok().map(|()| {
            let death = wait::now();
            lab.stop(leader.process, signal)?;
            wait::until("the follower writes", ALL_MAX, || Ok((writes()? > before).then(|| death.elapsed())))
        });
        let done = creation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, anyhow::Error>((gap.context("the leader was not ended")??, done))
    })?;
    measured(&format!(
        "leader {batch} among {SERVICES} creations: the follower writes after {gap:?} and {} times; all are created after {:?} and have an address after {:?}",
        writes()? - before,
        created - start,
        done - start,
    ));
    let late = done.saturating_duration_since(created);
    ensure!(late <= LAST_ADDRESS_MAX, "the last address came {late:?} after the last creation");
    Ok(gap)
}

/// Creates a batch of Services, tells when it is in the midst of it, and waits until each has its address and keeps it. The answer is when the
/// last one was created, and when the last one got it.
async fn create(client: &Client, batch: &str, midst: mpsc::Sender<()>) -> Result<(Instant, Instant)> {
    let mut events = services::Events::of(client, batch).await?;
    let (mut ledger, mut midst) = (Ledger::default(), Some(midst));
    let watched = async {
        while ledger.given() < SERVICES {
            ledger.note(&events.next().await?);
            if ledger.given() >= GIVEN_AT_DEATH
                && let Some(midst) = midst.take()
            {
                midst.send(())?;
            }
        }
        Ok(wait::now())
    };
    let all = futures::future::try_join(services::post_all(client, batch, SERVICES, &services::V4), watched);
    let ended = tokio::time::timeout(ALL_MAX, all).await;
    let given = ledger.given();
    let (created, done) =
        ended.with_context(|| format!("{given} of {SERVICES} have an address after {ALL_MAX:?}"))??;
    while let Ok(service) = tokio::time::timeout(QUIET, events.next()).await {
        ledger.note(&service?);
    }
    ledger.check(SERVICES)?;
    let created = created.into_iter().map(|(_, _, answered)| answered).max().context("no Service was created")?;
    Ok((created, done))
}
