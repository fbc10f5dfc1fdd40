//! Handlers for changes of Nodes and Namespaces; methods of the state.
//!
//! A change that can affect every Service only sets a flag. At the end of the pass, the state then
//! decides all Services once.

use crate::facts::{Key, Namespace, Node};
use crate::store::Change;

use super::State;

impl State {
    pub(super) fn handle_node(&mut self, change: Change<Node>) {
        self.node_failures.evidence_changed();
        for (name, before) in self.nodes.handle(change, Some) {
            let Some(node) = self.nodes.get(&name) else {
                self.all_services_dirty = true;
                continue;
            };
            let before = before.unwrap_or_default();
            self.custom_resources.statuses_dirty |=
                (&before.labels, before.ready_unknown) != (&node.labels, node.ready_unknown);
            self.all_services_dirty |= before.addresses != node.addresses;
            self.recheck_all_services();
        }
    }

    /// Handles a change of a Namespace. Labels matter only if a pool selects Namespaces by label. A
    /// deleted Namespace has no Services, so its deletion changes nothing.
    pub(super) fn handle_namespace(&mut self, change: Change<Namespace>) {
        for (name, before) in self.namespaces.handle(change, |namespace| Some(namespace.labels)) {
            // A new Namespace matters only if a Service waits for it: the watch of Services may
            // report a Service before the watch of Namespaces reports its Namespace.
            let matters = self.namespaces.get(&name).is_some()
                && (before.is_some() || self.has_services(&name));
            self.all_services_dirty |= matters && self.pools_select_namespaces();
        }
    }

    fn has_services(&self, namespace: &str) -> bool {
        self.services
            .keys_after(&Key::new(namespace, ""))
            .next()
            .is_some_and(|key| *key.namespace() == *namespace)
    }
}
