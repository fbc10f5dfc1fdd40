//! Addresses that the kernel of this node delivers to its own pods, by its routes. Part of the
//! state.
//!
//! Health checks may contact these addresses. Users of the cluster write neither routes nor
//! interfaces of a node: the network plugin does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::range::AddressRange;

use super::{Changes, State};
use crate::event::Routes;

/// The interface through which Cilium's programs deliver packets of the node to its pods.
const CILIUM_HOST: &str = "cilium_host";

/// Addresses that this node's kernel delivers to its own pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnPods {
    /// Addresses with a route of their own.
    addresses: BTreeSet<IpAddr>,
    /// Ranges with one route.
    ranges: Vec<AddressRange>,
}

impl OwnPods {
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.ranges.iter().any(|it| it.contains(address))
    }
}

impl State {
    pub(super) fn set_routes(&mut self, routes: Routes) -> Changes {
        let mut changes = Changes::other_if(routes.gateways != self.routes.gateways);
        self.routes = routes;
        changes.add(self.update_own_pods());
        changes
    }

    /// Computes the addresses of the pods of this node again. Returns the changes of the Services
    /// with health checks that have such endpoints.
    pub(super) fn update_own_pods(&mut self) -> Changes {
        let now = self.routed_pods();
        let before = std::mem::replace(&mut self.own_pods, now);
        let mut changes = Changes::default();
        if before == self.own_pods {
            return changes;
        }
        let has_changed = |address| before.contains(address) != self.own_pods.contains(address);
        for (key, _) in self.services.iter().filter(|(_, it)| it.check.is_some()) {
            let own = self.services.slices_of(key).filter_map(|slice| slice.own.as_deref());
            if own.flat_map(|own| &own.targets).any(|target| has_changed(target.address)) {
                changes.add(self.services.concerning(key));
            }
        }
        changes
    }

    /// Two forms of routes lead to pods of this node:
    /// - a route to one address, by the host's end of a pod's veth pair, which has no address. A
    ///   veth pair may also connect this node to its gateway, if the node is itself a container.
    /// - a route to the range of Cilium's own address on this node. Routes to the pods of other
    ///   nodes, which Cilium adds to the same interface, do not contain this address.
    fn routed_pods(&self) -> OwnPods {
        let mut pods = OwnPods::default();
        for route in &self.routes.to_pods {
            let link = self.links.as_ref().and_then(|links| links.get(&route.link));
            let Some(link) = link.filter(|link| link.up) else { continue };
            let (range, first) = (route.range, route.range.first());
            if range.last() == first {
                let is_pods = link.into_namespace && link.is_unnumbered();
                if is_pods && !self.routes.gateways.contains(&first) {
                    pods.addresses.insert(first);
                }
            } else if &*link.name == CILIUM_HOST
                && link.addresses.iter().any(|address| range.contains(*address))
            {
                pods.ranges.push(range);
            }
        }
        pods
    }
}
