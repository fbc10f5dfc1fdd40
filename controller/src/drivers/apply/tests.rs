//! Tests of status writes with a scripted API server, which logs the requests that it receives.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use clap::Parser;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{ConditionMessage, ConditionStatus, IpMode};
use ferrolb_proto::facts::{AddressRecord, RememberedAddresses};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::Body;
use tower::service_fn;

use super::*;
use crate::flags::Flags;

/// Requests that the scripted API server received: method, path and query, body.
pub(in crate::drivers) type RequestLog = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Returns an applier whose API server sends these responses in turn, and the log of the requests.
pub(in crate::drivers) fn scripted(responses: Vec<(u16, Value)>) -> (Applier, RequestLog) {
    scripted_with_delay(responses, Duration::ZERO)
}

/// Returns the receiver of a [`Desired`] whose lease ends at `until`.
fn lease_until(until: Instant) -> watch::Receiver<Desired> {
    watch::channel(Desired { until, ..Desired::default() }).1
}

/// Like [`scripted`], with a delay before each response.
fn scripted_with_delay(responses: Vec<(u16, Value)>, delay: Duration) -> (Applier, RequestLog) {
    let requests = RequestLog::default();
    let responses = Arc::new(Mutex::new(responses.into_iter()));
    let log = Arc::clone(&requests);
    let service = service_fn(move |request: Request<Body>| {
        let (response, log) = (responses.lock().unwrap().next(), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            log.lock().unwrap().push((parts.method.to_string(), parts.uri.to_string(), body));
            tokio::time::sleep(delay).await;
            let (code, json) = response.expect("the script has a response for every request");
            let body = Full::new(Bytes::from(json.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let flags = Flags::parse_from(["ferrolb-controller"]).common;
    (
        Applier::new(
            Client::new(service, "default"),
            &flags,
            lease_until(Instant::from_nanos(u64::MAX)),
        ),
        requests,
    )
}

fn conflict_response() -> (u16, Value) {
    let message = "conflict with \"kubectl\": .status.loadBalancer.ingress";
    (
        409,
        json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": message}),
    )
}

fn service_response(uid: &str, class: Option<&str>) -> (u16, Value) {
    let spec =
        json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "loadBalancerClass": class});
    (
        200,
        json!({"metadata": {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": "7"}, "spec": spec}),
    )
}

pub(in crate::drivers) fn service_write(addresses: &[&str]) -> Write {
    let condition = Condition {
        status: ConditionStatus::True,
        reason: "Assigned".into(),
        message: ConditionMessage::new("m"),
        since: Some(1_767_323_045),
    };
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let record = AddressRecord { addresses: addresses.as_slice().into(), sharing: Some(0xab) };
    let status = ServiceStatus {
        uid: "u1".into(),
        ingress: IngressChange::Assign,
        seen: Vec::new(),
        addresses: addresses.clone(),
        mode: IpMode::Vip,
        pool: (!addresses.is_empty()).then(|| "lan".into()),
        record: (!addresses.is_empty()).then(|| Box::new(record)),
        condition: (!addresses.is_empty()).then_some(condition),
        announced: None,
        notices: Vec::new(),
    };
    Write {
        attempt: 1,
        reports_refusal: false,
        status: Status::Service(Key::new("default", "web"), status),
    }
}

#[tokio::test]
async fn one_request_writes_addresses_conditions_and_annotations() {
    let record = r#"{"addresses":["10.0.0.1","fd00::1"],"service":"default/web","sharingParameters":"00000000000000ab"}"#;
    let (applier, requests) = scripted(vec![service_response("u1", None)]);
    applier.write(&service_write(&["10.0.0.1", "fd00::1"])).await.unwrap();
    let requests = requests.lock().unwrap();
    let [(method, uri, body)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(method, "PATCH");
    assert!(uri.starts_with("/api/v1/namespaces/default/services/web/status?"), "{uri}");
    assert!(uri.contains("fieldManager=ferrolb-controller") && !uri.contains("force"), "{uri}");
    assert_eq!(
        *body,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": "web", "uid": "u1",
                "annotations": {"ferrolb.io/ip-allocated-from-pool": "lan", "ferrolb.io/assigned": record}},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}, {"ip": "fd00::1", "ipMode": "VIP"}]},
                "conditions": [{"type": "ferrolb.io/AddressAssigned", "status": "True", "reason": "Assigned",
                    "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            },
        })
    );
}

#[tokio::test]
async fn releasing_a_service_clears_addresses_and_annotations() {
    let (applier, requests) = scripted(vec![service_response("u1", None)]);
    applier.write(&service_write(&[])).await.unwrap();
    let body = &requests.lock().unwrap()[0].2;
    assert_eq!(body["status"], json!({"loadBalancer": {"ingress": []}}));
    assert_eq!(body["metadata"].get("annotations"), None);
}

#[tokio::test]
async fn co_owned_annotations_are_removed_at_the_written_version() {
    let (code, mut leftover) = service_response("u1", None);
    let annotations = |value: &Value| json!({"ferrolb.io/ip-allocated-from-pool": value, "ferrolb.io/assigned": value});
    leftover["metadata"]["annotations"] = annotations(&json!("ab"));
    let (applier, requests) = scripted(vec![(code, leftover), service_response("u1", None)]);
    applier.write(&service_write(&[])).await.unwrap();
    let requests = requests.lock().unwrap();
    let [_, (method, uri, body)] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(
        method == "PATCH" && uri.starts_with("/api/v1/namespaces/default/services/web/status?"),
        "{method} {uri}"
    );
    let patch = json!({"resourceVersion": "7", "annotations": annotations(&Value::Null)});
    assert_eq!(*body, json!({"metadata": patch}));
}

#[tokio::test]
async fn leftover_annotations_and_conditions_are_removed() {
    let (code, mut leftover) = service_response("u1", None);
    let condition = |kind| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    leftover["metadata"]["annotations"] = json!({"ferrolb.io/ip-allocated-from-pool": "lan"});
    leftover["status"]["conditions"] = json!(
        ["ferrolb.io/AddressAssigned", "ferrolb.io/Announced", "example.com/Other"].map(condition)
    );
    let (applier, requests) = scripted(vec![(code, leftover), service_response("u1", None)]);
    applier.write(&service_write(&[])).await.unwrap();
    let requests = requests.lock().unwrap();
    let [_, (_, _, body)] = requests.as_slice() else { panic!("{requests:?}") };
    let patch = |kind| json!({"$patch": "delete", "type": kind});
    let removed = ["ferrolb.io/AddressAssigned", "ferrolb.io/Announced"].map(patch);
    assert_eq!(body["status"], json!({"conditions": removed}));
    assert_eq!(body["metadata"]["annotations"], json!({"ferrolb.io/ip-allocated-from-pool": null}));
}

#[tokio::test]
async fn no_request_is_sent_after_the_lease_expires() {
    let (applier, requests) = scripted_with_delay(
        vec![conflict_response(), service_response("u1", None)],
        Duration::from_millis(60),
    );
    let (desired, receiver) = watch::channel(Desired::default());
    let applier = Applier { desired: receiver, ..applier };
    assert!(matches!(
        applier.write(&service_write(&["10.0.0.1"])).await,
        Err(WriteFailure::Expired)
    ));
    assert_eq!(requests.lock().unwrap().len(), 0);
    desired.send_replace(Desired {
        until: Clock::now() + Duration::from_millis(50),
        ..Desired::default()
    });
    assert!(
        matches!(applier.write(&service_write(&["10.0.0.1"])).await, Err(WriteFailure::Expired)),
        "the lease expires during the first request"
    );
    assert_eq!(requests.lock().unwrap().len(), 1, "each request is sent within the lease");
}

#[tokio::test]
async fn ownership_is_forced_only_at_the_version_that_was_read() {
    let (applier, requests) = scripted(vec![
        conflict_response(),
        service_response("u1", Some("ferrolb.io/ferrolb")),
        service_response("u1", None),
    ]);
    applier.write(&service_write(&["10.0.0.1"])).await.unwrap();
    let requests = requests.lock().unwrap();
    let methods: Vec<_> = requests.iter().map(|(method, ..)| method.as_str()).collect();
    assert_eq!(methods, ["PATCH", "GET", "PATCH"]);
    assert!(requests[2].1.contains("force=true"), "{}", requests[2].1);
    assert_eq!(requests[2].2["metadata"]["resourceVersion"], "7");
}

#[tokio::test]
async fn ownership_of_a_replaced_or_foreign_service_is_not_forced() {
    for service in [service_response("u2", None), service_response("u1", Some("other.io/lb"))] {
        let (applier, requests) = scripted(vec![conflict_response(), service]);
        let result = applier.write(&service_write(&["10.0.0.1"])).await;
        assert!(matches!(result, Err(WriteFailure::Outdated)), "{result:?}");
        assert_eq!(requests.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn releasing_a_service_gives_up_only_own_fields() {
    let mut write = service_write(&[]);
    let Status::Service(_, status) = &mut write.status else { panic!() };
    status.ingress = IngressChange::Release;
    let with_fields = |kind: &str| {
        let (code, mut service) = service_response("u1", Some("other"));
        service["spec"]["type"] = json!(kind);
        service["metadata"]["annotations"] = json!({"ferrolb.io/ip-allocated-from-pool": "lan"});
        (code, service)
    };
    for (kind, requests_expected) in [("LoadBalancer", 2), ("ClusterIP", 3)] {
        let (applier, requests) = scripted(vec![with_fields(kind); 3]);
        applier.write(&write).await.unwrap();
        let requests = requests.lock().unwrap();
        let (_, uri, body) = &requests[1];
        assert!(uri.contains("force=true"), "{uri}");
        let metadata =
            json!({"namespace": "default", "name": "web", "uid": "u1", "resourceVersion": "7"});
        assert_eq!(*body, json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}));
        assert_eq!(requests.len(), requests_expected, "{kind}: {requests:?}");
    }
    let (applier, requests) = scripted(vec![service_response("u1", None)]);
    let failure = applier.write(&write).await;
    assert!(matches!(failure, Err(WriteFailure::Outdated)), "the Service is FerroLB's again");
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_that_another_client_has_written_meanwhile_stay() {
    let (code, mut other) = service_response("u1", None);
    other["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    for (seen, expected) in [(vec![], 2), (vec!["192.0.2.7"], 3)] {
        let mut write = service_write(&["10.0.0.1"]);
        let Status::Service(_, status) = &mut write.status else { panic!() };
        status.seen = seen.iter().map(|text| text.parse().unwrap()).collect();
        let responses = vec![conflict_response(), (code, other.clone()), (code, other.clone())];
        let (applier, requests) = scripted(responses);
        let result = applier.write(&write).await;
        assert_eq!(result.is_ok(), expected == 3, "{seen:?}: {result:?}");
        assert_eq!(requests.lock().unwrap().len(), expected);
    }
}

/// Returns a response with a Service that has this annotation, and whose `managedFields` list
/// `owned` as the status fields of the controller.
fn metallb_service_response(annotation: &str, owned: Value) -> (u16, Value) {
    let (code, mut service) = service_response("u1", None);
    service["metadata"]["annotations"] = json!({annotation: "other"});
    service["metadata"]["managedFields"] = json!([{"manager": "ferrolb-controller.ferrolb-system", "operation": "Apply", "fieldsV1": {"f:status": owned}}]);
    service["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "hostname": "lb", "ports": []}]}});
    (code, service)
}

#[tokio::test]
async fn the_addresses_of_a_metallb_service_are_not_changed() {
    let annotation = "metallb.io/ip-allocated-from-pool";
    let mut write = service_write(&[]);
    let Status::Service(_, status) = &mut write.status else { panic!() };
    status.ingress = IngressChange::KeepForMetalLb;
    let owned = json!({"f:loadBalancer": {"f:ingress": {}}, "f:conditions": {}});
    for (fields, repeated) in [(owned.clone(), true), (json!({"f:conditions": {}}), false)] {
        let (applier, requests) = scripted(vec![
            metallb_service_response(annotation, fields),
            service_response("u1", None),
        ]);
        applier.write(&write).await.unwrap();
        let requests = requests.lock().unwrap();
        let [(get, ..), (patch, _, body)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(
            (get.as_str(), patch.as_str(), &body["metadata"]["resourceVersion"]),
            ("GET", "PATCH", &json!("7"))
        );
        let expected = repeated
            .then(|| json!({"ingress": [{"ip": "192.0.2.7", "hostname": "lb", "ports": []}]}));
        assert_eq!(
            body["status"].get("loadBalancer"),
            expected.as_ref(),
            "server-side apply would remove a co-owned field that the write omits"
        );
        assert_eq!(body["metadata"].get("annotations"), None);
    }
    let (applier, requests) = scripted(vec![metallb_service_response("example.com/x", owned)]);
    assert!(
        matches!(applier.write(&write).await, Err(WriteFailure::Outdated)),
        "MetalLB does not serve the Service any more"
    );
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_response_times_out() {
    let service = service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let flags = Flags::parse_from(["ferrolb-controller"]).common;
    let applier = Applier::new(
        Client::new(service, "default"),
        &flags,
        lease_until(Instant::from_nanos(u64::MAX)),
    );
    assert!(matches!(
        applier.write(&service_write(&["10.0.0.1"])).await,
        Err(WriteFailure::TimedOut)
    ));
}

#[tokio::test]
async fn an_unreadable_response_differs_from_no_response() {
    let (applier, _) = scripted(vec![(200, json!("no Service"))]);
    let failure = applier.write(&service_write(&["10.0.0.1"])).await.unwrap_err();
    let why = failure.refusal().unwrap_or_default();
    assert!(why.starts_with("cannot read the response of the API server: "), "{failure:?}");
    let (applier, _) =
        scripted(vec![(503, json!({"kind": "Status", "status": "Failure", "code": 503}))]);
    assert_eq!(
        applier.write(&service_write(&["10.0.0.1"])).await.unwrap_err().refusal(),
        None,
        "503 means that the API server is unavailable"
    );
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_write_has_its_own_timeout() {
    let delay = WRITE_TIMEOUT - Duration::from_millis(1);
    let (applier, requests) = scripted_with_delay(
        vec![conflict_response(), service_response("u1", None), service_response("u1", None)],
        delay,
    );
    applier.write(&service_write(&["10.0.0.1"])).await.unwrap();
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_pool_status_omits_counts_that_do_not_fit() {
    let (applier, requests) = scripted(vec![(200, json!({"metadata": {"name": "lan"}}))]);
    let valid = Condition {
        status: ConditionStatus::True,
        reason: "Valid".into(),
        message: ConditionMessage::new("m"),
        since: None,
    };
    let valid = ValidStatus { condition: valid, generation: 4 };
    let status = PoolStatus {
        assigned: [1, 2],
        available: [Some(3), None],
        text: "3 IPv4, many".into(),
        valid,
    };
    let write = Write {
        attempt: 1,
        reports_refusal: false,
        status: Status::CustomResource("lan".into(), CustomResourceStatus::Pool(status)),
    };
    applier.write(&write).await.unwrap();
    let (_, uri, body) = &requests.lock().unwrap()[0];
    assert!(
        uri.starts_with(
            "/apis/ferrolb.io/v1beta1/namespaces/ferrolb-system/ipaddresspools/lan/status?"
        ),
        "{uri}"
    );
    let status = &body["status"];
    assert_eq!(
        (&status["assignedIPv4"], &status["availableIPv4"], status.get("availableIPv6")),
        (&json!(1), &json!(3), None)
    );
    assert_eq!(status["observedGeneration"], 4);
    let time = status["conditions"][0]["lastTransitionTime"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.len() == 20, "{time}");
}

#[tokio::test]
async fn the_address_memory_replaces_the_data_of_its_config_map() {
    let stored = json!({"metadata": {"name": "memory"}, "data": {"shop.web": "", "old.web": ""}});
    let (applier, requests) = scripted(vec![(200, stored.clone()), (200, stored)]);
    let services = vec![RememberedAddresses {
        key: Key::new("shop", "web"),
        addresses: vec![[10, 0, 0, 1].into()],
        released_at: 1_767_323_045,
        expires_at: 1_767_323_105,
    }];
    let status = Status::AddressMemory(services);
    applier.write(&Write { attempt: 1, reports_refusal: false, status }).await.unwrap();
    let requests = requests.lock().unwrap();
    let (_, uri, body) = &requests[0];
    let path = "/api/v1/namespaces/ferrolb-system/configmaps/ferrolb-address-memory?";
    assert!(uri.starts_with(path) && uri.contains("force=true"), "{uri}");
    let times = r#""expiresAt":"2026-01-02T03:05:05Z","releasedAt":"2026-01-02T03:04:05Z""#;
    let entry = format!(r#"{{"addresses":["10.0.0.1"],{times}}}"#);
    assert_eq!(body["data"], json!({"shop.web": entry}));
    assert_eq!(body["metadata"]["name"], api::ADDRESS_MEMORY);
    let (_, _, body) = &requests[1];
    assert_eq!(body, &json!({"data": {"old.web": null}}), "the entry of another field manager");
}

#[tokio::test]
async fn a_status_is_written_to_the_api_version_of_its_kind() {
    let (applier, requests) = scripted(vec![(200, json!({"metadata": {"name": "tor"}}))]);
    let condition = Condition {
        status: ConditionStatus::False,
        reason: "BadTime".into(),
        message: ConditionMessage::new("m"),
        since: None,
    };
    let valid = ValidStatus { condition: condition.clone(), generation: 4 };
    let status = CustomResourceStatus::Peer(PeerStatus {
        valid,
        sessions: Some("1/2".into()),
        established: Some(condition),
    });
    applier
        .write(&Write {
            attempt: 1,
            reports_refusal: false,
            status: Status::CustomResource("tor".into(), status),
        })
        .await
        .unwrap();
    let (_, uri, body) = &requests.lock().unwrap()[0];
    assert!(
        uri.starts_with("/apis/ferrolb.io/v1beta2/namespaces/ferrolb-system/bgppeers/tor/status?"),
        "{uri}"
    );
    assert_eq!(
        (&body["apiVersion"], &body["kind"]),
        (&json!("ferrolb.io/v1beta2"), &json!("BGPPeer"))
    );
    let status = &body["status"];
    assert_eq!((&status["sessions"], &status["observedGeneration"]), (&json!("1/2"), &json!(4)));
    assert_eq!(
        [0, 1].map(|index| &status["conditions"][index]["type"]),
        [&json!("Valid"), &json!("Established")]
    );
}
