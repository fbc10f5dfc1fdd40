//! Tests of the results and Events for writes that the API server rejects.

use ferrolb_controller_core::desired::Notice;
use kube::core::Status as ApiStatus;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::super::apply::tests::{scripted, service_write};
use super::*;

/// Executes `write` once with an API server that rejects it. Returns the outcome, and the Event
/// about the Service.
async fn execute_denied(write: Write) -> (Outcome, Option<Notice>) {
    let message = "admission webhook \"policy.example\" denied the request";
    let response = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
    let (applier, _) = scripted(vec![(403, response)]);
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let (notices, mut queued_events) = Notices::new(Arc::clone(&metrics));
    let (_desired, desired) =
        watch::channel(Desired { term: Some(1), writes: vec![write], ..Desired::default() });
    let (events, mut queue) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(Writer { applier, desired, events, notices, metrics }.run());
    let event = queue.recv().await;
    let Some(Event::Written { outcome, .. }) = event else { panic!("{event:?}") };
    (outcome, queued_events.try_recv().ok().map(|(_, _, notice)| notice))
}

#[tokio::test]
async fn a_reported_refusal_is_an_event_with_the_servers_message() {
    let unreported = service_write(&["10.0.0.1"]);
    assert_eq!(execute_denied(unreported.clone()).await, (Outcome::Refused, None));
    let (outcome, notice) = execute_denied(Write { reports_refusal: true, ..unreported }).await;
    let notice = notice.expect("an Event reports the rejection");
    assert_eq!((outcome, notice.warning, &*notice.reason), (Outcome::Refused, true, "NotWritten"));
    let reply = "admission webhook \"policy.example\" denied the request (code 403)";
    assert_eq!(notice, RejectedStatus { reply }.notice());
}

#[test]
fn the_remedy_for_an_old_crd_differs_from_that_for_rbac() {
    let refused = |code, message: &str| {
        WriteFailure::Refused(Box::new(ApiStatus {
            code,
            message: message.into(),
            ..ApiStatus::default()
        }))
    };
    let old_crd_remedy = remedy(&refused(
        500,
        "failed to create typed patch object: .status.x: field not declared in schema",
    ));
    let rbac_remedy = remedy(&refused(403, "forbidden"));
    assert!(
        old_crd_remedy.contains("CustomResourceDefinitions") && rbac_remedy.contains("RBAC"),
        "{old_crd_remedy}; {rbac_remedy}"
    );
}
