//! Objects as events of the controller, and the state that follows from all of them. Pure.

use ferrolb_controller_core::event::{Event, Leadership};
use ferrolb_controller_core::state::{Config, Names, State};
use ferrolb_core::store::Change;
use ferrolb_core::watched::KindVisitor;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Kind, ReadContext};
use serde::Deserialize as _;
use serde_json::Value;

use crate::objects::{group, key, namespace, text};

/// Time at which the state handles the objects.
pub const NOW: Instant = Instant::from_millis(1_000);
/// End of the state's lease: never.
const LEASE_END: Instant = Instant::from_millis(u32::MAX as u64);

/// Returns the state of a controller that leads and has just received all objects, which `events`
/// report in any order. `unix_time` is the present time, in seconds since 1970.
#[must_use]
pub fn leading_state(
    config: &Config,
    unix_time: i64,
    events: impl IntoIterator<Item = Event>,
) -> State {
    let mut state = State::new(config.clone());
    state.set_unix_time(unix_time, NOW);
    state.handle([Event::Lease(Leadership::Held(LEASE_END))], NOW);
    let lists = list_limits(false).into_iter().chain(events).chain(list_limits(true));
    state.handle(lists, NOW);
    state
}

/// Collects the events with which the lists of all kinds begin, or with `at_end`, those with which
/// they end.
struct ListLimits {
    at_end: bool,
    events: Vec<Event>,
}

impl KindVisitor<Event> for ListLimits {
    fn visit<F: Kind>(&mut self)
    where
        Event: From<Change<F>>,
    {
        let limit = if self.at_end { Change::<F>::ResyncDone } else { Change::ResyncStarted };
        self.events.push(limit.into());
    }
}

fn list_limits(at_end: bool) -> Vec<Event> {
    let mut limits = ListLimits { at_end, events: Vec::new() };
    Event::for_each_kind(&mut limits);
    Event::for_each_own_kind(&mut limits);
    limits.events
}

/// Returns the event by which a watch reports that an object exists, or that it is deleted; `None`
/// if the installation does not read the object.
#[must_use]
pub fn event(object: &Value, is_deletion: bool, config: &Config) -> Option<Event> {
    let Names { namespace, group } = &config.names;
    let context = ReadContext::of_controller(namespace, group);
    let mut reading = Reading { object, is_deletion, context, event: None };
    Event::for_each_kind(&mut reading);
    reading.event
}

/// Finds the kind of an object, and reads the object.
struct Reading<'a> {
    object: &'a Value,
    is_deletion: bool,
    context: ReadContext,
    event: Option<Event>,
}

impl KindVisitor<Event> for Reading<'_> {
    fn visit<F: Kind>(&mut self)
    where
        Event: From<Change<F>>,
    {
        let Self { object, context, .. } = self;
        let is_read = text(object, "/kind") == F::NAME
            && group(object) == F::resource(context).group
            && F::namespace(context).is_none_or(|it| it == namespace(object))
            && F::FIELDS.is_none();
        if !is_read {
            return;
        }
        let key = key(object);
        let change = match F::Object::deserialize(*object) {
            _ if self.is_deletion => Change::Delete(key),
            Ok(object) => Change::Apply(F::read(object, context)),
            Err(error) => Change::Unreadable { key, why: error.to_string() },
        };
        self.event = Some(change.into());
    }
}
