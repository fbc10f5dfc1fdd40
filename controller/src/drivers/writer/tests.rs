//! Tests of the results and events for writes that the API server rejects.

use kube::core::Status as ApiStatus;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::super::apply::tests::{scripted, write};
use super::*;

/// Executes `write` once against a server that denies it. Returns the result and the event.
async fn denied(write: Write) -> (Outcome, Option<Notice>) {
    let message = "admission webhook \"policy.example\" denied the request";
    let answer = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message});
    let (applier, _) = scripted(vec![(403, answer)]);
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let (notices, mut told) = Notices::new(Arc::clone(&metrics));
    let (_desired, desired) =
        watch::channel(Desired { term: Some(1), writes: vec![write], ..Desired::default() });
    let (events, mut queue) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(Writer { applier, desired, events, notices, metrics }.run());
    let event = queue.recv().await;
    let Some(Event::Written { outcome, .. }) = event else { panic!("{event:?}") };
    (outcome, told.try_recv().ok().map(|(_, _, notice)| notice))
}

#[tokio::test]
async fn a_refusal_that_is_to_be_reported_is_an_event_with_the_servers_words() {
    let once = write(&["10.0.0.1"]);
    assert_eq!(denied(once.clone()).await, (Outcome::Refused, None));
    let (outcome, notice) = denied(Write { reports_refusal: true, ..once }).await;
    let notice = notice.expect("an event");
    assert_eq!((outcome, notice.warning, &*notice.reason), (Outcome::Refused, true, "NotWritten"));
    let words = "status update rejected, retrying: admission webhook \"policy.example\" denied the request (code 403)";
    assert_eq!(&*notice.message, words);
}

#[test]
fn a_schema_without_a_field_is_no_missing_permission() {
    let refused = |code, message: &str| {
        Failure::Refused(Box::new(ApiStatus {
            code,
            message: message.into(),
            ..ApiStatus::default()
        }))
    };
    let older = remedy(&refused(
        500,
        "failed to create typed patch object: .status.x: field not declared in schema",
    ));
    let forbidden = remedy(&refused(403, "forbidden"));
    assert!(
        older.contains("CustomResourceDefinitions") && forbidden.contains("RBAC"),
        "{older}; {forbidden}"
    );
}
