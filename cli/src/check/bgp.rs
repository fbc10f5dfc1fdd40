//! Rules about BGPPeers and their sessions. Pure.

use ferrolb_proto::api::{CONDITION_ESTABLISHED, ConditionStatus, CustomResourceKind};
use ferrolb_proto::facts::BgpPeer;

use super::facts::{ClusterFacts, Objects, ResourceCondition};
use super::finding::{Code, Finding, MANIFESTS, Object};
use crate::table::first_names;

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let Some(objects) = &facts.objects else { return Vec::new() };
    let without = objects.peers.iter().filter_map(|peer| without_gobgpd(peer, objects));
    let down = facts.conditions.iter().filter(is_down).map(|it| {
        let text = format!(
            "BGPPeer {}: {}. For all nodes, see `kubectl -n {} describe fspeaker`",
            it.name, it.message, objects.installation.config.names.namespace
        );
        Finding::new(Code::NotEstablished, vec![peer_object(&it.name, objects)], text)
    });
    without.chain(down).collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let peers = facts.objects.as_ref().map(|objects| objects.peers.len()).unwrap_or_default();
    if peers == 0 { "no BGPPeer".to_owned() } else { format!("BGPPeers: {peers}, all established") }
}

fn peer_object(name: &str, objects: &Objects) -> Object {
    let kind = CustomResourceKind::BGPPeer.name();
    Object::namespaced(kind, &objects.installation.config.names.namespace, name)
}

fn is_down(it: &&ResourceCondition) -> bool {
    it.kind == CustomResourceKind::BGPPeer.name()
        && it.condition == CONDITION_ESTABLISHED
        && it.status == ConditionStatus::False
}

fn without_gobgpd(peer: &BgpPeer, objects: &Objects) -> Option<Finding> {
    let is_selected = |name: &str| {
        let node = objects.nodes.iter().find(|node| *node.name == *name);
        node.is_some_and(|node| peer.selects_node(&node.labels))
    };
    let speakers = objects.live_speakers().filter(|it| it.bgp.is_none() && is_selected(&it.node));
    let nodes: Vec<&str> = speakers.map(|it| &*it.node).collect();
    let text = format!(
        "BGPPeer {} selects {}, whose speakers run without gobgpd: apply \
         {MANIFESTS}/install-bgp.yaml (chart: bgp.enabled), or correct spec.nodeSelectors",
        peer.name,
        first_names(&nodes)
    );
    (peer.session.is_ok() && !nodes.is_empty())
        .then(|| Finding::new(Code::NoGobgpd, vec![peer_object(&peer.name, objects)], text))
}
