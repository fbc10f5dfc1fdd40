//! The commands `plan` and `drain`: predict the effect of changes. They run the controller with a
//! copy of the objects, apply the changes to it, and compare the results. Only [`run`] performs
//! I/O.

pub mod changes;
pub mod effect;
pub mod endpoints;
pub mod run;
mod text;

pub use changes::Changes;
pub use effect::Effect;

use ferrolb_proto::controller::event::Event;
use ferrolb_proto::controller::simulation::Simulation;
use ferrolb_proto::controller::state::{Outlook, State};
use ferrolb_proto::store::Change;

use crate::snapshot::NOW;

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

    /// Applies changes, and returns their effect. Takes the events from `changes`.
    pub fn effect(&mut self, changes: &mut Changes) -> Effect {
        changes.events.drain(..).for_each(|event| self.change(event));
        for namespace in &changes.deleted_namespaces {
            let services = self.before.services.keys();
            for key in services.filter(|key| key.namespace() == namespace) {
                self.simulation.change(Event::Service(Change::Delete(key.clone())));
            }
        }
        let has_grace = self.simulation.has_missing_pool();
        let at_once = has_grace.then(|| self.simulation.state().outlook());
        self.simulation.finish();
        let after = self.simulation.state().outlook();
        Effect::between(&self.before, at_once.as_ref().unwrap_or(&after), &after)
    }
}
