//! Tests of writes against a scripted API server: which requests it receives, in which order.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use clap::Parser;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{ConditionStatus, IpMode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::Body;
use tower::service_fn;

use super::*;
use crate::flags::Flags;

/// Requests that the server received: method, path and query, body.
pub(in crate::drivers) type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Creates an applier whose server returns these responses in turn, and the log of its requests.
pub(in crate::drivers) fn scripted(answers: Vec<(u16, Value)>) -> (Applier, Asked) {
    slow(answers, Duration::ZERO)
}

/// Creates a lease that ends at `until`.
fn held(until: Instant) -> watch::Receiver<Desired> {
    watch::channel(Desired { until, ..Desired::default() }).1
}

/// [`scripted`], with a delay of `takes` before each response.
fn slow(answers: Vec<(u16, Value)>, takes: Duration) -> (Applier, Asked) {
    let asked = Asked::default();
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let log = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let (answer, log) = (answers.lock().unwrap().next(), Arc::clone(&log));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            log.lock().unwrap().push((parts.method.to_string(), parts.uri.to_string(), body));
            tokio::time::sleep(takes).await;
            let (code, json) = answer.expect("one request too many");
            let body = Full::new(Bytes::from(json.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let flags = Flags::parse_from(["ferrolb-controller"]).common;
    (
        Applier::new(Client::new(service, "default"), &flags, held(Instant::from_nanos(u64::MAX))),
        asked,
    )
}

fn conflict() -> (u16, Value) {
    let message = "conflict with \"kubectl\": .status.loadBalancer.ingress";
    (
        409,
        json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": message}),
    )
}

fn found(uid: &str, class: Option<&str>) -> (u16, Value) {
    let spec =
        json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "loadBalancerClass": class});
    (
        200,
        json!({"metadata": {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": "7"}, "spec": spec}),
    )
}

pub(in crate::drivers) fn write(addresses: &[&str]) -> Write {
    let condition = Condition {
        status: ConditionStatus::True,
        reason: "Assigned".into(),
        message: "m".into(),
        since: Some(1_767_323_045),
    };
    let status = ServiceStatus {
        uid: "u1".into(),
        theirs: false,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        mode: IpMode::Vip,
        pool: (!addresses.is_empty()).then(|| "lan".into()),
        sharing_parameters: (!addresses.is_empty()).then_some(0xab),
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
async fn one_request_carries_addresses_condition_and_annotation() {
    let (applier, asked) = scripted(vec![found("u1", None)]);
    applier.write(&write(&["10.0.0.1", "fd00::1"])).await.unwrap();
    let asked = asked.lock().unwrap();
    let [(method, uri, body)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(method, "PATCH");
    assert!(uri.starts_with("/api/v1/namespaces/default/services/web/status?"), "{uri}");
    assert!(uri.contains("fieldManager=ferrolb-controller") && !uri.contains("force"), "{uri}");
    assert_eq!(
        *body,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "default", "name": "web", "uid": "u1",
                "annotations": {"ferrolb.io/ip-allocated-from-pool": "lan", "ferrolb.io/sharing-parameters": "00000000000000ab"}},
            "status": {
                "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}, {"ip": "fd00::1", "ipMode": "VIP"}]},
                "conditions": [{"type": "ferrolb.io/AddressAssigned", "status": "True", "reason": "Assigned",
                    "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            },
        })
    );
}

#[tokio::test]
async fn a_service_that_is_freed_loses_all_that_was_ours() {
    let (applier, asked) = scripted(vec![found("u1", None)]);
    applier.write(&write(&[])).await.unwrap();
    let body = &asked.lock().unwrap()[0].2;
    assert_eq!(body["status"], json!({"loadBalancer": {"ingress": []}}));
    assert_eq!(body["metadata"].get("annotations"), None);
}

#[tokio::test]
async fn annotations_that_another_manager_owns_too_are_removed_in_that_version() {
    let (code, mut left) = found("u1", None);
    let both = |value: &Value| json!({"ferrolb.io/ip-allocated-from-pool": value, "ferrolb.io/sharing-parameters": value});
    left["metadata"]["annotations"] = both(&json!("ab"));
    let (applier, asked) = scripted(vec![(code, left), found("u1", None)]);
    applier.write(&write(&[])).await.unwrap();
    let asked = asked.lock().unwrap();
    let [_, (method, uri, body)] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(
        method == "PATCH" && uri.starts_with("/api/v1/namespaces/default/services/web/status?"),
        "{method} {uri}"
    );
    let without = json!({"resourceVersion": "7", "annotations": both(&Value::Null)});
    assert_eq!(*body, json!({"metadata": without}));
}

#[tokio::test]
async fn what_nobody_owns_any_more_is_taken_off_with_what_is_left_of_it() {
    let (code, mut left) = found("u1", None);
    let condition = |kind| json!({"type": kind, "status": "True", "reason": "R", "message": "m"});
    left["metadata"]["annotations"] = json!({"ferrolb.io/ip-allocated-from-pool": "lan"});
    left["status"]["conditions"] = json!(
        ["ferrolb.io/AddressAssigned", "ferrolb.io/Announced", "example.com/Other"].map(condition)
    );
    let (applier, asked) = scripted(vec![(code, left), found("u1", None)]);
    applier.write(&write(&[])).await.unwrap();
    let asked = asked.lock().unwrap();
    let [_, (_, _, body)] = asked.as_slice() else { panic!("{asked:?}") };
    let without = |kind| json!({"$patch": "delete", "type": kind});
    let gone = ["ferrolb.io/AddressAssigned", "ferrolb.io/Announced"].map(without);
    assert_eq!(body["status"], json!({"conditions": gone}));
    assert_eq!(body["metadata"]["annotations"], json!({"ferrolb.io/ip-allocated-from-pool": null}));
}

#[tokio::test]
async fn nothing_is_sent_after_the_end_of_the_lease() {
    let (applier, asked) = slow(vec![conflict(), found("u1", None)], Duration::from_millis(60));
    let (desired, receiver) = watch::channel(Desired::default());
    let applier = Applier { desired: receiver, ..applier };
    assert!(matches!(applier.write(&write(&["10.0.0.1"])).await, Err(Failure::Expired)));
    assert_eq!(asked.lock().unwrap().len(), 0);
    desired.send_replace(Desired {
        until: Clock::now() + Duration::from_millis(50),
        ..Desired::default()
    });
    assert!(
        matches!(applier.write(&write(&["10.0.0.1"])).await, Err(Failure::Expired)),
        "it ends during the first"
    );
    assert_eq!(asked.lock().unwrap().len(), 1, "each request is sent within the lease");
}

#[tokio::test]
async fn another_managers_field_is_forced_only_after_reading_and_only_in_that_version() {
    let (applier, asked) =
        scripted(vec![conflict(), found("u1", Some("ferrolb.io/ferrolb")), found("u1", None)]);
    applier.write(&write(&["10.0.0.1"])).await.unwrap();
    let asked = asked.lock().unwrap();
    let methods: Vec<_> = asked.iter().map(|(method, ..)| method.as_str()).collect();
    assert_eq!(methods, ["PATCH", "GET", "PATCH"]);
    assert!(asked[2].1.contains("force=true"), "{}", asked[2].1);
    assert_eq!(asked[2].2["metadata"]["resourceVersion"], "7");
}

#[tokio::test]
async fn what_is_no_longer_ours_is_not_forced() {
    for found in [found("u2", None), found("u1", Some("other.io/lb"))] {
        let (applier, asked) = scripted(vec![conflict(), found]);
        let result = applier.write(&write(&["10.0.0.1"])).await;
        assert!(matches!(result, Err(Failure::Outdated)), "{result:?}");
        assert_eq!(asked.lock().unwrap().len(), 2);
    }
}

/// Returns a Service with the annotation `annotation`, and the status fields `ours` in the
/// controller's `managedFields`.
fn contested(annotation: &str, ours: Value) -> (u16, Value) {
    let (code, mut found) = found("u1", None);
    found["metadata"]["annotations"] = json!({annotation: "theirs"});
    found["metadata"]["managedFields"] =
        json!([{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:status": ours}}]);
    found["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "hostname": "lb", "ports": []}]}});
    (code, found)
}

#[tokio::test]
async fn of_what_metallb_has_the_addresses_stay_as_they_are() {
    let theirs = "metallb.io/ip-allocated-from-pool";
    let mut write = write(&[]);
    let Status::Service(_, status) = &mut write.status else { panic!() };
    status.theirs = true;
    let owned = json!({"f:loadBalancer": {"f:ingress": {}}, "f:conditions": {}});
    for (ours, kept) in [(owned.clone(), true), (json!({"f:conditions": {}}), false)] {
        let (applier, asked) = scripted(vec![contested(theirs, ours), found("u1", None)]);
        applier.write(&write).await.unwrap();
        let asked = asked.lock().unwrap();
        let [(get, ..), (patch, _, body)] = asked.as_slice() else { panic!("{asked:?}") };
        assert_eq!(
            (get.as_str(), patch.as_str(), &body["metadata"]["resourceVersion"]),
            ("GET", "PATCH", &json!("7"))
        );
        let there =
            kept.then(|| json!({"ingress": [{"ip": "192.0.2.7", "hostname": "lb", "ports": []}]}));
        assert_eq!(
            body["status"].get("loadBalancer"),
            there.as_ref(),
            "what is ours goes when it is left out"
        );
        assert_eq!(body["metadata"].get("annotations"), None);
    }
    let (applier, asked) = scripted(vec![contested("example.com/x", owned)]);
    assert!(
        matches!(applier.write(&write).await, Err(Failure::Outdated)),
        "MetalLB has left it meanwhile"
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_waited_for_no_longer_than_the_limit() {
    let service = service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    });
    let flags = Flags::parse_from(["ferrolb-controller"]).common;
    let applier =
        Applier::new(Client::new(service, "default"), &flags, held(Instant::from_nanos(u64::MAX)));
    assert!(matches!(applier.write(&write(&["10.0.0.1"])).await, Err(Failure::TimedOut)));
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told_from_none() {
    let (applier, _) = scripted(vec![(200, json!("no Service"))]);
    let failure = applier.write(&write(&["10.0.0.1"])).await.unwrap_err();
    let why = failure.refusal().unwrap_or_default();
    assert!(why.starts_with("cannot read the response of the API server: "), "{failure:?}");
    let (applier, _) =
        scripted(vec![(503, json!({"kind": "Status", "status": "Failure", "code": 503}))]);
    assert_eq!(
        applier.write(&write(&["10.0.0.1"])).await.unwrap_err().refusal(),
        None,
        "the whole server is away"
    );
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_write_has_the_whole_limit() {
    let takes = WRITE_TIMEOUT - Duration::from_millis(1);
    let (applier, asked) = slow(vec![conflict(), found("u1", None), found("u1", None)], takes);
    applier.write(&write(&["10.0.0.1"])).await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_pools_status_leaves_out_what_does_not_fit() {
    let (applier, asked) = scripted(vec![(200, json!({"metadata": {"name": "lan"}}))]);
    let valid = Condition {
        status: ConditionStatus::True,
        reason: "Valid".into(),
        message: "m".into(),
        since: None,
    };
    let valid = Some(ValidStatus { condition: valid, generation: 4 });
    let status = PoolStatus {
        assigned: [1, 2],
        available: [Some(3), None],
        text: Some("3 IPv4, many".into()),
        valid,
    };
    let write = Write {
        attempt: 1,
        reports_refusal: false,
        status: Status::CustomResource("lan".into(), CustomResourceStatus::Pool(status)),
    };
    applier.write(&write).await.unwrap();
    let (_, uri, body) = &asked.lock().unwrap()[0];
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
async fn a_status_goes_to_the_version_of_its_kind() {
    let (applier, asked) = scripted(vec![(200, json!({"metadata": {"name": "tor"}}))]);
    let condition = Condition {
        status: ConditionStatus::False,
        reason: "BadTime".into(),
        message: "m".into(),
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
    let (_, uri, body) = &asked.lock().unwrap()[0];
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
        [0, 1].map(|place| &status["conditions"][place]["type"]),
        [&json!("Valid"), &json!("Established")]
    );
}
