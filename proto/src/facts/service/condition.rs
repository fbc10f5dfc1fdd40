//! FerroLB's conditions on a Service. Pure; the controller writes them.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::api::{self, ConditionMessage, ConditionStatus};

/// The type of a FerroLB condition on a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceConditionType {
    /// [`api::CONDITION_ADDRESS_ASSIGNED`].
    AddressAssigned,
    /// [`api::CONDITION_ANNOUNCED`].
    Announced,
}

/// A FerroLB condition on a Service, in a compact form, because each of up to 10,000 Services has
/// two conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCondition {
    /// `type`.
    pub kind: ServiceConditionType,
    /// `status`.
    pub status: ConditionStatus,
    /// `reason`.
    pub reason: Box<str>,
    /// `message`.
    pub message: ConditionMessage,
    /// `lastTransitionTime` in seconds since 1970, stored so that the controller does not change
    /// the time of an unchanged status. `None` if the text is not a time.
    pub since: Option<i64>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawCondition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

impl RawCondition {
    /// Decodes a condition. Returns `None` for a condition that is not FerroLB's.
    pub(super) fn read(self) -> Option<ServiceCondition> {
        let kind = match self.r#type.as_str() {
            api::CONDITION_ADDRESS_ASSIGNED => ServiceConditionType::AddressAssigned,
            api::CONDITION_ANNOUNCED => ServiceConditionType::Announced,
            _ => return None,
        };
        Some(ServiceCondition {
            kind,
            status: ConditionStatus::parse(&self.status),
            reason: (*ConditionMessage::stored(&self.reason)).into(),
            message: ConditionMessage::stored(&self.message),
            since: self.last_transition_time.parse().ok().map(Timestamp::as_second),
        })
    }
}
