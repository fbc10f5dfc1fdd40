//! Changes of objects as events of the controller. Pure.

use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::state::Config;
use ferrolb_proto::api::CustomResourceKind;
use serde_json::Value;

use crate::events::event;
use crate::objects::{CORE, group, label, name, text};

/// API group of CustomResourceDefinitions.
const CRDS: &str = "apiextensions.k8s.io";

/// Changes of objects, in order.
#[derive(Debug, Default)]
pub struct Changes {
    /// The events by which watches report the changes that FerroLB reads.
    pub events: Vec<Event>,
    /// The changed objects, such as `apply IPAddressPool lan`.
    pub described: Vec<String>,
    /// The objects that FerroLB does not read.
    pub ignored: Vec<String>,
    /// Deletions of many objects, which follow the events.
    pub deletions: Vec<Deletion>,
}

/// A deletion of many objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// All objects of a Namespace, which is deleted.
    Namespace(String),
    /// All custom resources of a kind, whose CustomResourceDefinition is deleted.
    Kind(CustomResourceKind),
}

impl Changes {
    /// Returns the changes of an installation. First, `applied` exist as given. Then, `deleted` are
    /// deleted.
    #[must_use]
    pub fn new(applied: &[Value], deleted: &[Value], config: &Config) -> Self {
        let mut changes = Self::default();
        let applied = applied.iter().map(|object| (object, false));
        for (object, is_deletion) in applied.chain(deleted.iter().map(|object| (object, true))) {
            changes.add(object, is_deletion, config);
        }
        changes
    }

    /// Adds EndpointSlices, which follow from the other changes.
    pub fn add_slices(&mut self, slices: &[Value], config: &Config) {
        self.events.extend(slices.iter().filter_map(|slice| event(slice, false, config)));
    }

    fn add(&mut self, object: &Value, is_deletion: bool, config: &Config) {
        let name = label(object);
        let event = event(object, is_deletion, config);
        let deletion = if is_deletion { deletion(object, config) } else { None };
        if event.is_none() && deletion.is_none() {
            self.ignored.push(name);
            return;
        }
        self.described.push(format!("{} {name}", if is_deletion { "delete" } else { "apply" }));
        self.events.extend(event);
        self.deletions.extend(deletion);
    }
}

/// Returns the objects that the deletion of a Namespace or a CustomResourceDefinition deletes.
fn deletion(object: &Value, config: &Config) -> Option<Deletion> {
    match (group(object), text(object, "/kind")) {
        (CORE, "Namespace") => Some(Deletion::Namespace(name(object).to_owned())),
        (CRDS, "CustomResourceDefinition") => {
            let kinds = CustomResourceKind::WITH_CONTROLLER_STATUS.into_iter();
            let is_deleted = |kind: &CustomResourceKind| {
                name(object) == format!("{}.{}", kind.plural(), config.names.group)
            };
            kinds.into_iter().find(is_deleted).map(Deletion::Kind)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_controller_core::state::Names;
    use ferrolb_proto::api;
    use serde_json::json;

    use super::*;

    fn object(version: &str, kind: &str, namespace: &str, name: &str) -> Value {
        json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace, "name": name}})
    }

    #[test]
    fn only_objects_of_the_installation_are_predicted() {
        let names = Names { namespace: api::NAMESPACE.to_owned(), group: api::GROUP.to_owned() };
        let config = Config { names, ..Config::default() };
        let pool =
            |namespace: &str| object("ferrolb.io/v1beta1", "IPAddressPool", namespace, "lan");
        let applied = [
            object("v1", "Service", "shop", "db"),
            object("v1", "Node", "", "node1"),
            object("apps/v1", "Deployment", "shop", "db"),
            pool("elsewhere"),
            object("metallb.io/v1beta1", "IPAddressPool", api::NAMESPACE, "lan"),
        ];
        let crd = "apiextensions.k8s.io/v1";
        let deleted = [
            pool(api::NAMESPACE),
            object("v1", "Namespace", "", "shop"),
            object(crd, "CustomResourceDefinition", "", "ipaddresspools.ferrolb.io"),
            object(crd, "CustomResourceDefinition", "", "ipaddresspools.metallb.io"),
        ];
        let changes = Changes::new(&applied, &deleted, &config);
        assert_eq!(
            changes.described,
            [
                "apply Service shop/db",
                "apply Node node1",
                "delete IPAddressPool lan",
                "delete Namespace shop",
                "delete CustomResourceDefinition ipaddresspools.ferrolb.io",
            ]
        );
        assert_eq!(
            changes.ignored,
            [
                "Deployment db",
                "IPAddressPool lan",
                "IPAddressPool lan",
                "CustomResourceDefinition ipaddresspools.metallb.io",
            ]
        );
        assert_eq!(changes.events.len(), 4);
        let pools = Deletion::Kind(CustomResourceKind::IPAddressPool);
        assert_eq!(changes.deletions, [Deletion::Namespace("shop".to_owned()), pools]);
    }
}
