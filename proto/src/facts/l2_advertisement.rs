//! The fact of an L2Advertisement: which nodes may announce which addresses, and on which
//! interfaces.

use super::kind::custom_resource;
use std::collections::BTreeMap;

use kube::core::{Selector, SelectorExt};

use super::selectors::decode;
use super::{AdvertisementSelectors, ObservedStatus, Pool};
use crate::api;

/// The reason why an L2Advertisement by itself is invalid, independent of other objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum L2AdvertisementProblem {
    /// A selector is invalid.
    #[error("{0}")]
    Selector(Box<str>),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// The fact of an L2Advertisement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L2Advertisement {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970. The time distinguishes a new object from
    /// a deleted one of the same name.
    pub created: i64,
    /// The pools, nodes and Services that the advertisement selects.
    pub selectors: AdvertisementSelectors,
    preferences: Vec<(u32, Selector)>,
    interfaces: Vec<String>,
    /// `spec.allInterfaces`.
    all_interfaces: bool,
    /// The reason why the advertisement is invalid (one reason), or `None`. An invalid
    /// advertisement announces nothing.
    pub problem: Option<L2AdvertisementProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::L2AdvertisementStatus>,
}

impl L2Advertisement {
    /// Returns whether the advertisement is valid and selects this pool.
    #[must_use]
    pub fn selects_pool(&self, pool: &Pool) -> bool {
        self.problem.is_none() && self.selectors.select_pool(pool)
    }

    /// Returns whether the advertisement is valid and selects a pool of this name, whatever its
    /// labels are.
    #[must_use]
    pub fn names_pool(&self, name: &str) -> bool {
        self.problem.is_none() && self.selectors.name_pool(name)
    }

    /// Returns the sum of the weights of all node preferences that match these labels.
    #[must_use]
    pub fn preference(&self, labels: &BTreeMap<String, String>) -> u32 {
        let matching = self.preferences.iter().filter(|(_, selector)| selector.matches(labels));
        matching.fold(0, |sum, (weight, _)| sum.saturating_add(*weight))
    }

    /// Returns whether the advertisement allows announcements on the interface of this name.
    #[must_use]
    pub fn selects_interface(&self, name: &str) -> bool {
        self.interfaces.is_empty() || self.names_interface(name)
    }

    /// Returns whether the advertisement announces every address on the interface of this name,
    /// whatever the subnets of the interface.
    #[must_use]
    pub fn ignores_subnets_of(&self, name: &str) -> bool {
        self.names_interface(name) || self.interfaces.is_empty() && self.all_interfaces
    }

    /// Returns `spec.interfaces`; empty for all interfaces.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// Returns whether `spec.interfaces` contains this name.
    #[must_use]
    pub fn names_interface(&self, name: &str) -> bool {
        self.interfaces.iter().any(|interface| interface == name)
    }
}

impl From<api::L2AdvertisementObject> for L2Advertisement {
    fn from(object: api::L2AdvertisementObject) -> Self {
        let spec = object.spec.unwrap_or_default();
        let (selectors, problem) = AdvertisementSelectors::decode(
            spec.ip_address_pools,
            [spec.ip_address_pool_selectors, spec.node_selectors, spec.service_selectors],
        );
        let weights: Vec<_> = spec
            .preferred_node_selectors
            .iter()
            .map(|term| u32::try_from(term.weight).unwrap_or(0))
            .collect();
        let preferred =
            spec.preferred_node_selectors.into_iter().map(|term| term.preference).collect();
        let (preferred, invalid_preference) = decode("preferredNodeSelectors", preferred)
            .map_or_else(|why| (Vec::new(), Some(why)), |preferred| (preferred, None));
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            created: object.metadata.creation_timestamp.map_or(0, |created| created.0.as_second()),
            selectors,
            preferences: weights.into_iter().zip(preferred).collect(),
            interfaces: spec.interfaces,
            all_interfaces: spec.all_interfaces,
            problem: problem.or(invalid_preference).map(L2AdvertisementProblem::Selector),
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

custom_resource!(L2Advertisement.name: L2AdvertisementObject, L2Advertisement, "L2Advertisements");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn advertisement(spec: serde_json::Value) -> L2Advertisement {
        let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "l2"}, "spec": spec});
        serde_json::from_value::<api::L2AdvertisementObject>(object).expect("advertisement").into()
    }

    fn pool(name: &str, label: &str) -> Pool {
        Pool {
            name: name.into(),
            labels: [("zone".to_owned(), label.to_owned())].into(),
            ..Pool::default()
        }
    }

    #[test]
    fn an_empty_advertisement_selects_everything() {
        let bare = serde_json::from_value::<api::L2AdvertisementObject>(
            json!({"metadata": {"name": "l2"}}),
        )
        .expect("bare");
        for ad in [L2Advertisement::from(bare), advertisement(json!({}))] {
            assert!(
                ad.selects_pool(&pool("a", "x"))
                    && ad.selectors.select_node(&BTreeMap::new())
                    && ad.selects_interface("eth0")
            );
        }
    }

    #[test]
    fn pool_names_and_pool_selectors_add_up() {
        let ad = advertisement(
            json!({"ipAddressPools": ["a"], "ipAddressPoolSelectors": [{"matchLabels": {"zone": "y"}}],
            "nodeSelectors": [{"matchExpressions": [{"key": "edge", "operator": "Exists"}]}], "interfaces": ["eth1"]}),
        );
        assert!(
            ad.selects_pool(&pool("a", "x"))
                && ad.selects_pool(&pool("b", "y"))
                && !ad.selects_pool(&pool("b", "x"))
        );
        assert!(
            !ad.selectors.select_node(&BTreeMap::new())
                && ad.selectors.select_node(&[("edge".to_owned(), String::new())].into())
        );
        assert!(!ad.selects_interface("eth0") && ad.selects_interface("eth1"));
    }

    #[test]
    fn service_selectors_are_alternatives_and_node_weights_add_up() {
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let ad = advertisement(json!({
        "serviceSelectors": [{"matchLabels": {"tier": "web"}}, {"matchExpressions": [{"key": "edge", "operator": "Exists"}]}],
        "preferredNodeSelectors": [
            {"weight": 10, "preference": {"matchLabels": {"rack": "a"}}},
            {"weight": 5, "preference": {"matchExpressions": [{"key": "rack", "operator": "Exists"}]}},
        ]}));
        for (given, selected) in [
            (labels("tier", "web"), true),
            (labels("edge", ""), true),
            (labels("tier", "db"), false),
        ] {
            assert_eq!(
                ad.selectors.select_service(|| given.clone()),
                selected,
                "the Service has the labels {given:?}"
            );
        }
        for (given, sum) in
            [(labels("rack", "a"), 15), (labels("rack", "b"), 5), (BTreeMap::new(), 0)]
        {
            assert_eq!(ad.preference(&given), sum, "the node has the labels {given:?}");
        }
        assert!(advertisement(json!({})).selectors.select_service(|| unreachable!(
            "an advertisement without Service selectors needs no labels"
        )));
    }

    #[test]
    fn an_invalid_selector_is_a_problem_and_selects_no_pool() {
        let wrong = json!({"matchExpressions": [{"key": "edge", "operator": "Near"}]});
        let preferred = json!([{"weight": 1, "preference": wrong}]);
        let fields = [
            ("nodeSelectors", json!([wrong])),
            ("serviceSelectors", json!([wrong])),
            ("preferredNodeSelectors", preferred),
        ];
        for (field, value) in fields {
            let ad = advertisement(json!({field: value}));
            let field_name = format!("spec.{field}:");
            assert!(
                matches!(&ad.problem, Some(L2AdvertisementProblem::Selector(why)) if why.starts_with(&field_name)),
                "the problem names the field: {:?}",
                ad.problem
            );
            assert!(!ad.selects_pool(&pool("a", "x")));
        }
    }
}
