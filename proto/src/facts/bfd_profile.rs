//! The fact of a BFDProfile: its timers, or the reason why it is invalid.

use super::kind::custom_resource;
use std::time::Duration;

use super::ObservedStatus;
use crate::api::{self, BFDProfileSpec};

/// The default interval at which a node sends BFD packets and can receive them, in milliseconds.
const INTERVAL_MS: u32 = 300;
/// The default number of consecutive missing packets after which a BFD session is down.
const MULTIPLIER: u32 = 3;
/// Valid send and receive intervals, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<u32> = 10..=60_000;
/// Valid numbers of consecutive missing packets after which a BFD session is down.
const MULTIPLIERS: std::ops::RangeInclusive<u32> = 2..=255;

/// The reason why a BFDProfile is invalid. BGP sessions of peers that name an invalid BFDProfile
/// run without BFD.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BfdProfileProblem {
    /// The value of a field is out of bounds.
    ///
    /// Action: Write a value within the bounds in the message.
    #[error("spec.{field} is {value}: write {min} to {max}")]
    Range {
        /// The name of the field in `spec`.
        field: &'static str,
        /// The invalid value.
        value: u32,
        /// The lowest valid value.
        min: u32,
        /// The highest valid value.
        max: u32,
    },
    /// GoBGP does not support `spec.echoMode`, `spec.passiveMode` or `spec.minimumTtl`.
    ///
    /// Action: Remove the field.
    #[error("spec.{0}: GoBGP's BFD does not support it: remove it")]
    Unsupported(&'static str),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// The timers of a BFD session (RFC 5880 section 6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdTimers {
    /// `spec.receiveInterval`.
    pub receive: Duration,
    /// `spec.transmitInterval`.
    pub transmit: Duration,
    /// `spec.detectMultiplier`.
    pub multiplier: u8,
}

/// The fact of a BFDProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct BfdProfile {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// The timers, or why the BFDProfile is invalid.
    pub timers: Result<BfdTimers, BfdProfileProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::BFDProfileStatus>,
}

impl From<api::BfdProfileObject> for BfdProfile {
    fn from(object: api::BfdProfileObject) -> Self {
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            timers: timers(&object.spec.unwrap_or_default()),
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

fn timers(spec: &BFDProfileSpec) -> Result<BfdTimers, BfdProfileProblem> {
    let unsupported = [
        ("echoMode", spec.echo_mode),
        ("passiveMode", spec.passive_mode),
        ("minimumTtl", spec.minimum_ttl.is_some()),
    ];
    if let Some((field, _)) = unsupported.into_iter().find(|(_, is_set)| *is_set) {
        return Err(BfdProfileProblem::Unsupported(field));
    }
    let receive =
        number("receiveInterval", spec.receive_interval.unwrap_or(INTERVAL_MS), &INTERVALS)?;
    let transmit =
        number("transmitInterval", spec.transmit_interval.unwrap_or(INTERVAL_MS), &INTERVALS)?;
    let multiplier =
        number("detectMultiplier", spec.detect_multiplier.unwrap_or(MULTIPLIER), &MULTIPLIERS)?;
    Ok(BfdTimers {
        receive: Duration::from_millis(receive.into()),
        transmit: Duration::from_millis(transmit.into()),
        multiplier: u8::try_from(multiplier).unwrap_or(u8::MAX),
    })
}

fn number(
    field: &'static str,
    value: u32,
    range: &std::ops::RangeInclusive<u32>,
) -> Result<u32, BfdProfileProblem> {
    let problem =
        || BfdProfileProblem::Range { field, value, min: *range.start(), max: *range.end() };
    range.contains(&value).then_some(value).ok_or_else(problem)
}

custom_resource!(BfdProfile.name: BfdProfileObject, BFDProfile, "BFDProfiles");

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn profile(object: Value) -> Result<(u128, u128, u8), String> {
        let profile = BfdProfile::from(
            serde_json::from_value::<api::BfdProfileObject>(object).expect("profile"),
        );
        let timers = profile.timers.map_err(|problem| problem.to_string())?;
        Ok((timers.receive.as_millis(), timers.transmit.as_millis(), timers.multiplier))
    }

    #[test]
    fn timers_are_decoded_and_unsupported_fields_are_problems() {
        let of = |spec: Value| profile(json!({"metadata": {"name": "fast"}, "spec": spec}));
        assert_eq!(profile(json!({"metadata": {"name": "bare"}})), Ok((300, 300, 3)));
        assert_eq!(
            of(json!({"receiveInterval": 50, "transmitInterval": 60, "detectMultiplier": 255})),
            Ok((50, 60, 255))
        );
        assert_eq!(
            of(json!({"echoMode": false, "echoInterval": 50, "passiveMode": false})),
            Ok((300, 300, 3))
        );
        for (spec, why) in [
            (json!({"receiveInterval": 9}), "spec.receiveInterval is 9: write 10 to 60000"),
            (json!({"transmitInterval": 60001}), "spec.transmitInterval is 60001"),
            (json!({"detectMultiplier": 1}), "spec.detectMultiplier is 1: write 2 to 255"),
            (json!({"echoMode": true}), "spec.echoMode: GoBGP's BFD"),
            (json!({"passiveMode": true}), "spec.passiveMode: GoBGP's BFD"),
            (json!({"minimumTtl": 200}), "spec.minimumTtl: GoBGP's BFD"),
        ] {
            let problem = of(spec.clone()).expect_err("the profile is invalid");
            assert!(problem.contains(why), "the problem of {spec} contains {why:?}: {problem}");
        }
    }
}
