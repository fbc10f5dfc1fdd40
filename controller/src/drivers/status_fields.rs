//! Which status fields the cluster's CRDs have, where they are not ours (`--api-group`): asked of the API server's OpenAPI
//! documents, told as events. One task; it owns its one request. Until a kind is found no status of it is written; addresses
//! are given all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrolb_proto::api::{Kind, OpenApi, StatusFields};
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use kube::Client;
use kube::api::{GetParams, Request};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::event::Event;

/// How often CRDs that are all there are looked at again: an upgrade may have changed them. One that is not there is looked
/// for by the backoff of everything that fails.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(300);
/// How long the API server may take for the documents.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Works for ever; ends when nobody listens any more.
pub async fn run(client: Client, group: String, events: mpsc::Sender<Event>) {
    let mut told: BTreeMap<Kind, StatusFields> = BTreeMap::new();
    let mut said = Said::default();
    let mut backoff = Backoff::default();
    loop {
        let asked = tokio::time::timeout(FETCH_TIMEOUT, fetch(&client, &group)).await;
        let complete = match asked {
            Ok(Ok(documents)) => {
                let mut absent = Vec::new();
                for kind in Kind::OF_CONTROLLER {
                    let found = documents.iter().find_map(|document| document.status_fields(kind, &group));
                    let Some(fields) = found else {
                        absent.push(kind.name());
                        continue;
                    };
                    if told.get(&kind) == Some(&fields) {
                        continue;
                    }
                    debug!(kind = kind.name(), ?fields, "the status fields of the cluster's CRD");
                    told.insert(kind, fields.clone());
                    if events.send(Event::Fields(kind, fields)).await.is_err() {
                        return;
                    }
                }
                said.answered(absent, &group)
            }
            Ok(Err(error)) => said.failed(&error),
            Err(_) => {
                debug!("no answer about the status fields");
                false
            }
        };
        tokio::time::sleep(if complete { CHECK_INTERVAL } else { backoff.next_delay(Clock::now()) }).await;
    }
}

/// The documents of the versions of `group` that our kinds have.
async fn fetch(client: &Client, group: &str) -> kube::Result<Vec<OpenApi>> {
    let versions: BTreeSet<_> = Kind::OF_CONTROLLER.iter().map(|kind| kind.version()).collect();
    let mut documents = Vec::new();
    for version in versions {
        documents.push(fetch_version(client, group, version).await?);
    }
    Ok(documents)
}

/// The document of a version of `group`; one that knows no kind where the server does not have it.
async fn fetch_version(client: &Client, group: &str, version: &str) -> kube::Result<OpenApi> {
    let folder = Request::new(format!("/openapi/v3/apis/{group}"));
    let request = folder.get(version, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Ok(text) => serde_json::from_str(&text).map_err(kube::Error::SerdeError),
        // Such an answer has no reason in it: there is no such path, rather than no such object.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(OpenApi::default()),
        Err(error) => Err(error),
    }
}

/// What was said, so that it is said once.
#[derive(Default)]
struct Said {
    absent: Vec<&'static str>,
    refused: bool,
}

impl Said {
    /// The answer is whether all is there.
    fn answered(&mut self, absent: Vec<&'static str>, group: &str) -> bool {
        let complete = absent.is_empty();
        if absent != self.absent {
            let kinds = absent.join(", ");
            if complete {
                info!(group, "the cluster has all kinds now");
            } else {
                info!(group, kinds, "the cluster has no such kinds: they are looked for again, all else is served");
            }
        }
        (self.absent, self.refused) = (absent, false);
        complete
    }

    /// A server that does not answer is said elsewhere.
    fn failed(&mut self, error: &kube::Error) -> bool {
        let kube::Error::Api(status) = error else {
            debug!(%error, "no answer about the status fields");
            return false;
        };
        if !std::mem::replace(&mut self.refused, true) {
            let (code, why) = (status.code, &status.message);
            warn!(
                code,
                why,
                "the API server does not show its OpenAPI documents, so no status of pools and advertisements is \
                 written; every ServiceAccount may read them by ClusterRole system:discovery"
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

    /// Documents with these kinds and the fields of their statuses, all in one.
    fn document(kinds: &[(Kind, &[&str])]) -> (u16, Value) {
        let (mut paths, mut schemas) = (json!({}), json!({}));
        for (kind, fields) in kinds {
            let version = kind.version();
            let path = format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}/{}/{{name}}/status", kind.plural());
            paths[path] = json!({});
            let fields: BTreeMap<_, _> = fields.iter().map(|field| (*field, json!({"type": "integer"}))).collect();
            schemas[kind.name()] = json!({
                "x-kubernetes-group-version-kind": [{"group": GROUP, "version": version, "kind": kind.name()}],
                "properties": {"status": {"type": "object", "properties": fields}},
            });
        }
        (200, json!({"paths": paths, "components": {"schemas": schemas}}))
    }

    fn refusal(code: u16) -> (u16, Value) {
        (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": "no"}))
    }

    /// A server that gives these answers in turn and the last one for ever, of each version what is of it, and how often it was asked for ours.
    fn scripted(answers: Vec<(u16, Value)>) -> (Client, Arc<Mutex<usize>>) {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            let mut asked = count.lock().unwrap();
            let version = request.uri().path().strip_prefix(&format!("/openapi/v3/apis/{GROUP}/")).unwrap().to_owned();
            // That of BGPPeers comes second, unless the first was refused.
            *asked += usize::from(version == VERSION);
            assert!(version == VERSION || version == Kind::BGPPeer.version(), "{version}");
            let (code, mut json) = answers.get(*asked - 1).or(answers.last()).unwrap().clone();
            if let Some(schemas) = json["components"]["schemas"].as_object_mut() {
                schemas.retain(|_, schema| schema["x-kubernetes-group-version-kind"][0]["version"] == *version);
            }
            async move {
                let body = Full::new(Bytes::from(json.to_string()));
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Client::new(service, "default"), asked)
    }

    /// What the driver tells of such a server within `length`, and how often it asked.
    async fn told(answers: Vec<(u16, Value)>, length: Duration) -> (Vec<String>, usize) {
        let (client, asked) = scripted(answers);
        let (events, mut queue) = mpsc::channel(64);
        let driver = run(client, GROUP.to_owned(), events);
        assert!(tokio::time::timeout(length, driver).await.is_err(), "it works for ever");
        let mut told = Vec::new();
        while let Ok(event) = queue.try_recv() {
            let Event::Fields(kind, StatusFields::Only(fields)) = event else { panic!("{event:?}") };
            told.push(format!("{} {}", kind.name(), fields.into_iter().collect::<Vec<_>>().join(" ")));
        }
        let asked = *asked.lock().unwrap();
        (told, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_is_told_as_soon_as_it_is_there_and_once() {
        let pool = (Kind::IPAddressPool, &["assignedIPv4"][..]);
        let rest =
            Kind::OF_CONTROLLER.into_iter().filter(|kind| *kind != Kind::IPAddressPool).map(|kind| (kind, &[][..]));
        let all: Vec<_> = [pool].into_iter().chain(rest).collect();
        let answers = vec![refusal(404), document(&[pool]), refusal(403), document(&all[..2]), document(&all)];
        let (told, asked) = told(answers, CHECK_INTERVAL).await;
        assert_eq!(told[..3], ["IPAddressPool assignedIPv4", "L2Advertisement ", "BGPAdvertisement "]);
        assert_eq!(told[3..], ["BGPPeer ", "BFDProfile ", "Community "]);
        assert_eq!(asked, 5, "what is complete is looked at again only after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crd_that_changes_later_is_told_again() {
        let of = |fields| document(&Kind::OF_CONTROLLER.map(|kind| (kind, fields)));
        let (told, asked) = told(vec![of(&[]), of(&[]), of(&["conditions"])], CHECK_INTERVAL * 5 / 2).await;
        assert_eq!((told.len(), asked), (12, 3), "{told:?}");
        assert_eq!(told[6..], Kind::OF_CONTROLLER.map(|kind| format!("{} conditions", kind.name())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_that_stays_away_is_looked_for_without_a_storm() {
        let (told, asked) = told(vec![document(&[(Kind::IPAddressPool, &[])])], Duration::from_secs(600)).await;
        assert_eq!(told, ["IPAddressPool "]);
        assert!((20..=80).contains(&asked), "{asked} times in ten minutes");
    }

    #[tokio::test]
    async fn a_server_without_the_group_knows_no_kind_and_one_that_refuses_says_nothing() {
        let (client, _) = scripted(vec![refusal(404), refusal(403)]);
        let documents = fetch(&client, GROUP).await.unwrap();
        let fields = |document: &OpenApi| document.status_fields(Kind::IPAddressPool, GROUP);
        assert_eq!(documents.iter().map(fields).collect::<Vec<_>>(), [None, None]);
        fetch(&client, GROUP).await.unwrap_err();
    }
}
