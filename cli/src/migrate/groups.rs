//! The groups of nodes of a migration node by node, and the Services that move with each group.
//! Pure.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use ferrolb_core::election;
use ferrolb_proto::api::CustomResourceKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde::Deserialize as _;
use serde_json::Value;

use super::served::{Served, pool};
use super::translate::METALLB;
use crate::check::cluster::EXCLUDE_LABEL;
use crate::objects::{self, CORE, Objects, list, name, namespace, text, texts};

/// Labels of an object.
type Labels = BTreeMap<String, String>;

/// Nodes that move together.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// The node, or the label with its value.
    pub name: String,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Services with an address on layer 2 that these nodes announce.
    pub layer2: Served,
}

/// All groups, and the Services that do not move with one of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Groups {
    /// The groups, in order.
    pub all: Vec<Group>,
    /// Services that MetalLB does not announce on layer 2.
    pub others: Served,
}

impl Groups {
    /// Finds the groups: the Nodes with equal values of a label, and last those without the label.
    /// Without a label, each Node is a group.
    ///
    /// # Errors
    /// There is no Node, or none has the label.
    pub fn find(objects: &Objects, metallb: &str, by: Option<&str>) -> Result<Self> {
        let nodes: Vec<_> = objects.of(CORE, "Node").collect();
        ensure!(
            !nodes.is_empty(),
            "no Node is in the files: add the output of kubectl get nodes -o yaml"
        );
        // The Nodes without the label are last.
        let mut groups: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for node in nodes {
            let key = match by {
                None => (false, name(node).to_owned()),
                Some(label) => match labels(node).remove(label) {
                    Some(value) => (false, format!("{label}={}", value.escape_debug())),
                    None => (true, format!("nodes without {label}")),
                },
            };
            groups.entry(key).or_default().push(name(node).to_owned());
        }
        ensure!(
            groups.keys().any(|(is_last, _)| !is_last),
            "no Node has the label {}: kubectl get nodes --show-labels",
            by.unwrap_or_default()
        );
        let group = |((_, name), mut nodes): (_, Vec<String>)| {
            nodes.sort();
            Group { name, nodes, layer2: Served::default() }
        };
        Ok(Self { all: groups.into_iter().map(group).collect(), others: Served::default() }
            .with_services(objects, metallb))
    }

    /// Adds each Service that MetalLB serves to the group whose node announces it on layer 2, or to
    /// the first group if no node does.
    ///
    /// The endpoints are not known. With `externalTrafficPolicy: Local`, another node may announce
    /// the Service: it then moves with this group all the same.
    fn with_services(mut self, objects: &Objects, metallb: &str) -> Self {
        let advertisements: Vec<_> = of(objects, metallb, CustomResourceKind::L2Advertisement);
        let pools = of(objects, metallb, CustomResourceKind::IPAddressPool);
        // A MetalLB without a class does not serve Services of a class.
        let is_classless = |it: &&Value| text(it, "/spec/loadBalancerClass").is_empty();
        for service in objects.load_balancers().filter(is_classless) {
            let name = pool(service).unwrap_or_default();
            let pool = pools.iter().find(|it| objects::name(it) == name);
            let selects = |it: &&&Value| pool.is_some_and(|pool| selects_pool(it, pool));
            let advertisements: Vec<&Value> =
                advertisements.iter().filter(selects).copied().collect();
            let is_layer2 = !advertisements.is_empty();
            let owner = owner(objects, &advertisements, service);
            let position = self.all.iter().position(|group| {
                owner.is_some_and(|owner| group.nodes.iter().any(|node| node == owner))
            });
            let group = self.all.get_mut(position.unwrap_or_default());
            match group.filter(|_| is_layer2) {
                Some(group) => group.layer2.add(service),
                None => self.others.add(service),
            };
        }
        self
    }

    /// Returns the groups with Services on layer 2.
    pub fn on_layer2(&self) -> impl Iterator<Item = &Group> {
        self.all.iter().filter(|group| !group.layer2.is_empty())
    }
}

/// Returns the node that announces a Service by these advertisements on layer 2: the first one in
/// the order of both MetalLB and FerroLB.
fn owner<'a>(objects: &'a Objects, advertisements: &[&Value], service: &Value) -> Option<&'a str> {
    let address = objects::addresses(service).first()?.to_string();
    let is_candidate = |node: &&Value| {
        let labels = labels(node);
        let is_selected = |it: &&Value| matches(it, "/spec/nodeSelectors", &labels);
        !labels.contains_key(EXCLUDE_LABEL) && advertisements.iter().any(is_selected)
    };
    let nodes = objects.of(CORE, "Node").filter(is_candidate).map(name);
    nodes.min_by_key(|node| election::order(node, &address))
}

/// Returns how many BGPPeers select each Node.
#[must_use]
pub fn sessions(objects: &Objects, peers: &[Value]) -> BTreeMap<String, usize> {
    let count = |node: &Value| {
        let labels = labels(node);
        peers.iter().filter(|peer| matches(peer, "/spec/nodeSelectors", &labels)).count()
    };
    objects.of(CORE, "Node").map(|node| (name(node).to_owned(), count(node))).collect()
}

fn of<'a>(objects: &'a Objects, metallb: &str, kind: CustomResourceKind) -> Vec<&'a Value> {
    objects.of(METALLB, kind.name()).filter(|it| namespace(it) == metallb).collect()
}

/// Returns whether an advertisement announces the addresses of a pool.
fn selects_pool(advertisement: &Value, pool: &Value) -> bool {
    let [names, selectors] = ["/spec/ipAddressPools", "/spec/ipAddressPoolSelectors"];
    let is_named = texts(advertisement, names).any(|it| it == name(pool));
    let has_selectors = !list(advertisement, selectors).is_empty();
    let selects_all = list(advertisement, names).is_empty() && !has_selectors;
    is_named || selects_all || (has_selectors && matches(advertisement, selectors, &labels(pool)))
}

/// Returns whether one of the label selectors in a field matches. No selector selects everything.
fn matches(object: &Value, field: &str, labels: &Labels) -> bool {
    let selectors = list(object, field);
    let matches = |it: &Value| {
        let selector = LabelSelector::deserialize(it).ok();
        let selector = selector.and_then(|it| Selector::try_from(it).ok());
        selector.is_some_and(|it| it.matches(labels))
    };
    selectors.is_empty() || selectors.iter().any(matches)
}

fn labels(object: &Value) -> Labels {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
