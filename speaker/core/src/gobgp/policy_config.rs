//! Configuration of gobgpd for one class of routes, with a mark that identifies it.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{ExportAttributes, ExportGroups};
use ferrolb_proto::facts::CommunityValue;
use gobgp_proto as api;
use prost::Message;

use super::content_hash::{ContentHash, NAME_PREFIX};

/// Configuration of one class of routes of one family in gobgpd: the routers that receive paths
/// with its mark, and with which attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyConfig {
    /// Mark that the paths of the class carry.
    pub(super) hash: ContentHash,
    /// Defined sets of GoBGP that the statements refer to: the mark, and the routers' addresses.
    pub sets: Vec<api::DefinedSet>,
    /// Statements of the export policy, one for each group of routers that receive the same
    /// attributes.
    pub statements: Vec<api::Statement>,
}

impl PolicyConfig {
    /// Creates the configuration of a class whose routers have these groups.
    pub(super) fn new(groups: &ExportGroups) -> Self {
        // The order of the statements, and therefore the mark, depends on the encoded actions.
        let statements: BTreeMap<Vec<u8>, (api::Actions, BTreeSet<String>)> = groups
            .iter()
            .map(|(attributes, routers)| {
                let actions = actions(attributes);
                let neighbors = routers.iter().map(ToString::to_string).collect();
                (actions.encode_to_vec(), (actions, neighbors))
            })
            .collect();
        let mut content = Vec::new();
        for (actions, (_, neighbors)) in &statements {
            content.extend(actions);
            neighbors.iter().for_each(|name| content.extend([name.as_bytes(), b" "].concat()));
        }
        let mark = ContentHash::of(&content);
        let set = api::DefinedSet {
            defined_type: api::DefinedType::LargeCommunity as i32,
            name: format!("{NAME_PREFIX}{mark}"),
            list: vec![large_community_text(&mark.community())],
        };
        let mut policy = Self { hash: mark, sets: vec![set], statements: Vec::new() };
        for (index, (actions, neighbors)) in statements.into_values().enumerate() {
            policy.add(format!("{NAME_PREFIX}{mark}-{index}"), actions, neighbors);
        }
        policy
    }

    fn add(&mut self, name: String, actions: api::Actions, neighbors: BTreeSet<String>) {
        let any =
            |name: String| Some(api::MatchSet { r#type: api::match_set::Type::Any as i32, name });
        let mark = large_community_text(&self.hash.community());
        self.sets.push(api::DefinedSet {
            defined_type: api::DefinedType::Neighbor as i32,
            name: name.clone(),
            list: neighbors.into_iter().collect(),
        });
        // The large communities of the class replace the mark in the routes that routers receive.
        // If the class has none, the statement removes the mark.
        let large = actions
            .large_community
            .or_else(|| communities(api::community_action::Type::Remove, vec![mark]));
        self.statements.push(api::Statement {
            conditions: Some(api::Conditions {
                neighbor_set: any(name.clone()),
                large_community_set: any(format!("{NAME_PREFIX}{}", self.hash)),
                route_type: api::conditions::RouteType::Unspecified as i32,
            }),
            name,
            actions: Some(api::Actions { large_community: large, ..actions }),
        });
    }
}

/// Returns the actions of gobgpd's export policy that give a route these attributes.
fn actions(attributes: &ExportAttributes) -> api::Actions {
    let ExportAttributes { communities: all, local_pref, med, prepend, next_hop } = attributes;
    let texts = |large: bool| {
        let has_size = move |community: &&CommunityValue| {
            matches!(community, CommunityValue::Large(..)) == large
        };
        let selected: Vec<_> =
            all.iter().filter(has_size).map(|community| community_text(*community)).collect();
        (!selected.is_empty()).then_some(selected)
    };
    let replace = |texts| communities(api::community_action::Type::Replace, texts);
    api::Actions {
        route_action: api::RouteAction::Accept as i32,
        community: texts(false).and_then(replace),
        med: med.map(|med| api::MedAction {
            r#type: api::med_action::Type::Replace as i32,
            value: med.into(),
        }),
        as_prepend: prepend.map(|(asn, count)| api::AsPrependAction { asn, repeat: count.into() }),
        nexthop: next_hop.map(|address| api::NexthopAction { address: address.to_string() }),
        // Every path in gobgpd already has LOCAL_PREF 0, and no action of GoBGP can set 0.
        local_pref: (*local_pref > 0).then_some(api::LocalPrefAction { value: *local_pref }),
        large_community: texts(true).and_then(replace),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a field of the API, which may be absent")]
fn communities(
    kind: api::community_action::Type,
    communities: Vec<String>,
) -> Option<api::CommunityAction> {
    Some(api::CommunityAction { r#type: kind as i32, communities })
}

/// Returns a community in GoBGP's notation: numbers separated by colons.
fn community_text(community: CommunityValue) -> String {
    match community {
        CommunityValue::Standard(a, b) => format!("{a}:{b}"),
        CommunityValue::Large(a, b, c) => format!("{a}:{b}:{c}"),
    }
}

fn large_community_text(community: &api::LargeCommunity) -> String {
    let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
    format!("{global_admin}:{local_data1}:{local_data2}")
}

#[cfg(test)]
mod tests;
