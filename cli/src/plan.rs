//! The commands `plan` and `drain`: predict the effect of changes. They run the controller with a
//! copy of the objects, apply the changes to it, and compare the results. Only [`run`] performs
//! I/O.

pub mod changes;
pub mod effect;
pub mod endpoints;
pub mod run;
mod text;

pub use changes::{Changes, Deletion};
pub use effect::Effect;

use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::simulation::Simulation;
use ferrolb_controller_core::state::{Outlook, State};
use ferrolb_core::store::Change;
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::facts::Service;

use crate::events::NOW;

/// A simulated controller, and the cluster before all changes.
pub struct Prediction {
    simulation: Simulation,
    before: Outlook,
}

impl Prediction {
    /// Starts with the state of a controller that leads.
    #[must_use]
    pub fn new(state: State) -> Self {
        let simulation = Simulation::new(state, NOW);
        let before = simulation.state().outlook();
        Self { simulation, before }
    }

    /// Returns the addresses, owners and routes before all changes.
    #[must_use]
    pub const fn before(&self) -> &Outlook {
        &self.before
    }

    /// Applies a change.
    pub fn change(&mut self, event: Event) {
        self.simulation.change(event);
    }

    /// Returns the addresses, owners and routes after the changes.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        self.simulation.state().outlook()
    }

    /// Deletes the objects of a Namespace, or the custom resources of a kind.
    fn delete(&mut self, deletion: &Deletion) {
        let state = self.simulation.state();
        let all = CustomResourceKind::WITH_CONTROLLER_STATUS;
        let (namespace, kinds) = match deletion {
            Deletion::Namespace(name) if *name == state.names().namespace => (&**name, &all[..]),
            Deletion::Namespace(name) => (&**name, &[][..]),
            Deletion::Kind(kind) => ("", std::slice::from_ref(kind)),
        };
        let services = state.services().map(|service| &service.key);
        let services = services.filter(|key| key.namespace() == namespace);
        let deleted = services.map(|key| Event::of::<Service>(Change::Delete(key.clone())));
        let resources = kinds.iter().flat_map(|kind| state.custom_resource_deletions(*kind));
        let events: Vec<_> = deleted.chain(resources).collect();
        events.into_iter().for_each(|event| self.change(event));
    }

    /// Applies changes, and returns their effect. Takes the events from `changes`.
    pub fn effect(&mut self, changes: &mut Changes) -> Effect {
        changes.events.drain(..).for_each(|event| self.change(event));
        for deletion in changes.deletions.drain(..) {
            self.delete(&deletion);
        }
        let has_grace = self.simulation.has_missing_pool();
        let at_once = has_grace.then(|| self.simulation.state().outlook());
        self.simulation.finish();
        let after = self.simulation.state().outlook();
        Effect::between(&self.before, at_once.as_ref().unwrap_or(&after), &after)
    }
}
