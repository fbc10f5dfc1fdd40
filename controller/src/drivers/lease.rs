//! The lease driver: one task that runs [`ferrolb_proto::lease`] against the Lease in our namespace. It owns the machine and
//! its one request, and tells the main loop when this replica may write.

use std::pin::Pin;
use std::time::Duration;

use ferrolb_proto::Machine;
use ferrolb_proto::lease::{Config, Input, Lease as LeaseMachine, Output, Record, Write};
use ferrolb_runtime::clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use crate::event::{Event, Leadership};

/// The Lease's name in our namespace.
pub const LEASE: &str = "ferrolb-controller";
/// Requests that fit into the renew deadline, one after the other. No more than two: with the default of 10 s a server whose answers take 2 s
/// needs 4 s for the first one of a connection, since TLS asks and answers, too.
const REQUESTS_PER_DEADLINE: u32 = 2;

/// Runs until it is asked to leave and has, or nobody listens. Dropping the sender of `leave` asks, too.
pub async fn run(
    client: Client,
    namespace: String,
    config: Config,
    events: mpsc::Sender<Event>,
    mut leave: oneshot::Receiver<()>,
) {
    let mut machine = LeaseMachine::new(config.clone(), Clock::now());
    let mut server = Server { leases: Api::namespaced(client, &namespace), config, last: None, said: false };
    let mut request: Option<Pin<Box<dyn Future<Output = Asked> + Send>>> = None;
    let (mut leads, mut leaving) = (false, false);
    loop {
        machine.tick(Clock::now());
        while let Some(output) = machine.poll() {
            let leadership = match output {
                Output::Read => {
                    request = Some(server.read());
                    continue;
                }
                Output::Write(write) => {
                    request = Some(server.write(write));
                    continue;
                }
                Output::Lead(until) => Leadership::Held(until),
                Output::Stop => Leadership::Lost,
                Output::Left => return,
            };
            let leading = leadership != Leadership::Lost;
            if std::mem::replace(&mut leads, leading) != leading {
                info!(leading, "the lease changed hands");
            }
            if events.send(Event::Lease(leadership)).await.is_err() && !leaving {
                return;
            }
        }
        tokio::select! {
            asked = answer(&mut request) => {
                request = None;
                machine.handle(server.learn(asked), Clock::now());
            }
            _ = &mut leave, if !leaving => {
                leaving = true;
                machine.handle(Input::Leave, Clock::now());
            }
            () = Clock::sleep_until(machine.deadline()) => {}
        }
    }
}

async fn answer(request: &mut Option<Pin<Box<dyn Future<Output = Asked> + Send>>>) -> Asked {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

/// What came of a request.
enum Asked {
    Read(kube::Result<Option<Lease>>),
    Written(kube::Result<Lease>),
    TimedOut,
}

/// The Lease in the API server.
struct Server {
    leases: Api<Lease>,
    config: Config,
    /// As it was read or written last: what others put there stays.
    last: Option<Lease>,
    /// A refusal was said.
    said: bool,
}

impl Server {
    fn timeout(&self) -> Duration {
        self.config.renew_deadline / REQUESTS_PER_DEADLINE
    }

    fn read(&self) -> Pin<Box<dyn Future<Output = Asked> + Send>> {
        let (leases, timeout) = (self.leases.clone(), self.timeout());
        Box::pin(async move {
            tokio::time::timeout(timeout, leases.get_opt(LEASE)).await.map_or(Asked::TimedOut, Asked::Read)
        })
    }

    fn write(&self, write: Write) -> Pin<Box<dyn Future<Output = Asked> + Send>> {
        let (leases, timeout) = (self.leases.clone(), self.timeout());
        let creates = write.version.is_none();
        let lease = lease(self.last.clone().unwrap_or_default(), write, self.config.duration, Timestamp::now());
        Box::pin(async move {
            let params = PostParams::default();
            let sent = async {
                if creates {
                    leases.create(&params, &lease).await
                } else {
                    leases.replace(LEASE, &params, &lease).await
                }
            };
            tokio::time::timeout(timeout, sent).await.map_or(Asked::TimedOut, Asked::Written)
        })
    }

    fn learn(&mut self, asked: Asked) -> Input {
        let refused = match asked {
            // That it may be read says nothing of whether it may be written.
            Asked::Read(Ok(found)) => {
                self.last.clone_from(&found);
                return Input::Found(found.as_ref().map(record));
            }
            Asked::Written(Ok(lease)) => {
                self.said = false;
                let record = record(&lease);
                self.last = Some(lease);
                return Input::Written(record);
            }
            Asked::Written(Err(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                return Input::Conflict;
            }
            Asked::Read(Err(kube::Error::Api(status))) | Asked::Written(Err(kube::Error::Api(status))) => status,
            Asked::Read(Err(error)) | Asked::Written(Err(error)) => {
                debug!(%error, "no answer about the lease");
                return Input::Failed;
            }
            Asked::TimedOut => return Input::Failed,
        };
        if !std::mem::replace(&mut self.said, true) {
            let (code, why) = (refused.code, &refused.message);
            warn!(
                code,
                why,
                "the API server refuses the lease, so nothing is written; apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
            );
        }
        Input::Failed
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default().into(),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default().into(),
        duration: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        version: lease.metadata.resource_version.clone().unwrap_or_default().into(),
    }
}

/// The Lease to write: `last` with the fields that are the machine's.
fn lease(last: Lease, write: Write, duration: Duration, now: Timestamp) -> Lease {
    let (metadata, spec) = match &write.version {
        Some(version) => {
            let metadata = ObjectMeta { resource_version: Some(version.to_string()), ..last.metadata };
            (metadata, last.spec.unwrap_or_default())
        }
        None => (ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() }, LeaseSpec::default()),
    };
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(write.holder.to_string()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            lease_transitions: i32::try_from(write.transitions).ok(),
            acquire_time: if write.acquires { Some(MicroTime(now)) } else { spec.acquire_time },
            renew_time: Some(MicroTime(now)),
            ..spec
        }),
    }
}
