//! Creates the Secret with the hello keys if it is missing, and never changes an existing Secret.
//! One task checks the Secret while this replica holds the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_controller_core::desired::Desired;
use ferrolb_proto::api::HELLO_SECRET;
use ferrolb_proto::wire::hello::{HelloKeyRing, KEY_LENGTH};
use ferrolb_runtime::log_once::LogOnce;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// Interval between two checks of the Secret. If the Secret is deleted, the next check creates it
/// again.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of one check of the Secret.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Name of the Secret's entry that holds the first hello key.
const FIRST_KEY: &str = "1";

/// Checks the Secret while this replica holds the lease. Ends when the main loop drops `desired`.
pub async fn run(client: Client, namespace: String, mut desired: watch::Receiver<Desired>) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let mut logged = LogOnce::default();
    loop {
        if desired.wait_for(|desired| desired.term.is_some()).await.is_err() {
            return;
        }
        match tokio::time::timeout(CHECK_TIMEOUT, check_secret(&secrets)).await {
            Ok(Ok(check)) => log_check(&mut logged, check),
            Ok(Err(error)) => log_failure(&mut logged, &error),
            Err(_) => debug!("the request for Secret {HELLO_SECRET} failed, retrying"),
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Result of a check of the Secret: it holds keys, it holds no key, or the check has created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretCheck {
    Keys,
    NoKey,
    Created,
}

async fn check_secret(secrets: &Api<Secret>) -> kube::Result<SecretCheck> {
    if let Some(secret) = secrets.get_opt(HELLO_SECRET).await? {
        let data = secret.data.unwrap_or_default();
        let ring = HelloKeyRing::from_secret(
            data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())),
        );
        return Ok(if ring.is_empty() { SecretCheck::NoKey } else { SecretCheck::Keys });
    }
    let mut key = [0; KEY_LENGTH];
    if let Err(error) = getrandom::fill(&mut key) {
        warn!(%error, "no key for the speakers was created: the kernel returns no random numbers");
        return Ok(SecretCheck::NoKey);
    }
    match secrets.create(&PostParams::default(), &secret(key)).await {
        Ok(_) => Ok(SecretCheck::Created),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(SecretCheck::Keys),
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

/// A problem with the Secret.
#[derive(PartialEq, Eq)]
enum SecretProblem {
    NoKey,
    Refused,
}

fn log_check(logged: &mut LogOnce<SecretProblem>, check: SecretCheck) {
    match check {
        SecretCheck::NoKey if logged.begins(SecretProblem::NoKey) => warn!(
            "Secret {HELLO_SECRET} holds no key, so no speaker announces an address: add an entry \
             with a number as its name and a value of {KEY_LENGTH} bytes, or delete the Secret to \
             create it again"
        ),
        SecretCheck::NoKey => {}
        SecretCheck::Created => {
            logged.ends();
            info!("created Secret {HELLO_SECRET} with a key for the speakers");
        }
        SecretCheck::Keys => _ = logged.ends(),
    }
}

fn log_failure(logged: &mut LogOnce<SecretProblem>, error: &kube::Error) {
    let kube::Error::Api(status) = error else {
        debug!(%error, "the request for Secret {HELLO_SECRET} failed, retrying");
        return;
    };
    if logged.begins(SecretProblem::Refused) {
        let (code, why) = (status.code, &status.message);
        warn!(
            code,
            why,
            "access to Secret {HELLO_SECRET} rejected, retrying: apply FerroLB's RBAC rules, as in \
             deploy/install.yaml or the Helm chart"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_created_secret_holds_a_valid_key() {
        let data = secret([7; KEY_LENGTH]).data.unwrap();
        let ring = HelloKeyRing::from_secret(
            data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())),
        );
        assert!(!ring.is_empty());
    }
}
