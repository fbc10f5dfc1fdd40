//! The `Valid` condition of our own kinds: what it should say, and whether it says so. Pure functions; the state asks them.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::api::{CONDITION_VALID, StatusFields, Truth};
use ferrolb_proto::facts::{Advertisement, Community, CommunityProblem};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use crate::desired::{Condition, ValidStatus};

/// The reason of what is right.
const VALID: &str = "Valid";
/// Stands for the time of a condition that was written and not seen yet.
const UNKNOWN_TIME: v1::Time = v1::Time(jiff::Timestamp::UNIX_EPOCH);

/// Why an object cannot be used: a reason and a message for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) message: Box<str>,
}

impl From<&str> for Fault {
    /// What is said where there is none.
    fn from(message: &str) -> Self {
        Self { reason: VALID, message: message.into() }
    }
}

/// The status that an object should have, and whether `conditions` and `generation` already say so.
pub(super) fn verdict(
    fault: Option<Fault>,
    sound: impl Into<Fault>,
    generation: i64,
    (conditions, observed): (&[v1::Condition], i64),
) -> (ValidStatus, bool) {
    let status = Truth::from(fault.is_none());
    let says = fault.unwrap_or_else(|| sound.into());
    let (condition, same) = judged(CONDITION_VALID, status, says, conditions);
    (ValidStatus { condition, generation }, same && observed == generation)
}

/// A condition as it should be, and whether `conditions` already say so.
pub(super) fn judged(
    kind: &str,
    status: Truth,
    Fault { reason, message }: Fault,
    conditions: &[v1::Condition],
) -> (Condition, bool) {
    let is = conditions.iter().find(|condition| condition.type_ == kind);
    let status_stays = is.filter(|is| is.status == status.name());
    let same = status_stays.is_some_and(|is| is.reason == reason && is.message == *message);
    // The time of the last change of the status stays while the status does.
    let known = status_stays.filter(|is| is.last_transition_time != UNKNOWN_TIME);
    let since = known.map(|is| is.last_transition_time.0.as_second());
    (Condition { status, reason: reason.into(), message, since }, same)
}

/// The status that an advertisement should have; none when it has it, or its CRD has no place for it.
pub(super) fn advertisement_status(
    ad: &Advertisement,
    pools: &BTreeSet<&str>,
    fields: &StatusFields,
) -> Option<ValidStatus> {
    let unknown: Vec<_> = ad.pools.iter().filter(|name| !pools.contains(name.as_str())).map(String::as_str).collect();
    let fault = match (&ad.problem, unknown.is_empty()) {
        (Some(problem), _) => Some(Fault { reason: "BadSelector", message: problem.clone() }),
        (None, true) => None,
        (None, false) => {
            let message = format!(
                "spec.ipAddressPools: there is no IPAddressPool {}; what else is selected is announced",
                unknown.join(", ")
            );
            Some(Fault { reason: "UnknownPool", message: message.into() })
        }
    };
    let is = (ad.status.conditions.as_slice(), ad.status.observed_generation);
    let (wanted, same) = verdict(fault, "what this advertisement selects is announced", ad.generation, is);
    (!same && fields.has("conditions")).then_some(wanted)
}

/// For each alias that several Communities give: the first of them by name, which is the one that counts.
pub(super) fn alias_owners<'a>(communities: impl Iterator<Item = &'a Community>) -> BTreeMap<&'a str, &'a str> {
    let mut owners = BTreeMap::new();
    for community in communities {
        for alias in community.aliases.keys() {
            owners.entry(&**alias).or_insert(&*community.name);
        }
    }
    owners
}

/// The status that a Community should have; none when it has it, or its CRD has no place for it.
pub(super) fn community_status(
    community: &Community,
    owners: &BTreeMap<&str, &str>,
    fields: &StatusFields,
) -> Option<ValidStatus> {
    let others = |alias: &str| owners.get(alias).is_some_and(|owner| **owner != *community.name);
    let fault = match (&community.problem, community.aliases.keys().find(|alias| others(alias))) {
        (Some(problem), _) => Some(Fault { reason: reason(problem), message: problem.to_string().into() }),
        (None, Some(alias)) => {
            let owner = owners.get(&**alias).copied().unwrap_or_default();
            let message =
                format!("spec.communities: Community {owner} gives the name {alias:?} too, and counts: rename one");
            Some(Fault { reason: "DuplicateName", message: message.into() })
        }
        (None, None) => None,
    };
    let is = (community.status.conditions.as_slice(), community.status.observed_generation);
    let (wanted, same) = verdict(fault, "the names can be used in BGPAdvertisements", community.generation, is);
    (!same && fields.has("conditions")).then_some(wanted)
}

const fn reason(problem: &CommunityProblem) -> &'static str {
    match problem {
        CommunityProblem::Nameless | CommunityProblem::Twice(_) => "BadName",
        CommunityProblem::Value { .. } => "BadValue",
        CommunityProblem::Unreadable(_) => "Unreadable",
    }
}

/// Takes a status that was written for the one that is there, until the watch shows it.
pub(super) fn assume(conditions: &mut Vec<v1::Condition>, observed: &mut i64, written: &ValidStatus) {
    *observed = written.generation;
    assume_condition(CONDITION_VALID, conditions, Some(&written.condition));
}

/// The same of one condition; none: it was taken away.
pub(super) fn assume_condition(kind: &str, conditions: &mut Vec<v1::Condition>, written: Option<&Condition>) {
    conditions.retain(|condition| condition.type_ != kind);
    let Some(Condition { status, reason, message, since }) = written else { return };
    let since = since.and_then(|since| jiff::Timestamp::from_second(since).ok());
    conditions.push(v1::Condition {
        type_: kind.to_owned(),
        status: status.name().to_owned(),
        reason: reason.to_string(),
        message: message.to_string(),
        last_transition_time: since.map_or(UNKNOWN_TIME, v1::Time),
        observed_generation: None,
    });
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::CommunityValue;

    use super::*;

    const ALL: &StatusFields = &StatusFields::All;

    #[test]
    fn an_advertisement_names_the_pools_that_are_not_there() {
        let mut ad = Advertisement::default();
        ad.pools = vec!["lan".into(), "wan".into(), "dmz".into()];
        let status = advertisement_status(&ad, &["lan"].into(), ALL).unwrap();
        assert_eq!((status.condition.status, &*status.condition.reason), (Truth::False, "UnknownPool"));
        assert!(status.condition.message.contains("no IPAddressPool wan, dmz;"), "{}", status.condition.message);
        assert_eq!(advertisement_status(&ad, &["lan"].into(), &StatusFields::Only([].into())), None);
        assume(&mut ad.status.conditions, &mut ad.status.observed_generation, &status);
        assert_eq!(advertisement_status(&ad, &["lan"].into(), ALL), None);
        assert_eq!(advertisement_status(&ad, &["lan", "wan", "dmz"].into(), ALL).unwrap().condition.reason, "Valid");
        ad.problem = Some("spec.nodeSelectors: no".into());
        assert_eq!(advertisement_status(&ad, &["lan"].into(), ALL).unwrap().condition.reason, "BadSelector");
    }

    #[test]
    fn of_two_communities_with_one_name_the_first_counts_and_the_other_is_told() {
        let community = |name: &str, aliases: &[&str]| Community {
            name: name.into(),
            aliases: aliases.iter().map(|alias| ((*alias).into(), CommunityValue::Standard(1, 2))).collect(),
            ..Community::default()
        };
        let mut all = [community("a", &["x", "y"]), community("b", &["z"]), community("c", &["y", "w"])];
        let reasons = |all: &[Community]| {
            let owners = alias_owners(all.iter());
            let status = |c| community_status(c, &owners, ALL).unwrap().condition;
            all.iter().map(status).map(|condition| condition.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(&all), ["Valid", "Valid", "DuplicateName"]);
        all[0].problem = Some(CommunityProblem::Nameless);
        assert_eq!(reasons(&all), ["BadName", "Valid", "DuplicateName"], "a slip in one takes no name from it");
        all[0].aliases.clear();
        assert_eq!(reasons(&all), ["BadName", "Valid", "Valid"]);
    }
}
