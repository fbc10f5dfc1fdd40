//! The command `drain`: predicts the effect of a node's announcement drain. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::state::Outlook;
use ferrolb_core::bgp::Prefix;
use ferrolb_core::store::Change;
use ferrolb_proto::facts::{DrainReason, Node};
use serde::Serialize;

use crate::plan::Prediction;
use crate::plan::effect::services_by_address;
use crate::table::table;

/// The effect of an announcement drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Name of the Node.
    pub node: String,
    /// The addresses that the node announces on layer 2.
    pub addresses: Vec<DrainedAddress>,
    /// The prefixes that the node advertises, by BGPPeer.
    pub routes: Vec<DrainedRoute>,
}

/// An address that the node announces on layer 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainedAddress {
    /// The address.
    pub address: String,
    /// The Services that have the address.
    pub services: Vec<String>,
    /// The nodes that announce the address afterwards.
    pub moves_to: Vec<String>,
}

/// A prefix that the node advertises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainedRoute {
    /// Name of the BGPPeer.
    pub peer: String,
    /// The prefix.
    pub prefix: String,
    /// Other nodes that advertise the prefix with a preferred route.
    pub others: Vec<String>,
}

impl Drain {
    /// Returns the effect of the annotation `ferrolb.io/drain` on a Node.
    #[must_use]
    pub fn new(node: Node, mut prediction: Prediction) -> Self {
        let name = node.name.to_string();
        let before = prediction.before().clone();
        let drained = Node { drain: Some(DrainReason::Annotation), ..node };
        prediction.change(Event::of::<Node>(Change::Apply(drained)));
        Self::between(name, &before, &prediction.outlook())
    }

    fn between(node: String, before: &Outlook, after: &Outlook) -> Self {
        let owned = before.owners.iter().filter(|(_, owner)| owner.present.contains(&node));
        let services = services_by_address(before.services.iter());
        let address = |address: &IpAddr| DrainedAddress {
            address: address.to_string(),
            services: services
                .get(address)
                .into_iter()
                .flatten()
                .map(ToString::to_string)
                .collect(),
            moves_to: after.owners.get(address).map(|it| it.next.clone()).unwrap_or_default(),
        };
        let advertised = before.routes.iter().filter(|(_, nodes)| nodes.contains_key(&*node));
        let route = |key: &(Box<str>, Prefix)| DrainedRoute {
            peer: key.0.to_string(),
            prefix: key.1.to_string(),
            others: after
                .routes
                .get(key)
                .into_iter()
                .flatten()
                .filter(|(other, de_preferred)| ***other != *node && !**de_preferred)
                .map(|(other, _)| other.to_string())
                .collect(),
        };
        Self {
            addresses: owned.map(|(it, _)| address(it)).collect(),
            routes: advertised.map(|(key, _)| route(key)).collect(),
            node,
        }
    }

    /// Returns whether no address uses the node after the drain, if routers honor the de-preference
    /// of its routes.
    #[must_use]
    pub fn empties_node(&self) -> bool {
        self.addresses.iter().all(|it| !it.stays(&self.node))
            && self.routes.iter().all(|it| !it.others.is_empty())
    }

    /// Returns the effect as text.
    #[must_use]
    pub fn text(&self) -> String {
        let node = &self.node;
        let mut text = String::new();
        if !self.addresses.is_empty() {
            let rows = self.addresses.iter().map(|it| it.row(node));
            text.push_str(&table(["ADDRESS", "SERVICES", "EFFECT"], rows));
            text.push('\n');
        }
        if !self.routes.is_empty() {
            let rows = self.routes.iter().map(DrainedRoute::row);
            text.push_str(&table(["BGPPEER", "PREFIX", "EFFECT"], rows));
            text.push('\n');
        }
        if self.empties_node() {
            _ = writeln!(
                text,
                "{node} is not used afterwards. Start the drain: kubectl annotate node {node} \
                 ferrolb.io/drain="
            );
        } else {
            _ = writeln!(
                text,
                "{node} is still used afterwards: start pods of these Services on other nodes, or \
                 accept an interruption"
            );
        }
        text
    }
}

impl DrainedAddress {
    fn stays(&self, node: &str) -> bool {
        self.moves_to.is_empty() || self.moves_to.iter().any(|to| to == node)
    }

    fn row(&self, node: &str) -> [String; 3] {
        let effect = if self.stays(node) {
            format!("stays on {node}: no other node can announce it")
        } else {
            format!("moves to {}", self.moves_to.join(","))
        };
        [self.address.clone(), self.services.join(","), effect]
    }
}

impl DrainedRoute {
    fn row(&self) -> [String; 3] {
        let effect = if self.others.is_empty() {
            "de-preferred, still used: no other node advertises it".to_owned()
        } else {
            format!("de-preferred: routers use {}", self.others.join(","))
        };
        [self.peer.clone(), self.prefix.clone(), effect]
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_controller_core::state::{OwnerOutlook, ServiceOutlook};
    use ferrolb_proto::facts::Key;

    use super::*;

    /// Returns an outlook in which node1 owns two addresses at present, with these next owners, and
    /// in which these nodes advertise a prefix.
    fn outlook(next: [&str; 2], routes: &[(&str, bool)]) -> Outlook {
        let mut outlook = Outlook::default();
        for (last, next) in (1..).zip(next) {
            let address = IpAddr::from([10, 0, 0, last]);
            let addresses = vec![address];
            outlook.services.insert(
                Key::new("default", &format!("s{last}")),
                ServiceOutlook { addresses, pool: None, reason: "Assigned" },
            );
            let (present, next) = (vec!["node1".to_owned()], vec![next.to_owned()]);
            outlook.owners.insert(address, OwnerOutlook { present, next });
            let nodes = routes.iter().map(|(node, it)| ((*node).into(), *it)).collect();
            outlook.routes.insert(("tor".into(), Prefix::of(address, 32)), nodes);
        }
        outlook
    }

    #[test]
    fn what_moves_and_what_stays_is_told_for_each_address_and_route() {
        let before = outlook(["node1", "node1"], &[("node1", false), ("node2", false)]);
        let moves = outlook(["node2", "node2"], &[("node1", true), ("node2", false)]);
        let empties = Drain::between("node1".to_owned(), &before, &moves);
        assert!(empties.empties_node(), "{empties:?}");
        let stays = outlook(["node2", "node1"], &[("node1", true), ("node2", true)]);
        let drain = Drain::between("node1".to_owned(), &before, &stays);
        assert!(!drain.empties_node());
        assert_eq!(
            drain.text(),
            "ADDRESS    SERVICES     EFFECT\n\
             10.0.0.1   default/s1   moves to node2\n\
             10.0.0.2   default/s2   stays on node1: no other node can announce it\n\
             \n\
             BGPPEER   PREFIX        EFFECT\n\
             tor       10.0.0.1/32   de-preferred, still used: no other node advertises it\n\
             tor       10.0.0.2/32   de-preferred, still used: no other node advertises it\n\
             \n\
             node1 is still used afterwards: start pods of these Services on other nodes, or \
             accept an interruption\n"
        );
    }
}
