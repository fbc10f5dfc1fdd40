//! Writer of this node's SpeakerStatus, by server-side apply. The main loop's `JoinSet` owns the
//! task; cancelling the task is safe. The task writes only the latest value, and only if this value
//! differs from the previously written one. After a failure, the task retries with the value that
//! is the latest by then.
//!
//! The task also writes an unchanged value periodically, because the object may have been deleted
//! or restored from a backup. If the object has the same value, the API server stores nothing. A
//! watch of the object would need the permission to read the SpeakerStatus of every node, and a
//! thousand nodes would need a thousand connections.
//!
//! The Node is the owner of the object (`metadata.ownerReferences`), so that Kubernetes' garbage
//! collector deletes the object after the Node. Without a Node, the task writes nothing, because
//! the garbage collector would delete the object again.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::rate::TokenBucket;
use ferrolb_proto::api::{
    CustomResourceKind, GROUP, SpeakerStatusObject, SpeakerStatusStatus, VERSION, resource,
};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::log_once::LogOnce;
use ferrolb_runtime::refusal::{CRDS_ARE_OLDER, lacks_field};
use ferrolb_speaker_core::plan::{OwnedAddresses, with_addresses};
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Field manager of the fields that the speaker writes.
pub const FIELD_MANAGER: &str = "ferrolb-speaker";
/// Minimum average interval between two writes of the status.
pub const STATUS_WRITE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Maximum number of writes at once after a pause. When a node fails, the others first report its
/// missing hellos, and then that it is silent.
const WRITES_AT_ONCE_MAX: u32 = 3;

/// Interval after which the status is written again even if it has not changed.
pub const STATUS_RESTORE_INTERVAL: Duration = Duration::from_secs(60);

/// SpeakerStatus that the API server must store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredStatus {
    /// `metadata.uid` of the Node. Empty: there is no Node.
    owner: Box<str>,
    /// The status without the addresses of the interfaces.
    status: Arc<SpeakerStatusStatus>,
    /// The addresses of the interfaces.
    owned: OwnedAddresses,
}

impl DesiredStatus {
    fn with_addresses(&self) -> SpeakerStatusStatus {
        with_addresses(&self.status, &self.owned).cut()
    }
}

/// Passes the status to the writer, if the status, the owned addresses or the Node's `metadata.uid`
/// have changed.
pub fn publish(
    writer: &watch::Sender<DesiredStatus>,
    owner: &str,
    status: &Arc<SpeakerStatusStatus>,
    owned: &OwnedAddresses,
) {
    writer.send_if_modified(|before| {
        let same_status = Arc::ptr_eq(&before.status, status) || before.status == *status;
        let changed = *before.owner != *owner || !same_status || before.owned != *owned;
        if changed {
            let (owner, status, owned) = (owner.into(), Arc::clone(status), owned.clone());
            *before = DesiredStatus { owner, status, owned };
        }
        changed
    });
}

/// Writer of one node's status.
pub struct StatusWriter {
    api: Api<SpeakerStatusObject>,
    node: String,
    interval_min: Duration,
    restore_interval: Duration,
}

impl StatusWriter {
    /// Creates a writer of the SpeakerStatus `node` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        let api = Api::namespaced_with(
            client,
            namespace,
            &resource(CustomResourceKind::SpeakerStatus, GROUP),
        );
        Self {
            api,
            node: node.to_owned(),
            interval_min: STATUS_WRITE_INTERVAL_MIN,
            restore_interval: STATUS_RESTORE_INTERVAL,
        }
    }

    /// Writes the latest value of `wanted` after each change, if the Node exists. Ends when the
    /// sender of `wanted` is dropped.
    pub async fn run(self, mut wanted: watch::Receiver<DesiredStatus>) {
        let mut backoff = Backoff::default();
        let mut written = DesiredStatus::default();
        let mut rejection = LogOnce::default();
        let mut allowed = TokenBucket::full(self.interval_min, WRITES_AT_ONCE_MAX);
        loop {
            match timeout(self.restore_interval, wanted.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                // The status may be lost, so it is written again. If the object was deleted,
                // `write` also creates it again with its owner.
                Err(_) => written.status = Arc::default(),
            }
            loop {
                let latest = wanted.borrow_and_update().clone();
                if latest.owner.is_empty() || written == latest {
                    break;
                }
                match self.write(&latest, written.owner != latest.owner).await {
                    Ok(()) => {
                        if rejection.ends() {
                            info!("SpeakerStatus of this node is written again");
                        }
                        written = latest;
                        allowed.take(Clock::now());
                        break;
                    }
                    Err(error) => {
                        log_rejection(&error, &mut rejection);
                        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                    }
                }
            }
            Clock::sleep_until(Some(allowed.ready_at())).await;
        }
    }

    async fn write(&self, wanted: &DesiredStatus, new_owner: bool) -> Result<(), kube::Error> {
        if new_owner {
            self.write_object(&wanted.owner).await?;
        }
        let wanted_status = wanted.with_addresses();
        match self.write_status(&wanted_status).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // The status of an object that does not exist cannot be written, so create the
                // object first.
                self.write_object(&wanted.owner).await?;
                self.write_status(&wanted_status).await
            }
            result => result,
        }
    }

    /// Writes the object without its status, with the Node as its owner if that is permitted. The
    /// admission plugin OwnerReferencesPermissionEnforcement rejects an owner from an account that
    /// may not delete the object.
    async fn write_object(&self, owner: &str) -> Result<(), kube::Error> {
        let mut object = self.manifest();
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": owner}]);
        match self.api.patch(&self.node, &apply_params(), &Patch::Apply(&object)).await {
            Err(kube::Error::Api(status)) if status.code == 403 => self
                .api
                .patch(&self.node, &apply_params(), &Patch::Apply(&self.manifest()))
                .await
                .map(drop),
            result => result.map(drop),
        }
    }

    async fn write_status(&self, status: &SpeakerStatusStatus) -> Result<(), kube::Error> {
        let object = WithStatus { manifest: self.manifest(), status };
        self.api.patch_status(&self.node, &apply_params(), &Patch::Apply(&object)).await.map(drop)
    }

    fn manifest(&self) -> Value {
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": CustomResourceKind::SpeakerStatus.name(),
            "metadata": {"name": self.node}})
    }
}

/// SpeakerStatus object. Only its manifest is a [`Value`]: as a [`Value`], the status of an owner
/// of thousands of addresses would need several times its memory.
#[derive(Debug, Serialize)]
struct WithStatus<'a> {
    #[serde(flatten)]
    manifest: Value,
    status: &'a SpeakerStatusStatus,
}

fn apply_params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// Logs that a write has failed: a warning with the remedy for the first of consecutive rejections,
/// otherwise debug output. `ferrolb_runtime::api_health` logs an unreachable API server.
fn log_rejection(error: &kube::Error, rejection: &mut LogOnce<()>) {
    let kube::Error::Api(status) = error else {
        debug!(%error, "SpeakerStatus of this node is not written");
        return;
    };
    if rejection.begins(()) {
        warn!(%error, "SpeakerStatus of this node is not written: {}", remedy(status));
    } else {
        debug!(%error, "SpeakerStatus of this node is not written");
    }
}

fn remedy(status: &Status) -> &'static str {
    match status.code {
        _ if lacks_field(status) => CRDS_ARE_OLDER,
        403 => {
            "the ServiceAccount needs create and patch on speakerstatuses and its status: apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
        }
        404 => {
            "the cluster does not have the kind SpeakerStatus: apply FerroLB's CustomResourceDefinitions, as in deploy/install.yaml or the Helm chart"
        }
        _ => "retrying",
    }
}

#[cfg(test)]
mod tests;
