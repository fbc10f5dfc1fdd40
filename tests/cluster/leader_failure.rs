//! Failure of the leader among two controllers while a thousand Services are created: the other
//! takes over, and every Service gets exactly one address.

use crate::assignment_log::AssignmentLog;
use crate::metrics::metric_at;
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step, without_proxy};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::services;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Signal, wait};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, ListParams};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Number of Services in a batch.
const SERVICES: usize = 1000;
/// Number of Services with an address at which the leader fails.
const ASSIGNED_AT_FAILURE: usize = 300;
/// Maximum time for the whole batch: on a busy machine the API server needs most of it for the
/// creations.
const ALL_MAX: Duration = Duration::from_secs(120);
/// A lease that the leader keeps although the API server may stall for some seconds during a
/// thousand creations.
const LEASE: [&str; 6] =
    ["--lease-duration", "9s", "--lease-renew-deadline", "7s", "--lease-retry", "500ms"];
/// Maximum time from the last creation to the last address, also if all Services are created before
/// the follower writes.
const LAST_ADDRESS_MAX: Duration = Duration::from_secs(40);
/// Time in which nothing may change after that.
const QUIET: Duration = Duration::from_secs(2);
/// Minimum time between the kill and the follower's first write. After a shorter time without a
/// renewal the lease is still valid: see [`LEASE`].
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Three times the lease plus the interval at which the follower checks it: see [`LEASE`].
const KILLED_GAP_MAX: Duration = Duration::from_secs(29);
/// Maximum time after a clean stop. The leader releases the lease, and the follower finds that at
/// its next check, every 500 ms. Three times the sum of both.
const STOPPED_GAP_MAX: Duration = Duration::from_secs(4);

/// Both controllers run on one host, so each needs ports of its own.
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
        wait::until(&format!("{} leads", self.process), STATE_MAX, || {
            Ok((self.metric(lab, "ferrolb_controller_leader")? > 0.0).then_some(()))
        })
    }
}

#[test]
fn a_leader_failure_during_a_thousand_creations_loses_and_duplicates_no_address() {
    run_scenario(&without_proxy("leader"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(services::POOL)?;
        step("two controllers, and the first leads", || {
            FIRST.start(lab)?;
            FIRST.wait_leading(lab)?;
            SECOND.start(lab)?;
            SECOND.wait_ready(lab)
        })?;
        step("the leader is killed among a thousand creations", || {
            let gap = fail_over(lab, "killed", &FIRST, &SECOND, Signal::KILL)?;
            ensure!(
                gap >= SILENCE_MIN,
                "the follower wrote {gap:?} after the kill, when the lease was not over"
            );
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
            let gap = fail_over(lab, "stopped", &SECOND, &FIRST, Signal::TERM)?;
            ensure!(
                gap <= STOPPED_GAP_MAX,
                "the follower wrote only {gap:?} after the leader was stopped"
            );
            Ok(())
        })?;
        step("all two thousand have an address of their own", || {
            let mut ledger = AssignmentLog::default();
            let all = lab.api(async |client| {
                Ok(Api::<Service>::default_namespaced(client)
                    .list(&ListParams::default().labels("bench"))
                    .await?)
            })?;
            all.iter().for_each(|service| ledger.record(service));
            ledger.check(2 * SERVICES)
        })
    });
}

/// Creates Services, ends the leader during the creations, and waits for all addresses. Returns the
/// time from the signal to the first write of the follower.
fn fail_over(
    lab: &Lab,
    batch: &str,
    leader: &Replica,
    follower: &Replica,
    signal: Signal,
) -> Result<Duration> {
    let writes = || follower.metric(lab, "ferrolb_controller_writes_total");
    let (before, start) = (writes()?, wait::now());
    let (midst, in_the_midst) = mpsc::channel();
    let (gap, (created, done)) = std::thread::scope(|scope| {
        let creation = scope.spawn(|| lab.api(async |client| create(&client, batch, midst).await));
        // If the channel closes without a message, the other thread returns the error.
        let gap = in_the_midst.recv().ok().map(|()| {
            let death = wait::now();
            lab.stop(leader.process, signal)?;
            wait::until("the follower writes", ALL_MAX, || {
                Ok((writes()? > before).then(|| death.elapsed()))
            })
        });
        let done = creation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, anyhow::Error>((gap.context("the leader was not ended")??, done))
    })?;
    print_measured(&format!(
        "leader {batch} among {SERVICES} creations: the follower writes after {gap:?} and {} times; all are created after {:?} and have an address after {:?}",
        writes()? - before,
        created - start,
        done - start,
    ));
    let late = done.saturating_duration_since(created);
    ensure!(late <= LAST_ADDRESS_MAX, "the last address came {late:?} after the last creation");
    Ok(gap)
}

/// Creates a batch of Services, signals `midst` when [`ASSIGNED_AT_FAILURE`] of them have an
/// address, and waits until each has its address and keeps it. Returns the times of the last
/// creation and of the last address.
async fn create(
    client: &Client,
    batch: &str,
    midst: mpsc::Sender<()>,
) -> Result<(Instant, Instant)> {
    let mut events = services::ServiceEvents::of(client, batch).await?;
    let (mut ledger, mut midst) = (AssignmentLog::default(), Some(midst));
    let watched = async {
        while ledger.assigned() < SERVICES {
            ledger.record(&events.next().await?);
            if ledger.assigned() >= ASSIGNED_AT_FAILURE
                && let Some(midst) = midst.take()
            {
                midst.send(())?;
            }
        }
        Ok(wait::now())
    };
    let all = futures::future::try_join(
        services::post_all(client, batch, SERVICES, &services::V4),
        watched,
    );
    let ended = tokio::time::timeout(ALL_MAX, all).await;
    let given = ledger.assigned();
    let (created, done) = ended
        .with_context(|| format!("{given} of {SERVICES} have an address after {ALL_MAX:?}"))??;
    while let Ok(service) = tokio::time::timeout(QUIET, events.next()).await {
        ledger.record(&service?);
    }
    ledger.check(SERVICES)?;
    let created = created
        .into_iter()
        .map(|(_, _, answered)| answered)
        .max()
        .context("no Service was created")?;
    Ok((created, done))
}
