//! Failure and stop of the active leader of two controllers while Services are created: the other
//! controller takes over, and every Service gets exactly one address.

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

/// Number of Services in the batch during which the leader is killed, and in the batch during which
/// it is stopped.
const SERVICES_AT_KILL: usize = 1000;
const SERVICES_AT_STOP: usize = 300;
/// The leader ends as soon as this number of Services have addresses.
const ASSIGNED_AT_END: usize = 200;
/// Maximum time in which no Service of a batch changes before all of them have addresses. The whole
/// batch takes as long as the API server needs to create the Services.
const EVENT_MAX: Duration = Duration::from_secs(60);
/// Flags of a leader lease that the leader keeps although the API server may stall for some seconds
/// during a thousand creations.
const LEASE_FLAGS: [&str; 6] =
    ["--lease-duration", "9s", "--lease-renew-deadline", "7s", "--lease-retry", "500ms"];
/// Maximum time from the last creation to the last address, also if all Services are created before
/// the follower writes.
const LAST_ADDRESS_MAX: Duration = Duration::from_secs(40);
/// Time after the last address in which no Service may change.
const QUIET: Duration = Duration::from_secs(2);
/// Minimum time between the kill and the follower's first write, because the lease is still valid
/// before: see [`LEASE_FLAGS`].
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Maximum time between the kill and the follower's first write: three times the sum of the lease
/// duration and the interval at which the follower checks the lease.
const KILLED_GAP_MAX: Duration = Duration::from_secs(29);
/// Maximum time between a clean stop and the follower's first write. The leader releases the lease,
/// and the follower checks the lease every 500 ms. Three times the sum of both.
const STOPPED_GAP_MAX: Duration = Duration::from_secs(4);

/// Number that is added to the admin port of a controller to get its probe port. Both controllers
/// run on one host, so each needs ports of its own.
const PROBE_PORT_OFFSET: u16 = 100;

/// A controller of the lab: its process and its admin port.
struct Replica {
    process: &'static str,
    port: u16,
}

const FIRST: Replica = Replica { process: "controller", port: 7472 };
const SECOND: Replica = Replica { process: "controller-second", port: 7473 };

impl Replica {
    fn start(&self, lab: &Lab) -> Result<()> {
        let admin = format!("--admin-listen=0.0.0.0:{}", self.port);
        let probes = format!("--probe-listen=127.0.0.1:{}", self.port + PROBE_PORT_OFFSET);
        lab.start_controller_named(self.process, &[&LEASE_FLAGS[..], &[&admin, &probes]].concat())
    }

    fn metric(&self, lab: &Lab, name: &str) -> Result<f64> {
        metric_at(lab, SocketAddr::new(lab.address(CONTROL_PLANE)?, self.port), name)
    }

    fn wait_ready(&self, lab: &Lab) -> Result<()> {
        lab.wait_healthy(self.process, CONTROL_PLANE, self.port, "/readyz")
    }

    fn wait_leading(&self, lab: &Lab) -> Result<()> {
        wait::until(&format!("{} is the leader", self.process), STATE_MAX, || {
            Ok((self.metric(lab, "ferrolb_controller_leader")? > 0.0).then_some(()))
        })
    }
}

#[test]
fn a_leader_failure_loses_and_duplicates_no_address() {
    run_scenario(&without_proxy("leader"), |lab| {
        lab.install_ferrolb()?;
        lab.apply(services::POOL)?;
        step("two controllers run, and the first one is the leader", || {
            FIRST.start(lab)?;
            FIRST.wait_leading(lab)?;
            SECOND.start(lab)?;
            SECOND.wait_ready(lab)
        })?;
        step("the leader is killed during a thousand creations", || {
            let gap = fail_over(lab, ("killed", SERVICES_AT_KILL), &FIRST, &SECOND, Signal::KILL)?;
            ensure!(
                gap >= SILENCE_MIN,
                "the follower wrote {gap:?} after the kill, before the lease had expired"
            );
            ensure!(gap <= KILLED_GAP_MAX, "the follower wrote only {gap:?} after the kill");
            Ok(())
        })?;
        step("the killed controller is restarted and is not the leader", || {
            lab.restart(FIRST.process)?;
            FIRST.wait_ready(lab)?;
            ensure!(
                FIRST.metric(lab, "ferrolb_controller_leader")? < 1.0,
                "the restarted controller is the leader"
            );
            Ok(())
        })?;
        step("the new leader is stopped during more creations", || {
            let gap = fail_over(lab, ("stopped", SERVICES_AT_STOP), &SECOND, &FIRST, Signal::TERM)?;
            ensure!(
                gap <= STOPPED_GAP_MAX,
                "the follower wrote only {gap:?} after the leader was stopped"
            );
            Ok(())
        })?;
        step("each Service has an address of its own", || {
            let mut log = AssignmentLog::default();
            let list = lab.api(async |client| {
                Ok(Api::<Service>::default_namespaced(client)
                    .list(&ListParams::default().labels("bench"))
                    .await?)
            })?;
            list.iter().for_each(|service| log.record(service));
            log.check(SERVICES_AT_KILL + SERVICES_AT_STOP)
        })
    });
}

/// Creates a batch of Services (name and number), ends the leader during the creations, and waits
/// for all addresses. Returns the time from the signal to the first write of the follower.
fn fail_over(
    lab: &Lab,
    (batch, count): (&str, usize),
    leader: &Replica,
    follower: &Replica,
    signal: Signal,
) -> Result<Duration> {
    let writes = || follower.metric(lab, "ferrolb_controller_writes_total");
    let (before, start) = (writes()?, wait::now());
    let (reached, failure_point) = mpsc::channel();
    let (gap, (created, done)) = std::thread::scope(|scope| {
        let creation = scope
            .spawn(|| lab.api(async |client| create_batch(&client, (batch, count), reached).await));
        // If the channel closes without a message, the other thread returns the error.
        let gap = failure_point.recv().ok().map(|()| {
            let failure = wait::now();
            lab.stop(leader.process, signal)?;
            wait::until("the follower writes", EVENT_MAX, || {
                Ok((writes()? > before).then(|| failure.elapsed()))
            })
        });
        let done = creation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, anyhow::Error>((
            gap.context("the creations ended before the leader failed")??,
            done,
        ))
    })?;
    print_measured(&format!(
        "leader {batch} during {count} creations: the follower writes after {gap:?} and {} times; all Services are created after {:?} and have an address after {:?}",
        writes()? - before,
        created - start,
        done - start,
    ));
    let late = done.saturating_duration_since(created);
    ensure!(late <= LAST_ADDRESS_MAX, "the last address came {late:?} after the last creation");
    Ok(gap)
}

/// Creates a batch of Services, signals `reached` when [`ASSIGNED_AT_END`] of them have an
/// address, and waits until each one has an address and keeps it. Returns the times of the last
/// creation and of the last address.
async fn create_batch(
    client: &Client,
    (batch, count): (&str, usize),
    reached: mpsc::Sender<()>,
) -> Result<(Instant, Instant)> {
    let mut events = services::ServiceEvents::of(client, batch).await?;
    let (mut log, mut reached) = (AssignmentLog::default(), Some(reached));
    let watched = async {
        while log.assigned() < count {
            let next = tokio::time::timeout(EVENT_MAX, events.next()).await;
            log.record(&next.with_context(|| {
                let assigned = log.assigned();
                format!(
                    "{assigned} of {count} Services have an address: no change for {EVENT_MAX:?}"
                )
            })??);
            if log.assigned() >= ASSIGNED_AT_END
                && let Some(reached) = reached.take()
            {
                reached.send(())?;
            }
        }
        Ok(wait::now())
    };
    let created = services::post_all(client, batch, count, &services::V4);
    let (created, done) = futures::future::try_join(created, watched).await?;
    while let Ok(service) = tokio::time::timeout(QUIET, events.next()).await {
        log.record(&service?);
    }
    log.check(count)?;
    let created = created
        .into_iter()
        .map(|(_, _, created)| created)
        .max()
        .context("no Service was created")?;
    Ok((created, done))
}
