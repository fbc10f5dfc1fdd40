//! Handlers for changes of Nodes and Namespaces, and access to the stored objects; methods of the
//! state.
//!
//! A change that can affect every Service only sets a flag. At the end of the pass, the state then
//! decides all Services once.

use ferrolb_core::store::Change;
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::facts::{BgpPeer, Key, Namespace, Node, Pool, Service, Speaker};

use super::alloc::AddressUser;
use super::{Names, State};
use crate::event::Event;

impl State {
    /// Returns all Services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|entry| &entry.service)
    }

    /// Returns a Service.
    #[must_use]
    pub fn service(&self, key: &Key) -> Option<&Service> {
        Some(&self.services.get(key)?.service)
    }

    /// Returns the EndpointSlices of a Service that have endpoints.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = Key> {
        self.slices.keys_of(service)
    }

    /// Returns all Nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns all SpeakerStatuses, by node.
    pub fn speakers(&self) -> impl Iterator<Item = &Speaker> {
        self.speakers.values()
    }

    /// Returns all IPAddressPools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.custom_resources.pools.values()
    }

    /// Returns all BGPPeers, by name.
    pub fn peers(&self) -> impl Iterator<Item = &BgpPeer> {
        self.custom_resources.peers.values()
    }

    /// Returns the events by which watches report the deletion of all custom resources of a kind.
    /// Empty for SpeakerStatuses.
    #[must_use]
    pub fn custom_resource_deletions(&self, kind: CustomResourceKind) -> Vec<Event> {
        self.custom_resources.deletions(kind, &self.config.names.namespace)
    }

    /// Returns the namespace and the API group of the custom resources.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.config.names
    }

    fn has_services(&self, namespace: &str) -> bool {
        self.services
            .keys_after(&Key::new(namespace, ""))
            .next()
            .is_some_and(|key| *key.namespace() == *namespace)
    }
}

impl HandleChange<Namespace> for State {
    /// Handles a change of a Namespace. Labels matter only if a pool selects Namespaces by label. A
    /// deleted Namespace has no Services, so its deletion changes nothing.
    fn handle_change(&mut self, change: Change<Namespace>, _: Instant) {
        for (name, before) in self.namespaces.handle(change, |namespace| Some(namespace.labels)) {
            // A new Namespace matters only if a Service waits for it: the watch of Services may
            // report a Service before the watch of Namespaces reports its Namespace.
            let matters = self.namespaces.get(&name).is_some()
                && (before.is_some() || self.has_services(&name));
            self.decisions.all |= matters && self.pools_select_namespaces();
        }
    }
}

impl HandleChange<Node> for State {
    fn handle_change(&mut self, change: Change<Node>, _: Instant) {
        self.node_failures.evidence_changed();
        for (name, before) in self.nodes.handle(change, Some) {
            self.custom_resources.statuses_dirty |= before.as_ref().map(|node| &node.labels)
                != self.nodes.get(&name).map(|node| &node.labels);
            self.update_host(AddressUser::Node(name));
            self.recheck_all_services();
        }
    }
}
