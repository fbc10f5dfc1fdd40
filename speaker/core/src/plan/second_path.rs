//! Configuration of the second path: the InternalIPs between which the speakers exchange datagrams,
//! and the kubelets of the other nodes.
//! Pure; [`super::Memo`] has the configuration of the latest plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ferrolb_proto::facts::Node;
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::HelloKeyRing;

use crate::state::State;

/// Configuration of the second path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondPathConfig {
    /// First usable InternalIP of each family of this node.
    pub own: Vec<IpAddr>,
    /// The other nodes, by name.
    pub nodes: BTreeMap<Arc<str>, OtherNode>,
    /// All addresses in `nodes`.
    pub sources: BTreeSet<IpAddr>,
    /// Hello keys, which verify the datagrams.
    pub keys: HelloKeyRing,
}

/// Another node, as the second path reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherNode {
    /// Its usable InternalIPs.
    pub addresses: Box<[IpAddr]>,
    /// TCP port of its kubelet.
    pub kubelet_port: u16,
}

/// Configuration of the driver that watches other nodes, to detect their failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeWatchConfig {
    /// The other nodes and their addresses.
    pub nodes: Arc<SecondPathConfig>,
    /// The watched nodes with whose speakers any interface is in contact.
    pub contacts: BTreeSet<Box<str>>,
}

impl SecondPathConfig {
    /// Returns this node's InternalIP of one family.
    #[must_use]
    pub fn own_address(&self, family: Family) -> Option<IpAddr> {
        self.own.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Returns the address of a node to which this node sends datagrams: the first of a family of
    /// which this node has an address itself.
    #[must_use]
    pub fn address_of(&self, node: &str) -> Option<IpAddr> {
        let mut addresses = self.nodes.get(node)?.addresses.iter().copied();
        addresses.find(|address| self.own_address(Family::of(*address)).is_some())
    }

    /// Returns the address and TCP port of a node's kubelet.
    #[must_use]
    pub fn kubelet_of(&self, node: &str) -> Option<SocketAddr> {
        let port = self.nodes.get(node)?.kubelet_port;
        Some(SocketAddr::new(self.address_of(node)?, port))
    }
}

/// Returns the configuration that follows from the Nodes and the keys.
pub(super) fn second_path(state: &State) -> SecondPathConfig {
    let mut own: Vec<IpAddr> =
        state.own_node().into_iter().flat_map(Node::usable_addresses).collect();
    own.sort_by_key(|address| address.is_ipv6());
    own.dedup_by_key(|address| address.is_ipv6());
    let others = state.nodes.values().filter(|node| *node.name != *state.config.node);
    let other = |node: &Node| OtherNode {
        addresses: node.usable_addresses().collect(),
        kubelet_port: node.kubelet_port(),
    };
    let nodes: BTreeMap<_, _> = others.map(|node| (Arc::clone(&node.name), other(node))).collect();
    let sources = nodes.values().flat_map(|node| node.addresses.iter().copied()).collect();
    SecondPathConfig { own, nodes, sources, keys: state.keys.clone() }
}
