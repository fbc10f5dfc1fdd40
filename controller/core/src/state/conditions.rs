//! Conditions of FerroLB's custom resources: the desired content, and whether an object has it.
//! Pure functions, called by the state.

use ferrolb_proto::api::{CONDITION_VALID, ConditionMessage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use super::messages::Message;
use crate::desired::{Condition, ValidStatus};

/// Placeholder for `lastTransitionTime` of a condition that was written and that the watch has not
/// reported yet.
const UNKNOWN_TIME: v1::Time = v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);

/// Returns the status that an object should have, and whether `conditions` and `observed` already
/// match it.
pub(super) fn compare_status(
    message: &impl Message,
    generation: i64,
    (conditions, observed): (&[v1::Condition], i64),
) -> (ValidStatus, bool) {
    let (condition, same) = compare_condition(CONDITION_VALID, message, conditions);
    (ValidStatus { condition, generation }, same && observed == generation)
}

/// Returns the desired condition of type `kind`, and whether `conditions` already contain it.
pub(super) fn compare_condition(
    kind: &str,
    message: &impl Message,
    conditions: &[v1::Condition],
) -> (Condition, bool) {
    let (status, reason) = (message.status(), message.reason());
    let message = ConditionMessage::new(message);
    let current = conditions.iter().find(|condition| condition.type_ == kind);
    let status_stays = current.filter(|current| current.status == status.name());
    let same =
        status_stays.is_some_and(|current| current.reason == reason && current.message == *message);
    // `lastTransitionTime` changes only if the status of the condition changes.
    let known = status_stays.filter(|current| current.last_transition_time != UNKNOWN_TIME);
    let since = known.map(|current| current.last_transition_time.0.as_second());
    (Condition { status, reason: reason.into(), message, since }, same)
}

/// Records a written status as the object's current status, until the watch reports the object.
pub(super) fn record_status(
    conditions: &mut Vec<v1::Condition>,
    observed: &mut i64,
    written: &ValidStatus,
) {
    *observed = written.generation;
    record_condition(CONDITION_VALID, conditions, Some(&written.condition));
}

/// Records a written condition as the object's current condition; `None` removes the condition.
pub(super) fn record_condition(
    kind: &str,
    conditions: &mut Vec<v1::Condition>,
    written: Option<&Condition>,
) {
    conditions.retain(|condition| condition.type_ != kind);
    let Some(Condition { status, reason, message, since }) = written else { return };
    let since = since.and_then(|since| k8s_openapi::jiff::Timestamp::from_second(since).ok());
    conditions.push(v1::Condition {
        type_: kind.to_owned(),
        status: status.name().to_owned(),
        reason: reason.to_string(),
        message: message.to_string(),
        last_transition_time: since.map_or(UNKNOWN_TIME, v1::Time),
        observed_generation: None,
    });
}
