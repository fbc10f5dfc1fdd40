//! The writer of this node's SpeakerStatus, by server-side apply. One task, owned by the main
//! loop's `JoinSet`; cancelling it is safe. It writes the latest value only, when it differs from
//! what it wrote last; a failure is tried again with the value that is the latest by then.
//!
//! Once in a while it writes the same value again: the object may have been deleted, or an older
//! one restored. Nothing is stored when it has not. A watch would need the permission to read the
//! SpeakerStatus of every node, and would cost each of a thousand nodes a connection.
//!
//! The Node owns the object, so that Kubernetes' garbage collector removes it after the Node.
//! Without a Node nothing is written: the garbage collector would remove it again.

use std::time::Duration;

use ferrolb_proto::api::{GROUP, Kind, Speaker, SpeakerStatusStatus, VERSION, resource};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::refusal::{CRDS_ARE_OLDER, lacks_field};
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Our name as the owner of the fields we write.
pub const FIELD_MANAGER: &str = "ferrolb-speaker";
/// The status is written no more often than this, however fast it changes.
pub const STATUS_WRITE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The status is written again after so long, whether it has changed or not.
pub const STATUS_RESTORE_INTERVAL: Duration = Duration::from_secs(60);

/// The SpeakerStatus that the API server is to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// `metadata.uid` of the Node; empty: there is no Node.
    owner: Box<str>,
    status: SpeakerStatusStatus,
}

/// Hands the status to the writer, if it or the Node's `metadata.uid` has changed.
pub fn publish(writer: &watch::Sender<Wanted>, owner: &str, status: &SpeakerStatusStatus) {
    writer.send_if_modified(|before| {
        let changed = *before.owner != *owner || before.status != *status;
        if changed {
            *before = Wanted { owner: owner.into(), status: status.clone() };
        }
        changed
    });
}

/// Writes one node's status.
pub struct StatusWriter {
    api: Api<Speaker>,
    node: String,
    interval_min: Duration,
    restore_interval: Duration,
}

impl StatusWriter {
    /// A writer of the object named `node` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        let api = Api::namespaced_with(client, namespace, &resource(Kind::SpeakerStatus, GROUP));
        Self {
            api,
            node: node.to_owned(),
            interval_min: STATUS_WRITE_INTERVAL_MIN,
            restore_interval: STATUS_RESTORE_INTERVAL,
        }
    }

    /// Writes each new value of `wanted` that has a Node. Ends when its sender is gone.
    pub async fn run(self, mut wanted: watch::Receiver<Wanted>) {
        let mut backoff = Backoff::default();
        let mut written = Wanted::default();
        let mut said = false;
        loop {
            match timeout(self.restore_interval, wanted.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                // The Node is known to own it; the value may be gone.
                Err(_) => written.status = SpeakerStatusStatus::default(),
            }
            loop {
                let latest = wanted.borrow_and_update().clone();
                if latest.owner.is_empty() || written == latest {
                    break;
                }
                match self.write(&latest, written.owner != latest.owner).await {
                    Ok(()) => {
                        if std::mem::take(&mut said) {
                            info!("this node's SpeakerStatus is written again");
                        }
                        written = latest;
                        break;
                    }
                    Err(error) => {
                        refused(&error, &mut said);
                        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                    }
                }
            }
            tokio::time::sleep(self.interval_min).await;
        }
    }

    async fn write(&self, wanted: &Wanted, new_owner: bool) -> Result<(), kube::Error> {
        if new_owner {
            self.write_head(&wanted.owner).await?;
        }
        match self.write_status(&wanted.status).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                // The status of an object that is not there cannot be written: the object first.
                self.write_head(&wanted.owner).await?;
                self.write_status(&wanted.status).await
            }
            result => result,
        }
    }

    /// Writes the object itself, with its owner where that is allowed: the admission plugin
    /// OwnerReferencesPermissionEnforcement refuses it to an account that may not delete the
    /// object.
    async fn write_head(&self, owner: &str) -> Result<(), kube::Error> {
        let mut head = self.head();
        head["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": owner}]);
        match self.api.patch(&self.node, &params(), &Patch::Apply(&head)).await {
            Err(kube::Error::Api(answer)) if answer.code == 403 => {
                self.api.patch(&self.node, &params(), &Patch::Apply(&self.head())).await.map(drop)
            }
            result => result.map(drop),
        }
    }

    async fn write_status(&self, status: &SpeakerStatusStatus) -> Result<(), kube::Error> {
        let mut whole = self.head();
        whole["status"] = json!(status);
        self.api.patch_status(&self.node, &params(), &Patch::Apply(&whole)).await.map(drop)
    }

    fn head(&self) -> Value {
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": Kind::SpeakerStatus.name(),
            "metadata": {"name": self.node}})
    }
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

/// Says once what a person has to do about a refusal. A server that does not answer is said
/// elsewhere.
fn refused(error: &kube::Error, said: &mut bool) {
    let kube::Error::Api(answer) = error else {
        debug!(%error, "this node's SpeakerStatus is not written");
        return;
    };
    if std::mem::replace(said, true) {
        debug!(%error, "this node's SpeakerStatus is not written");
    } else {
        warn!(%error, "this node's SpeakerStatus is not written; {}", remedy(answer));
    }
}

fn remedy(answer: &Status) -> &'static str {
    match answer.code {
        _ if lacks_field(answer) => CRDS_ARE_OLDER,
        403 => {
            "the ServiceAccount needs create and patch on speakerstatuses and its status: apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
        }
        404 => {
            "the cluster does not have the kind: apply FerroLB's CustomResourceDefinitions, as in deploy/install.yaml or the Helm chart"
        }
        _ => "it is tried again until it works",
    }
}

#[cfg(test)]
mod tests;
