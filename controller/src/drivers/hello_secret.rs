//! The Secret with the keys of the hello protocol: made where it is missing, never changed. One task, which works while this
//! replica holds the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_proto::api::HELLO_SECRET;
use ferrolb_proto::wire::hello::{KEY_LENGTH, KeyRing};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::desired::Desired;

/// How often it is looked for: a Secret that was deleted is there again after that.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long one look may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The name of the first key.
const FIRST_KEY: &str = "1";

/// Works for ever; ends when nobody desires anything any more.
pub async fn run(client: Client, namespace: String, mut desired: watch::Receiver<Desired>) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut said = Said::default();
    loop {
        if desired.wait_for(|desired| desired.term.is_some()).await.is_err() {
            return;
        }
        match tokio::time::timeout(CHECK_TIMEOUT, check(&secrets)).await {
            Ok(Ok(found)) => said.found(found),
            Ok(Err(error)) => said.failed(&error),
            Err(_) => debug!("no answer about the Secret {HELLO_SECRET}"),
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// What there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Keys,
    NoKey,
    Nothing,
}

async fn check(secrets: &Api<Secret>) -> kube::Result<Found> {
    if let Some(secret) = secrets.get_opt(HELLO_SECRET).await? {
        let data = secret.data.unwrap_or_default();
        let ring = KeyRing::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())));
        return Ok(if ring.is_empty() { Found::NoKey } else { Found::Keys });
    }
    let mut key = [0; KEY_LENGTH];
    if let Err(error) = getrandom::fill(&mut key) {
        warn!(%error, "the kernel gives no random numbers, so there is no key for the speakers");
        return Ok(Found::NoKey);
    }
    match secrets.create(&PostParams::default(), &secret(key)).await {
        Ok(_) => Ok(Found::Nothing),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Found::Keys),
        Err(error) => Err(error),
    }
}

fn secret(key: [u8; KEY_LENGTH]) -> Secret {
    let labels = [("app.kubernetes.io/name".to_owned(), "ferrolb".to_owned())];
    Secret {
        metadata: ObjectMeta {
            name: Some(HELLO_SECRET.to_owned()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(FIRST_KEY.to_owned(), ByteString(key.to_vec()))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// What was said, so that it is said once.
#[derive(Default)]
struct Said {
    no_key: bool,
    refused: bool,
}

impl Said {
    fn found(&mut self, found: Found) {
        self.refused = false;
        if found == Found::Nothing {
            info!("made the Secret {HELLO_SECRET} with the speakers' first key");
        }
        let no_key = found == Found::NoKey;
        if no_key && !self.no_key {
            warn!(
                "the Secret {HELLO_SECRET} holds no key, so no speaker announces anything; an entry's name is a number and \
                 its value {KEY_LENGTH} bytes; deleted, it is made anew"
            );
        }
        self.no_key = no_key;
    }

    fn failed(&mut self, error: &kube::Error) {
        let kube::Error::Api(status) = error else {
            debug!(%error, "no answer about the Secret {HELLO_SECRET}");
            return;
        };
        if !std::mem::replace(&mut self.refused, true) {
            let (code, why) = (status.code, &status.message);
            warn!(
                code,
                why,
                "the API server refuses the Secret {HELLO_SECRET}; apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_a_key_that_the_speakers_read() {
        let data = secret([7; KEY_LENGTH]).data.unwrap();
        let ring = KeyRing::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())));
        assert!(!ring.is_empty());
    }
}
