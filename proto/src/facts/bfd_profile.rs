//! A BFDProfile, decoded for decisions: timers, or what is wrong with it.

use std::time::Duration;

use crate::api::{self, BFDProfileSpec};

/// How often packets are sent, and may come, where nobody says.
const INTERVAL_MS: u32 = 300;
/// How many may be missing where nobody says.
const MULTIPLIER: u32 = 3;
/// What an interval may be, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<u32> = 10..=60_000;
/// How many may be missing.
const MULTIPLIERS: std::ops::RangeInclusive<u32> = 2..=255;

/// Something that is wrong with a BFDProfile. Peers that name it have sessions that BFD does not watch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BfdProfileProblem {
    /// A number that cannot be had.
    #[error("spec.{field} is {value}: write {min} to {max}")]
    Range {
        /// The field.
        field: &'static str,
        /// What stands there.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// MetalLB's field that GoBGP cannot serve.
    #[error("spec.{0}: GoBGP's BFD has none of that: remove it")]
    Unsupported(&'static str),
    /// The object does not have the shape of the kind.
    #[error("the object cannot be read: {0}")]
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

/// What we know of a BFDProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct BfdProfile {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its timers, or what is wrong with it.
    pub timers: Result<BfdTimers, BfdProfileProblem>,
    /// The status it has.
    pub status: api::BFDProfileStatus,
}

impl From<api::Bfd> for BfdProfile {
    fn from(object: api::Bfd) -> Self {
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            timers: timers(&object.spec.unwrap_or_default()),
            status: object.status.unwrap_or_default(),
        }
    }
}

fn timers(spec: &BFDProfileSpec) -> Result<BfdTimers, BfdProfileProblem> {
    let unsupported =
        [("echoMode", spec.echo_mode), ("passiveMode", spec.passive_mode), ("minimumTtl", spec.minimum_ttl.is_some())];
    if let Some((field, _)) = unsupported.into_iter().find(|(_, is_set)| *is_set) {
        return Err(BfdProfileProblem::Unsupported(field));
    }
    let receive = number("receiveInterval", spec.receive_interval.unwrap_or(INTERVAL_MS), &INTERVALS)?;
    let transmit = number("transmitInterval", spec.transmit_interval.unwrap_or(INTERVAL_MS), &INTERVALS)?;
    let multiplier = number("detectMultiplier", spec.detect_multiplier.unwrap_or(MULTIPLIER), &MULTIPLIERS)?;
    Ok(BfdTimers {
        receive: Duration::from_millis(receive.into()),
        transmit: Duration::from_millis(transmit.into()),
        multiplier: u8::try_from(multiplier).unwrap_or(u8::MAX),
    })
}

fn number(field: &'static str, value: u32, range: &std::ops::RangeInclusive<u32>) -> Result<u32, BfdProfileProblem> {
    let problem = || BfdProfileProblem::Range { field, value, min: *range.start(), max: *range.end() };
    range.contains(&value).then_some(value).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn profile(object: Value) -> Result<(u128, u128, u8), String> {
        let profile = BfdProfile::from(serde_json::from_value::<api::Bfd>(object).expect("profile"));
        let timers = profile.timers.map_err(|problem| problem.to_string())?;
        Ok((timers.receive.as_millis(), timers.transmit.as_millis(), timers.multiplier))
    }

    #[test]
    fn timers_are_read_and_what_cannot_be_had_is_said() {
        let of = |spec: Value| profile(json!({"metadata": {"name": "fast"}, "spec": spec}));
        assert_eq!(profile(json!({"metadata": {"name": "bare"}})), Ok((300, 300, 3)));
        assert_eq!(
            of(json!({"receiveInterval": 50, "transmitInterval": 60, "detectMultiplier": 255})),
            Ok((50, 60, 255))
        );
        assert_eq!(of(json!({"echoMode": false, "echoInterval": 50, "passiveMode": false})), Ok((300, 300, 3)));
        for (spec, why) in [
            (json!({"receiveInterval": 9}), "spec.receiveInterval is 9: write 10 to 60000"),
            (json!({"transmitInterval": 60001}), "spec.transmitInterval is 60001"),
            (json!({"detectMultiplier": 1}), "spec.detectMultiplier is 1: write 2 to 255"),
            (json!({"echoMode": true}), "spec.echoMode: GoBGP's BFD"),
            (json!({"passiveMode": true}), "spec.passiveMode: GoBGP's BFD"),
            (json!({"minimumTtl": 200}), "spec.minimumTtl: GoBGP's BFD"),
        ] {
            let problem = of(spec.clone()).expect_err("a problem");
            assert!(problem.contains(why), "{spec}: {problem}");
        }
    }
}
