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

use ferrolb_proto::controller::event::Event;

/// Interval between two checks of the CRDs once all of them exist, because an upgrade may change
/// them. While a CRD is missing, the checks follow the retry backoff.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// Timeout for reading all OpenAPI documents together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Reports the status fields of each kind to the main loop, and every later change of these fields.
/// Ends when the receiver of `events` is dropped.
pub async fn run(client: Client, group: String, events: mpsc::Sender<Event>) {
    let mut reported: BTreeMap<CustomResourceKind, StatusFields> = BTreeMap::new();
    let mut logged = LoggedCrdProblems::default();
    let mut backoff = Backoff::default();
    loop {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch(&client, &group)).await;
        let complete = match fetched {
            Ok(Ok(documents)) => {
                let mut missing_kinds = Vec::new();
                for kind in CustomResourceKind::WITH_CONTROLLER_STATUS {
                    let found =
                        documents.iter().find_map(|document| document.status_fields(kind, &group));
                    let Some(fields) = found else {
                        missing_kinds.push(kind.name());
                        continue;
                    };
                    if reported.get(&kind) == Some(&fields) {
                        continue;
                    }
                    debug!(kind = kind.name(), ?fields, "the status fields of the cluster's CRD");
                    reported.insert(kind, fields.clone());
                    if events.send(Event::StatusFieldsRead(kind, fields)).await.is_err() {
                        return;
                    }
                }
                logged.log_missing(missing_kinds, &group)
            }
            Ok(Err(error)) => logged.log_failure(&error),
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

/// Reads the OpenAPI documents of all versions of `group` with a kind whose status the controller
/// writes.
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
    let group_path = Request::new(format!("/openapi/v3/apis/{group}"));
    let request =
        group_path.get(version, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Ok(text) => serde_json::from_str(&text).map_err(kube::Error::SerdeError),
        // Compare the code, because the API server replies to an unknown path without the `reason`
        // of a missing object.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(OpenApiDocument::default()),
        Err(error) => Err(error),
    }
}

/// Problems with the OpenAPI documents that were already logged, so that each is logged only once.
#[derive(Default)]
struct LoggedCrdProblems {
    missing: Vec<&'static str>,
    refused: bool,
}

impl LoggedCrdProblems {
    /// Logs the missing kinds if they have changed. Returns whether all kinds exist.
    fn log_missing(&mut self, missing_kinds: Vec<&'static str>, group: &str) -> bool {
        let complete = missing_kinds.is_empty();
        if missing_kinds != self.missing {
            let kinds = missing_kinds.join(", ");
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
        (self.missing, self.refused) = (missing_kinds, false);
        complete
    }

    /// Logs the first of several consecutive rejections. Returns false, because not all kinds are
    /// known. [`ferrolb_runtime::api_health`] logs an unreachable API server.
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

    /// Returns a response with an OpenAPI document that has these kinds, each with the fields of
    /// its status.
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

    fn refused_response(code: u16) -> (u16, Value) {
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": "no"}),
        )
    }

    /// Returns the client of an API server that sends these responses in turn and then repeats the
    /// last one. Each response is reduced to the requested version. Also returns the number of
    /// requests for [`VERSION`].
    fn scripted(responses: Vec<(u16, Value)>) -> (Client, Arc<Mutex<usize>>) {
        let request_count = Arc::new(Mutex::new(0));
        let count = Arc::clone(&request_count);
        let service = service_fn(move |request: Request<Body>| {
            let mut request_count = count.lock().unwrap();
            let version = request
                .uri()
                .path()
                .strip_prefix(&format!("/openapi/v3/apis/{GROUP}/"))
                .unwrap()
                .to_owned();
            // Each check requests `VERSION` first. The version of BGPPeers gets the same response.
            *request_count += usize::from(version == VERSION);
            assert!(
                version == VERSION || version == CustomResourceKind::BGPPeer.version(),
                "{version}"
            );
            let (code, mut json) =
                responses.get(*request_count - 1).or(responses.last()).unwrap().clone();
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
        (Client::new(service, "default"), request_count)
    }

    /// Returns the fields that the driver reports within `duration`, and the number of requests for
    /// [`VERSION`].
    async fn reported_by_driver(
        responses: Vec<(u16, Value)>,
        duration: Duration,
    ) -> (Vec<String>, usize) {
        let (client, request_count) = scripted(responses);
        let (events, mut queue) = mpsc::channel(64);
        let driver = run(client, GROUP.to_owned(), events);
        assert!(tokio::time::timeout(duration, driver).await.is_err(), "the driver does not end");
        let mut reported = Vec::new();
        while let Ok(event) = queue.try_recv() {
            let Event::StatusFieldsRead(kind, StatusFields::Only(fields)) = event else {
                panic!("{event:?}")
            };
            reported.push(format!(
                "{} {}",
                kind.name(),
                fields.into_iter().collect::<Vec<_>>().join(" ")
            ));
        }
        let request_count = *request_count.lock().unwrap();
        (reported, request_count)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_reported_once_as_soon_as_its_crd_exists() {
        let pool = (CustomResourceKind::IPAddressPool, &["assignedIPv4"][..]);
        let rest = CustomResourceKind::WITH_CONTROLLER_STATUS
            .into_iter()
            .filter(|kind| *kind != CustomResourceKind::IPAddressPool)
            .map(|kind| (kind, &[][..]));
        let all: Vec<_> = [pool].into_iter().chain(rest).collect();
        let responses = vec![
            refused_response(404),
            document(&[pool]),
            refused_response(403),
            document(&all[..2]),
            document(&all),
        ];
        let (reported, request_count) = reported_by_driver(responses, CHECK_INTERVAL).await;
        assert_eq!(
            reported[..3],
            ["IPAddressPool assignedIPv4", "L2Advertisement ", "BGPAdvertisement "]
        );
        assert_eq!(reported[3..], ["BGPPeer ", "BFDProfile ", "Community "]);
        assert_eq!(
            request_count, 5,
            "after all CRDs exist, the next check follows only after CHECK_INTERVAL"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_crd_is_reported_again() {
        let all_kinds_with = |fields| {
            document(&CustomResourceKind::WITH_CONTROLLER_STATUS.map(|kind| (kind, fields)))
        };
        let (reported, request_count) = reported_by_driver(
            vec![all_kinds_with(&[]), all_kinds_with(&[]), all_kinds_with(&["conditions"])],
            CHECK_INTERVAL * 5 / 2,
        )
        .await;
        assert_eq!((reported.len(), request_count), (12, 3), "{reported:?}");
        assert_eq!(
            reported[6..],
            CustomResourceKind::WITH_CONTROLLER_STATUS
                .map(|kind| format!("{} conditions", kind.name()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_crd_is_checked_with_backoff() {
        let (reported, request_count) = reported_by_driver(
            vec![document(&[(CustomResourceKind::IPAddressPool, &[])])],
            Duration::from_secs(600),
        )
        .await;
        assert_eq!(reported, ["IPAddressPool "]);
        assert!(
            (20..=80).contains(&request_count),
            "the driver sends {request_count} requests in ten minutes"
        );
    }

    #[tokio::test]
    async fn a_missing_group_has_no_kind_and_a_refusal_is_an_error() {
        let (client, _) = scripted(vec![refused_response(404), refused_response(403)]);
        let documents = fetch(&client, GROUP).await.unwrap();
        let fields = |document: &OpenApiDocument| {
            document.status_fields(CustomResourceKind::IPAddressPool, GROUP)
        };
        assert_eq!(documents.iter().map(fields).collect::<Vec<_>>(), [None, None]);
        fetch(&client, GROUP).await.unwrap_err();
    }
}
