//! The fact of a BGPAdvertisement: which nodes may advertise which addresses to which peers, and
//! with which attributes.

use super::kind::custom_resource;
use std::collections::BTreeSet;

use super::community::CommunityValue;
use super::{AdvertisementSelectors, ObservedStatus, Pool};
use crate::api::{self, BGPAdvertisementSpec};
use crate::range::Family;

/// A community in `spec.communities` of a BGPAdvertisement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommunityRef {
    /// The entry is the value of a community.
    Value(CommunityValue),
    /// The entry is a name that a Community defines.
    Name(Box<str>),
}

/// The reason why a BGPAdvertisement by itself is invalid, independent of other objects. An invalid
/// BGPAdvertisement advertises nothing and does not affect the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BgpAdvertisementProblem {
    /// An aggregation length is no prefix length of its family.
    ///
    /// Action: Write another length.
    #[error("spec.{field} is {length}: write 1 to {max}")]
    Length {
        /// The name of the field in `spec`.
        field: &'static str,
        /// The invalid length, in bits.
        length: u8,
        /// The length of an address of the family, in bits.
        max: u8,
    },
    /// An aggregation length is set together with `spec.serviceSelectors`.
    ///
    /// An advertised prefix could contain addresses of Services that are not selected.
    ///
    /// Action: Remove one of the two.
    #[error(
        "spec.serviceSelectors and an aggregation length are both set, and a prefix also covers \
         Services that are not selected: remove one of them"
    )]
    SelectorsWithAggregation,
    /// A community occurs twice.
    ///
    /// Action: Write it once.
    #[error("spec.communities: {0:?} occurs twice: write it once")]
    DuplicateCommunity(Box<str>),
    /// A selector is invalid.
    #[error("{0}")]
    Selector(Box<str>),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// The fact of a BGPAdvertisement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BgpAdvertisement {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970. Of two advertisements that conflict with
    /// each other, the older one is in use.
    pub created: i64,
    /// `spec.aggregationLength` and `spec.aggregationLengthV6`, in bits.
    lengths: [u8; 2],
    /// `spec.localPref`; `None` for the default, 100.
    pub local_pref: Option<u32>,
    /// `spec.med`.
    pub med: Option<u32>,
    /// `spec.asPathPrepend`.
    pub as_path_prepend: u8,
    /// `spec.communities`.
    pub communities: Vec<CommunityRef>,
    /// `spec.peers`; empty for all peers.
    pub peers: BTreeSet<Box<str>>,
    /// The pools, nodes and Services that the advertisement selects.
    pub selectors: AdvertisementSelectors,
    /// The reason why the advertisement is invalid, or `None`.
    pub problem: Option<BgpAdvertisementProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::BGPAdvertisementStatus>,
}

impl BgpAdvertisement {
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

    /// Returns whether the advertisement has prefixes with several addresses.
    pub fn aggregates(&self) -> bool {
        [Family::V4, Family::V6]
            .iter()
            .any(|family| self.aggregation_length(*family) < family.width())
    }

    /// Returns whether the advertisement selects the BGPPeer of this name.
    #[must_use]
    pub fn selects_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.contains(name)
    }

    /// Returns the length of the advertised prefixes of a family, in bits.
    #[must_use]
    pub const fn aggregation_length(&self, family: Family) -> u8 {
        self.lengths[family as usize]
    }
}

impl From<api::BgpAdvertisementObject> for BgpAdvertisement {
    fn from(object: api::BgpAdvertisementObject) -> Self {
        let spec = object.spec.unwrap_or_default();
        let problem = problem(&spec);
        let (selectors, invalid_selector) = AdvertisementSelectors::decode(
            spec.ip_address_pools,
            [spec.ip_address_pool_selectors, spec.node_selectors, spec.service_selectors],
        );
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            created: object.metadata.creation_timestamp.map_or(0, |created| created.0.as_second()),
            lengths: [spec.aggregation_length, spec.aggregation_length_v6],
            local_pref: Some(spec.local_pref).filter(|local_pref| *local_pref != 0),
            med: spec.med,
            as_path_prepend: spec.as_path_prepend,
            communities: spec.communities.iter().map(|text| community(text)).collect(),
            peers: spec.peers.into_iter().map(Into::into).collect(),
            selectors,
            problem: invalid_selector.map(BgpAdvertisementProblem::Selector).or(problem),
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

fn community(text: &str) -> CommunityRef {
    text.parse().map_or_else(|_| CommunityRef::Name(text.into()), CommunityRef::Value)
}

fn problem(spec: &BGPAdvertisementSpec) -> Option<BgpAdvertisementProblem> {
    let lengths = [
        ("aggregationLength", spec.aggregation_length, 32),
        ("aggregationLengthV6", spec.aggregation_length_v6, 128),
    ];
    if let Some((field, length, max)) =
        lengths.into_iter().find(|(_, length, max)| !(1..=*max).contains(length))
    {
        return Some(BgpAdvertisementProblem::Length { field, length, max });
    }
    let has_no_aggregation = lengths.iter().all(|(_, length, max)| length == max);
    if !spec.service_selectors.is_empty() && !has_no_aggregation {
        return Some(BgpAdvertisementProblem::SelectorsWithAggregation);
    }
    let mut seen = BTreeSet::new();
    let duplicate = spec.communities.iter().find(|text| !seen.insert(community(text)));
    duplicate.map(|text| BgpAdvertisementProblem::DuplicateCommunity(text.as_str().into()))
}

custom_resource!(
    BgpAdvertisement.name: BgpAdvertisementObject,
    BGPAdvertisement,
    "BGPAdvertisements"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn advertisement(spec: Value) -> BgpAdvertisement {
        serde_json::from_value::<api::BgpAdvertisementObject>(
            json!({"metadata": {"name": "bgp"}, "spec": spec}),
        )
        .expect("advertisement")
        .into()
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
        let bare = serde_json::from_value::<api::BgpAdvertisementObject>(
            json!({"metadata": {"name": "bgp"}}),
        )
        .expect("bare");
        for ad in [
            BgpAdvertisement::from(bare),
            advertisement(json!({})),
            advertisement(json!({"localPref": 0, "peers": []})),
        ] {
            assert!(
                ad.problem.is_none()
                    && ad.selects_pool(&pool("a", "x"))
                    && ad.selectors.select_node(&BTreeMap::new())
            );
            assert!(
                ad.selects_peer("tor")
                    && ad.selectors.select_service(|| unreachable!(
                        "an advertisement without Service selectors needs no labels"
                    ))
            );
            assert_eq!(
                [Family::V4, Family::V6].map(|family| ad.aggregation_length(family)),
                [32, 128]
            );
            assert_eq!(
                (ad.local_pref, ad.med, ad.as_path_prepend, ad.communities),
                (None, None, 0, vec![])
            );
        }
    }

    #[test]
    fn each_field_is_decoded() {
        let ad = advertisement(json!({
            "aggregationLength": 24, "aggregationLengthV6": 64, "localPref": 200, "med": 0, "asPathPrepend": 3,
            "communities": ["64512:1", "large:1:2:3", "no-export"], "peers": ["tor"], "ipAddressPools": ["a"],
            "ipAddressPoolSelectors": [{"matchLabels": {"zone": "y"}}], "nodeSelectors": [{"matchLabels": {"rack": "a"}}],
        }));
        assert_eq!(ad.problem, None);
        assert_eq!([Family::V4, Family::V6].map(|family| ad.aggregation_length(family)), [24, 64]);
        assert_eq!((ad.local_pref, ad.med, ad.as_path_prepend), (Some(200), Some(0), 3));
        let values = [CommunityValue::Standard(64512, 1), CommunityValue::Large(1, 2, 3)]
            .map(CommunityRef::Value);
        assert_eq!(
            (&ad.communities[..2], &ad.communities[2]),
            (&values[..], &CommunityRef::Name("no-export".into()))
        );
        assert!(ad.selects_peer("tor") && !ad.selects_peer("spine"));
        assert!(
            ad.selects_pool(&pool("a", "x"))
                && ad.selects_pool(&pool("b", "y"))
                && !ad.selects_pool(&pool("b", "x"))
        );
        assert!(!ad.selectors.select_node(&BTreeMap::new()));
        let labels = |tier: &str| [("tier".to_owned(), tier.to_owned())].into();
        let of_web = advertisement(json!({"serviceSelectors": [{"matchLabels": {"tier": "web"}}]}));
        assert!(
            of_web.selectors.select_service(|| labels("web"))
                && !of_web.selectors.select_service(|| labels("db"))
        );
    }

    #[test]
    fn an_invalid_advertisement_has_a_problem_and_selects_no_pool() {
        let invalid = json!([{"matchExpressions": [{"key": "edge", "operator": "Near"}]}]);
        let cases = [
            (json!({"aggregationLength": 33}), "spec.aggregationLength is 33: write 1 to 32"),
            (json!({"aggregationLengthV6": 0}), "spec.aggregationLengthV6 is 0: write 1 to 128"),
            (json!({"aggregationLength": 24, "serviceSelectors": [{}]}), "are both set"),
            (json!({"communities": ["1:2", "3:4", "01:2"]}), "\"01:2\" occurs twice"),
            (json!({"nodeSelectors": invalid}), "spec.nodeSelectors:"),
            (json!({"serviceSelectors": invalid}), "spec.serviceSelectors:"),
            (json!({"ipAddressPoolSelectors": invalid}), "spec.ipAddressPoolSelectors:"),
        ];
        for (spec, why) in cases {
            let ad = advertisement(spec.clone());
            let problem = ad.problem.as_ref().expect("a problem").to_string();
            assert!(
                problem.contains(why) && !ad.selects_pool(&pool("a", "x")),
                "the problem of {spec} contains {why:?}, and no pool is selected: {problem}"
            );
        }
    }
}
