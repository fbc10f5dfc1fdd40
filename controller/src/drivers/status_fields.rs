//! Discovery of the status fields that the cluster's CRDs have, for CRDs that are not FerroLB's own
//! (`--api-group`).
//!
//! One task reads the API server's OpenAPI documents, one request at a time, and reports the fields
//! as events. The status of a kind is not written until its CRD is found; addresses are assigned
//! nevertheless.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrolb_proto::api::{CustomResourceKind, OpenApiDocument, StatusFields};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use kube::Client;
use kube::api::{GetParams, Request};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::event::Event;

/// Interval between two checks once all CRDs exist, because an upgrade may change them. While a CRD
/// is missing, the checks follow the retry backoff.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// Timeout for reading all OpenAPI documents together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Reports the status fields of each kind and every later change of them. Ends when the receiver of
/// `events` is dropped.
pub async fn run(client: Client, group: String, events: mpsc::Sender<Event>) {
    let mut told: BTreeMap<CustomResourceKind, StatusFields> = BTreeMap::new();
    let mut said = LoggedProblems::default();
    let mut backoff = Backoff::default();
    loop {
        let asked = tokio::time::timeout(FETCH_TIMEOUT, fetch(&client, &group)).await;
        let complete = match asked {
            Ok(Ok(documents)) => {
                let mut absent = Vec::new();
                for kind in CustomResourceKind::WITH_CONTROLLER_STATUS {
                    let found =
                        documents.iter().find_map(|document| document.status_fields(kind, &group));
                    let Some(fields) = found else {
                        absent.push(kind.name());
                        continue;
                    };
                    if told.get(&kind) == Some(&fields) {
                        continue;
                    }
                    debug!(kind = kind.name(), ?fields, "the status fields of the cluster's CRD");
                    told.insert(kind, fields.clone());
                    if events.send(Event::StatusFieldsRead(kind, fields)).await.is_err() {
                        return;
                    }
                }
                said.log_missing(absent, &group)
            }
            Ok(Err(error)) => said.log_failure(&error),
            Err(_) => {
                debug!("the request for the OpenAPI documents failed, retrying");
                false
            }
        };
        tokio::time::sleep(if complete {
            CHECK_INTERVAL
        } else {
            backoff.next_delay(Clock::now())
        })
        .await;
    }
}

/// Reads the OpenAPI documents of all versions of `group` that contain a kind of the controller.
async fn fetch(client: &Client, group: &str) -> kube::Result<Vec<OpenApiDocument>> {
    let versions: BTreeSet<_> =
        CustomResourceKind::WITH_CONTROLLER_STATUS.iter().map(|kind| kind.version()).collect();
    let mut documents = Vec::new();
    for version in versions {
        documents.push(fetch_version(client, group, version).await?);
    }
    Ok(documents)
}

/// Reads the OpenAPI document of a version of `group`. Returns an empty document if the API server
/// does not serve that version.
async fn fetch_version(
    client: &Client,
    group: &str,
    version: &str,
) -> kube::Result<OpenApiDocument> {
    let folder = Request::new(format!("/openapi/v3/apis/{group}"));
    let request = folder.get(version, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Ok(text) => serde_json::from_str(&text).map_err(kube::Error::SerdeError),
        // Compare the code, because this response has no `reason`: the API server has no such path,
        // which is not the same as a missing object.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(OpenApiDocument::default()),
        Err(error) => Err(error),
    }
}

/// Problems with the OpenAPI documents that were already logged, so that each is logged only once.
#[derive(Default)]
struct LoggedProblems {
    missing: Vec<&'static str>,
    refused: bool,
}

impl LoggedProblems {
    /// Logs the missing kinds if they have changed. Returns whether all kinds exist.
    fn log_missing(&mut self, absent: Vec<&'static str>, group: &str) -> bool {
        let complete = absent.is_empty();
        if absent != self.missing {
            let kinds = absent.join(", ");
            if complete {
                info!(group, "all CustomResourceDefinitions are installed");
            } else {
                info!(
                    group,
                    kinds,
                    "CustomResourceDefinitions missing, retrying: apply deploy/base/crds.yaml or \
                     the chart's folder crds; the other kinds are served"
                );
            }
        }
        (self.missing, self.refused) = (absent, false);
        complete
    }

    /// Logs the first of several consecutive refusals, and returns false.
    /// [`ferrolb_runtime::api_health`] logs an unreachable API server.
    fn log_failure(&mut self, error: &kube::Error) -> bool {
        let kube::Error::Api(status) = error else {
            debug!(%error, "the request for the OpenAPI documents failed, retrying");
            return false;
        };
        if !std::mem::replace(&mut self.refused, true) {
            let (code, why) = (status.code, &status.message);
            warn!(
                code,
                why,
                "access to the OpenAPI documents rejected, so no status of pools and \
                 advertisements is written: bind ClusterRole system:discovery, which every \
                 ServiceAccount has by default"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http_body_util::Full;
    use hyper::body::Bytes;
    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::service_fn;

    use ferrolb_proto::api::VERSION;

    use super::*;

    const GROUP: &str = "metallb.io";

    /// A single document with these kinds and the fields of their statuses.
    fn document(kinds: &[(CustomResourceKind, &[&str])]) -> (u16, Value) {
        let (mut paths, mut schemas) = (json!({}), json!({}));
        for (kind, fields) in kinds {
            let version = kind.version();
            let path = format!(
                "/apis/{GROUP}/{version}/namespaces/{{namespace}}/{}/{{name}}/status",
                kind.plural()
            );
            paths[path] = json!({});
            let fields: BTreeMap<_, _> =
                fields.iter().map(|field| (*field, json!({"type": "integer"}))).collect();
            schemas[kind.name()] = json!({
                "x-kubernetes-group-version-kind": [{"group": GROUP, "version": version, "kind": kind.name()}],
                "properties": {"status": {"type": "object", "properties": fields}},
            });
        }
        (200, json!({"paths": paths, "components": {"schemas": schemas}}))
    }

    fn refusal(code: u16) -> (u16, Value) {
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": "no"}),
        )
    }

    /// Creates an API server that returns these responses in turn, then repeats the last one. Each
    /// response is reduced to the requested version. Also counts the requests for [`VERSION`].
    fn scripted(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<usize>>) {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            let mut asked = count.lock().unwrap();
            let version = request
                .uri()
                .path()
                .strip_prefix(&format!("/openapi/v3/apis/{GROUP}/"))
                .unwrap()
                .to_owned();
            // The version of BGPPeers is requested second, unless the first request is refused.
            *asked += usize::from(version == VERSION);
            assert!(
                version == VERSION || version == CustomResourceKind::BGPPeer.version(),
                "{version}"
            );
            let (code, mut json) = answers.get(*asked - 1).or(answers.last()).unwrap().clone();
            if let Some(schemas) = json["components"]["schemas"].as_object_mut() {
                schemas.retain(|_, schema| {
                    schema["x-kubernetes-group-version-kind"][0]["version"] == *version
                });
            }
            async move {
                let body = Full::new(Bytes::from(json.to_string()));
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Client::new(service, "default"), asked)
    }

    /// Returns the fields that the driver reports within `length`, and the number of requests for
    /// [`VERSION`].
    async fn told(answers: Vec<(u16, Value)>, length: Duration) -> (Vec<String>, usize) {
        let (client, asked) = scripted(answers);
        let (events, mut queue) = mpsc::channel(64);
        let driver = run(client, GROUP.to_owned(), events);
        assert!(tokio::time::timeout(length, driver).await.is_err(), "it works for ever");
        let mut told = Vec::new();
        while let Ok(event) = queue.try_recv() {
            let Event::StatusFieldsRead(kind, StatusFields::Only(fields)) = event else {
                panic!("{event:?}")
            };
            told.push(format!(
                "{} {}",
                kind.name(),
                fields.into_iter().collect::<Vec<_>>().join(" ")
            ));
        }
        let asked = *asked.lock().unwrap();
        (told, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_told_as_soon_as_it_is_there_and_once() {
        let pool = (CustomResourceKind::IPAddressPool, &["assignedIPv4"][..]);
        let rest = CustomResourceKind::WITH_CONTROLLER_STATUS
            .into_iter()
            .filter(|kind| *kind != CustomResourceKind::IPAddressPool)
            .map(|kind| (kind, &[][..]));
        let all: Vec<_> = [pool].into_iter().chain(rest).collect();
        let answers = vec![
            refusal(404),
            document(&[pool]),
            refusal(403),
            document(&all[..2]),
            document(&all),
        ];
        let (told, asked) = told(answers, CHECK_INTERVAL).await;
        assert_eq!(
            told[..3],
            ["IPAddressPool assignedIPv4", "L2Advertisement ", "BGPAdvertisement "]
        );
        assert_eq!(told[3..], ["BGPPeer ", "BFDProfile ", "Community "]);
        assert_eq!(asked, 5, "what is complete is looked at again only after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crd_that_changes_later_is_told_again() {
        let of = |fields| {
            document(&CustomResourceKind::WITH_CONTROLLER_STATUS.map(|kind| (kind, fields)))
        };
        let (told, asked) =
            told(vec![of(&[]), of(&[]), of(&["conditions"])], CHECK_INTERVAL * 5 / 2).await;
        assert_eq!((told.len(), asked), (12, 3), "{told:?}");
        assert_eq!(
            told[6..],
            CustomResourceKind::WITH_CONTROLLER_STATUS
                .map(|kind| format!("{} conditions", kind.name()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_stays_away_is_looked_for_without_a_storm() {
        let (told, asked) = told(
            vec![document(&[(CustomResourceKind::IPAddressPool, &[])])],
            Duration::from_secs(600),
        )
        .await;
        assert_eq!(told, ["IPAddressPool "]);
        assert!((20..=80).contains(&asked), "{asked} times in ten minutes");
    }

    #[tokio::test]
    async fn a_server_without_the_group_knows_no_kind_and_one_that_refuses_says_nothing() {
        let (client, _) = scripted(vec![refusal(404), refusal(403)]);
        let documents = fetch(&client, GROUP).await.unwrap();
        let fields = |document: &OpenApiDocument| {
            document.status_fields(CustomResourceKind::IPAddressPool, GROUP)
        };
        assert_eq!(documents.iter().map(fields).collect::<Vec<_>>(), [None, None]);
        fetch(&client, GROUP).await.unwrap_err();
    }
}
