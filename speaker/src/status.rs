//! The writer of this node's SpeakerStatus, by server-side apply. One task, owned by the main loop's `JoinSet`; cancelling it
//! is safe. It writes the latest value only, when it differs from what it wrote last; a failure is tried again with the value
//! that is the latest by then.

use std::time::Duration;

use ferrolb_proto::api::{GROUP, Kind, Speaker, SpeakerStatusStatus, VERSION, resource};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Our name as the owner of the fields we write.
pub const FIELD_MANAGER: &str = "ferrolb-speaker";
/// The status is written no more often than this, however fast it changes.
pub const STATUS_WRITE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Writes one node's status.
pub struct StatusWriter {
    api: Api<Speaker>,
    node: String,
}

impl StatusWriter {
    /// A writer of the object named `node` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, node: &str) -> Self {
        let api = Api::namespaced_with(client, namespace, &resource(Kind::SpeakerStatus, GROUP));
        Self { api, node: node.to_owned() }
    }

    /// Writes each new value of `status`, the first of them (not the initial one) included. Ends when its sender is gone.
    pub async fn run(self, mut status: watch::Receiver<SpeakerStatusStatus>) {
        let mut backoff = Backoff::default();
        let mut written = None;
        let mut said = false;
        while status.changed().await.is_ok() {
            loop {
                let latest = status.borrow_and_update().clone();
                if written.as_ref() == Some(&latest) {
                    break;
                }
                match self.write(&latest).await {
                    Ok(()) => {
                        if std::mem::take(&mut said) {
                            info!("this node's SpeakerStatus is written again");
                        }
                        written = Some(latest);
                        break;
                    }
                    Err(error) => {
                        refused(&error, &mut said);
                        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                    }
                }
            }
            tokio::time::sleep(STATUS_WRITE_INTERVAL_MIN).await;
        }
    }

    async fn write(&self, status: &SpeakerStatusStatus) -> Result<(), kube::Error> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let head = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": Kind::SpeakerStatus.name(),
            "metadata": {"name": self.node}});
        let mut whole = head.clone();
        whole["status"] = json!(status);
        match self.api.patch_status(&self.node, &params, &Patch::Apply(&whole)).await {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                // The status of an object that is not there cannot be written: the object first.
                self.api.patch(&self.node, &params, &Patch::Apply(&head)).await?;
                self.api.patch_status(&self.node, &params, &Patch::Apply(&whole)).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}

/// Says once what a person has to do about a refusal. A server that does not answer is said elsewhere.
fn refused(error: &kube::Error, said: &mut bool) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only an answer of the API server is of interest")]
    let code = match error {
        kube::Error::Api(answer) => answer.code,
        _ => 0,
    };
    let remedy = match code {
        403 => {
            "the ServiceAccount needs create and patch on speakerstatuses and its status: apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
        }
        404 => {
            "the cluster does not have the kind: apply FerroLB's CustomResourceDefinitions, as in deploy/install.yaml or the Helm chart"
        }
        _ => "it is tried again until it works",
    };
    if code == 0 || std::mem::replace(said, true) {
        debug!(%error, "this node's SpeakerStatus is not written");
    } else {
        warn!(%error, "this node's SpeakerStatus is not written; {remedy}");
    }
}
