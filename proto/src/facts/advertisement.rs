//! An L2Advertisement, decoded for decisions.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use super::Pool;
use crate::api;

/// What we know of an L2Advertisement.
#[derive(Clone, Debug, Default)]
pub struct Advertisement {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    pools: Vec<String>,
    pool_selectors: Vec<Selector>,
    node_selectors: Vec<Selector>,
    interfaces: Vec<String>,
    /// Why it cannot be used, if so: an invalid selector, by field. It announces nothing then.
    pub problem: Option<Box<str>>,
    /// The status it has.
    pub status: api::L2AdvertisementStatus,
}

impl Advertisement {
    /// Whether it announces this pool.
    #[must_use]
    pub fn selects_pool(&self, pool: &Pool) -> bool {
        let all = self.pools.is_empty() && self.pool_selectors.is_empty();
        self.problem.is_none()
            && (all || self.pools.iter().any(|name| **name == *pool.name) || any(&self.pool_selectors, &pool.labels))
    }

    /// Whether a node with these labels may announce.
    #[must_use]
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.node_selectors.is_empty() || any(&self.node_selectors, labels)
    }

    /// Whether it announces on a link of this name.
    #[must_use]
    pub fn selects_interface(&self, name: &str) -> bool {
        self.interfaces.is_empty() || self.interfaces.iter().any(|ours| ours == name)
    }
}

fn any(selectors: &[Selector], labels: &BTreeMap<String, String>) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

fn read(field: &str, selectors: Vec<LabelSelector>) -> Result<Vec<Selector>, Box<str>> {
    let read = selectors.into_iter().map(Selector::try_from).collect::<Result<_, _>>();
    read.map_err(|error| format!("spec.{field}: {error}").into())
}

impl From<api::L2> for Advertisement {
    fn from(object: api::L2) -> Self {
        let spec = object.spec.unwrap_or_default();
        let mut problem = None;
        let mut selectors = |field, selectors| {
            read(field, selectors).unwrap_or_else(|why| {
                problem = Some(why);
                Vec::new()
            })
        };
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            pools: spec.ip_address_pools,
            pool_selectors: selectors("ipAddressPoolSelectors", spec.ip_address_pool_selectors),
            node_selectors: selectors("nodeSelectors", spec.node_selectors),
            interfaces: spec.interfaces,
            problem,
            status: object.status.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn advertisement(spec: serde_json::Value) -> Advertisement {
        let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "L2Advertisement", "metadata": {"name": "l2"}, "spec": spec});
        serde_json::from_value::<api::L2>(object).expect("advertisement").into()
    }

    fn pool(name: &str, label: &str) -> Pool {
        Pool { name: name.into(), labels: [("zone".to_owned(), label.to_owned())].into(), ..Pool::default() }
    }

    #[test]
    fn a_bare_advertisement_announces_all_pools_from_everywhere() {
        let bare = serde_json::from_value::<api::L2>(json!({"metadata": {"name": "l2"}})).expect("bare");
        for ad in [Advertisement::from(bare), advertisement(json!({}))] {
            assert!(
                ad.selects_pool(&pool("a", "x")) && ad.selects_node(&BTreeMap::new()) && ad.selects_interface("eth0")
            );
        }
    }

    #[test]
    fn names_and_selectors_add_up() {
        let ad =
            advertisement(json!({"ipAddressPools": ["a"], "ipAddressPoolSelectors": [{"matchLabels": {"zone": "y"}}],
            "nodeSelectors": [{"matchExpressions": [{"key": "edge", "operator": "Exists"}]}], "interfaces": ["eth1"]}));
        assert!(
            ad.selects_pool(&pool("a", "x")) && ad.selects_pool(&pool("b", "y")) && !ad.selects_pool(&pool("b", "x"))
        );
        assert!(!ad.selects_node(&BTreeMap::new()) && ad.selects_node(&[("edge".to_owned(), String::new())].into()));
        assert!(!ad.selects_interface("eth0") && ad.selects_interface("eth1"));
    }

    #[test]
    fn an_invalid_selector_is_said_and_announces_nothing() {
        let ad = advertisement(json!({"nodeSelectors": [{"matchExpressions": [{"key": "edge", "operator": "Near"}]}]}));
        assert!(ad.problem.as_ref().is_some_and(|why| why.starts_with("spec.nodeSelectors")), "{:?}", ad.problem);
        assert!(!ad.selects_pool(&pool("a", "x")));
    }
}
