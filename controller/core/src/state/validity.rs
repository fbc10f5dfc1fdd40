//! Condition `Valid` of L2Advertisements and Communities. Pure functions, called by the state.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::facts::{Community, CommunityProblem, L2Advertisement, L2AdvertisementProblem};

use super::custom_resources::{StatusResource, Validity};
use super::messages::valid::{CommunityMessage, L2Message};
use crate::desired::{CustomResourceStatus, ValidStatus};

/// Inputs of the status of an L2Advertisement, in addition to the object itself.
#[derive(Default)]
pub(super) struct L2StatusInputs<'a> {
    /// Names of all existing pools.
    pub(super) pools: BTreeSet<&'a str>,
    /// Names of the interfaces that the speakers use; empty if no speaker reports any.
    pub(super) interfaces: BTreeSet<&'a str>,
}

/// Returns the status that an L2Advertisement should have, or `None` if the object has it
/// already.
pub(super) fn advertisement_status(
    ad: &L2Advertisement,
    inputs: &L2StatusInputs<'_>,
) -> Option<ValidStatus> {
    let unknown = ad.selectors.unknown_pools(|name| inputs.pools.contains(name));
    let missing = ad.interfaces().iter().filter(|name| !inputs.interfaces.contains(&***name));
    let missing: Vec<_> =
        missing.filter(|_| !inputs.interfaces.is_empty()).map(|it| &**it).collect();
    let message = match &ad.problem {
        Some(problem) => L2Message::Problem(problem),
        None if !unknown.is_empty() => L2Message::UnknownPool(unknown),
        None if !missing.is_empty() => L2Message::UnknownInterface(missing),
        None => L2Message::Valid,
    };
    ad.changed_validity(&message)
}

/// Returns, for each community name, the Community that defines the name. If several Communities
/// define a name, the first one by its own name counts.
pub(super) fn alias_owners<'a>(
    communities: impl Iterator<Item = &'a Community>,
) -> BTreeMap<&'a str, &'a str> {
    let mut owners = BTreeMap::new();
    for community in communities {
        for alias in community.aliases.keys() {
            owners.entry(&**alias).or_insert(&*community.name);
        }
    }
    owners
}

/// Returns the status that a Community should have, or `None` if the object has it already.
pub(super) fn community_status(
    community: &Community,
    owners: &BTreeMap<&str, &str>,
) -> Option<ValidStatus> {
    let is_duplicate =
        |alias: &str| owners.get(alias).is_some_and(|owner| **owner != *community.name);
    let duplicate = community.aliases.keys().find(|alias| is_duplicate(alias));
    let message = match (&community.problem, duplicate) {
        (Some(problem), _) => CommunityMessage::Problem(problem),
        (None, Some(name)) => CommunityMessage::Duplicate {
            name,
            owner: owners.get(&**name).copied().unwrap_or_default(),
        },
        (None, None) => CommunityMessage::Valid,
    };
    community.changed_validity(&message)
}

impl StatusResource for L2Advertisement {
    type StatusInputs<'a> = L2StatusInputs<'a>;

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        let mut ad = before.cloned().unwrap_or_default();
        (ad.name, ad.problem) = (name, Some(L2AdvertisementProblem::Unreadable(why)));
        ad
    }

    fn status(&self, inputs: &L2StatusInputs<'_>) -> Option<CustomResourceStatus> {
        advertisement_status(self, inputs).map(Self::valid)
    }
}

impl StatusResource for Community {
    /// For each community name, the Community that defines the name, from [`alias_owners`].
    type StatusInputs<'a> = BTreeMap<&'a str, &'a str>;

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        let problem = Some(CommunityProblem::Unreadable(why));
        Self { name, problem, ..before.cloned().unwrap_or_default() }
    }

    fn status(&self, owners: &BTreeMap<&str, &str>) -> Option<CustomResourceStatus> {
        community_status(self, owners).map(Self::valid)
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api::ConditionStatus;
    use ferrolb_proto::facts::{CommunityProblem, CommunityValue};

    use super::*;

    #[test]
    fn an_advertisement_with_unknown_pools_names_them() {
        let mut ad = L2Advertisement::default();
        ad.selectors.pools = vec!["lan".into(), "wan".into(), "dmz".into()];
        let lan = || L2StatusInputs { pools: ["lan"].into(), ..L2StatusInputs::default() };
        let status = advertisement_status(&ad, &lan()).unwrap();
        assert_eq!(
            (status.condition.status, &*status.condition.reason),
            (ConditionStatus::False, "UnknownPool")
        );
        assert!(
            status.condition.message.contains("IPAddressPool wan, dmz does not exist"),
            "{}",
            status.condition.message
        );
        ad.record_written(&L2Advertisement::valid(status));
        assert_eq!(advertisement_status(&ad, &lan()), None);
        let all = L2StatusInputs { pools: ["lan", "wan", "dmz"].into(), ..lan() };
        assert_eq!(advertisement_status(&ad, &all).unwrap().condition.reason, "Valid");
        ad.problem = Some(L2AdvertisementProblem::Selector("spec.nodeSelectors: no".into()));
        assert_eq!(advertisement_status(&ad, &lan()).unwrap().condition.reason, "BadSelector");
    }

    #[test]
    fn an_advertisement_with_unknown_interfaces_names_them() {
        let spec = serde_json::json!({"interfaces": ["eth0", "eth7"]});
        let object = serde_json::json!({"metadata": {"name": "l2"}, "spec": spec});
        let object: ferrolb_proto::api::L2AdvertisementObject =
            serde_json::from_value(object).unwrap();
        let ad = L2Advertisement::from(object);
        let reason = |interfaces: &[&'static str]| {
            let interfaces = interfaces.iter().copied().collect();
            let inputs = L2StatusInputs { interfaces, ..L2StatusInputs::default() };
            let condition = advertisement_status(&ad, &inputs).unwrap().condition;
            (condition.reason.into_owned(), condition.message)
        };
        let (unknown, message) = reason(&["eth0", "eth1"]);
        assert_eq!(unknown, "UnknownInterface");
        assert!(message.contains("no speaker uses the interface eth7:"), "{message}");
        assert_eq!(reason(&["eth0", "eth7"]).0, "Valid");
        assert_eq!(reason(&[]).0, "Valid", "no speaker has reported its interfaces yet");
    }

    #[test]
    fn the_second_community_with_a_name_reports_duplicate_name() {
        let community = |name: &str, aliases: &[&str]| Community {
            name: name.into(),
            aliases: aliases
                .iter()
                .map(|alias| ((*alias).into(), CommunityValue::Standard(1, 2)))
                .collect(),
            ..Community::default()
        };
        let mut all =
            [community("a", &["x", "y"]), community("b", &["z"]), community("c", &["y", "w"])];
        let reasons = |all: &[Community]| {
            let owners = alias_owners(all.iter());
            let status = |c| community_status(c, &owners).unwrap().condition;
            all.iter().map(status).map(|condition| condition.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(&all), ["Valid", "Valid", "DuplicateName"]);
        all[0].problem = Some(CommunityProblem::MissingName);
        assert_eq!(
            reasons(&all),
            ["BadName", "Valid", "DuplicateName"],
            "an invalid Community still defines its names"
        );
        all[0].aliases.clear();
        assert_eq!(reasons(&all), ["BadName", "Valid", "Valid"]);
    }
}
