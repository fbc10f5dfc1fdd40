//! Lease driver: one task that runs the state machine of [`ferrolb_controller_core::lease`] with
//! the Lease in the controller's namespace. The task has at most one request in progress. It
//! reports to the main loop whether and until when this replica may write.

use std::pin::Pin;
use std::time::Duration;

use ferrolb_controller_core::event::{Event, Leadership};
use ferrolb_controller_core::lease::{
    LeaderLease as LeaseMachine, LeaseConfig, LeaseInput, LeaseOutput, LeaseRecord, LeaseWrite,
};
use ferrolb_core::Machine;
use ferrolb_proto::api::LEASE;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::log_once::LogOnce;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

/// Number of consecutive requests that fit into the renew deadline: the timeout of each request is
/// the deadline divided by this number. With more than two requests, the timeout would be too
/// short: an API server that takes 2 s per response needs 4 s for the first response on a
/// connection, because the TLS handshake adds round trips. The default deadline is 10 s.
const REQUESTS_PER_DEADLINE: u32 = 2;

/// Runs the lease driver until the receiver of `events` is dropped or `leave` completes. After
/// `leave`, the task first tries to release the lease, for at most
/// [`ferrolb_controller_core::lease::RELEASE_TIMEOUT`]. `leave` also completes if its sender is
/// dropped.
pub async fn run(
    client: Client,
    namespace: String,
    config: LeaseConfig,
    events: mpsc::Sender<Event>,
    mut leave: oneshot::Receiver<()>,
) {
    let mut machine = LeaseMachine::new(config.clone(), Clock::now());
    let mut server = LeaseClient {
        leases: Api::namespaced(client, &namespace),
        config,
        latest_lease: None,
        refusal: LogOnce::default(),
    };
    let mut request: Option<Pin<Box<dyn Future<Output = LeaseResponse> + Send>>> = None;
    let (mut leads, mut leaving) = (false, false);
    loop {
        machine.tick(Clock::now());
        while let Some(output) = machine.poll() {
            let leadership = match output {
                LeaseOutput::Read => {
                    request = Some(server.read());
                    continue;
                }
                LeaseOutput::Write(write) => {
                    request = Some(server.write(write));
                    continue;
                }
                LeaseOutput::Lead(until) => Leadership::Held(until),
                LeaseOutput::Stop => Leadership::Lost,
                LeaseOutput::Follow(leader) => Leadership::Other(leader),
                LeaseOutput::Released => return,
            };
            let leading = matches!(leadership, Leadership::Held(_));
            if std::mem::replace(&mut leads, leading) != leading {
                info!("{}", if leading { "became leader" } else { "lost leadership" });
            }
            if events.send(Event::Lease(leadership)).await.is_err() && !leaving {
                return;
            }
        }
        tokio::select! {
            result = response(&mut request) => {
                request = None;
                machine.handle(server.input_for(result), Clock::now());
            }
            _ = &mut leave, if !leaving => {
                leaving = true;
                machine.handle(LeaseInput::Stopping, Clock::now());
            }
            () = Clock::sleep_until(machine.deadline()) => {}
        }
    }
}

async fn response(
    request: &mut Option<Pin<Box<dyn Future<Output = LeaseResponse> + Send>>>,
) -> LeaseResponse {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

/// Result of a request for the Lease.
enum LeaseResponse {
    Read(kube::Result<Option<Lease>>),
    Written(kube::Result<Lease>),
    TimedOut,
}

/// Access to the Lease in the API server.
struct LeaseClient {
    leases: Api<Lease>,
    config: LeaseConfig,
    /// The Lease that was read or written most recently, so that a write preserves the fields of
    /// other clients.
    latest_lease: Option<Lease>,
    /// A rejection since the latest successful write.
    refusal: LogOnce<()>,
}

impl LeaseClient {
    fn timeout(&self) -> Duration {
        self.config.renew_deadline / REQUESTS_PER_DEADLINE
    }

    fn read(&self) -> Pin<Box<dyn Future<Output = LeaseResponse> + Send>> {
        let (leases, timeout) = (self.leases.clone(), self.timeout());
        Box::pin(async move {
            tokio::time::timeout(timeout, leases.get_opt(LEASE))
                .await
                .map_or(LeaseResponse::TimedOut, LeaseResponse::Read)
        })
    }

    fn write(&self, write: LeaseWrite) -> Pin<Box<dyn Future<Output = LeaseResponse> + Send>> {
        let (leases, timeout) = (self.leases.clone(), self.timeout());
        let creates = write.version.is_none();
        let lease = lease(
            self.latest_lease.clone().unwrap_or_default(),
            write,
            self.config.duration,
            Timestamp::now(),
        );
        Box::pin(async move {
            let params = PostParams::default();
            let sending = async {
                if creates {
                    leases.create(&params, &lease).await
                } else {
                    leases.replace(LEASE, &params, &lease).await
                }
            };
            tokio::time::timeout(timeout, sending)
                .await
                .map_or(LeaseResponse::TimedOut, LeaseResponse::Written)
        })
    }

    fn input_for(&mut self, response: LeaseResponse) -> LeaseInput {
        let refused = match response {
            // The rejection has not ended: permission to read the Lease does not imply permission
            // to write it.
            LeaseResponse::Read(Ok(found)) => {
                self.latest_lease.clone_from(&found);
                return LeaseInput::Read(found.as_ref().map(record));
            }
            LeaseResponse::Written(Ok(lease)) => {
                self.refusal.ends();
                let record = record(&lease);
                self.latest_lease = Some(lease);
                return LeaseInput::Written(record);
            }
            LeaseResponse::Written(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                return LeaseInput::Conflict;
            }
            LeaseResponse::Read(Err(kube::Error::Api(status)))
            | LeaseResponse::Written(Err(kube::Error::Api(status))) => status,
            LeaseResponse::Read(Err(error)) | LeaseResponse::Written(Err(error)) => {
                debug!(%error, "the Lease request failed, retrying");
                return LeaseInput::Failed;
            }
            LeaseResponse::TimedOut => return LeaseInput::Failed,
        };
        if self.refusal.begins(()) {
            let (code, why) = (refused.code, &refused.message);
            warn!(
                code,
                why,
                "access to the Lease rejected, so nothing is written: apply FerroLB's RBAC rules, \
                 as in deploy/install.yaml or the Helm chart"
            );
        }
        LeaseInput::Failed
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds =
        spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default().into(),
        renew_time: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default().into(),
        duration: Duration::from_secs(seconds),
        transitions: spec
            .lease_transitions
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default().into(),
    }
}

/// Returns the Lease to write: the latest Lease, with new values of the fields that the state
/// machine owns.
fn lease(latest: Lease, write: LeaseWrite, duration: Duration, now: Timestamp) -> Lease {
    let (metadata, spec) = match &write.version {
        Some(version) => {
            let metadata =
                ObjectMeta { resource_version: Some(version.to_string()), ..latest.metadata };
            (metadata, latest.spec.unwrap_or_default())
        }
        None => (
            ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            LeaseSpec::default(),
        ),
    };
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(write.holder.to_string()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            lease_transitions: i32::try_from(write.transitions).ok(),
            acquire_time: if write.sets_acquire_time {
                Some(MicroTime(now))
            } else {
                spec.acquire_time
            },
            renew_time: Some(MicroTime(now)),
            ..spec
        }),
    }
}
