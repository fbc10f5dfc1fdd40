//! Services whose endpoints have left this node in one write of an EndpointSlice, for nodes that
//! had none before. Part of the state, which the main loop owns.
//!
//! With BGP, this node withdraws its route and the other nodes advertise theirs independently of
//! each other. If the withdrawal arrives first, the router has no route for a moment, and replies
//! that the address is unreachable. This node therefore advertises the address a little longer.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_core::eligibility::EligibleEndpoints;
use ferrolb_core::store::Change;
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{EndpointSlice, Key};
use ferrolb_proto::range::Family;

use super::State;
use super::changes::Changes;

/// Time for which this node still advertises the addresses of a moved Service. Speakers advertise a
/// new endpoint within 20 to 80 ms.
const HOLD_TIME: Duration = Duration::from_millis(100);

/// Moved Services by family, each with its former endpoints and the time until which they count for
/// BGP.
#[derive(Debug, Default)]
pub(super) struct MovedEndpoints(BTreeMap<(Key, Family), (EligibleEndpoints, Instant)>);

impl MovedEndpoints {
    /// Returns the time at which the next hold ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.values().map(|(_, until)| *until).min()
    }
}

impl HandleChange<EndpointSlice, Changes> for State {
    fn handle_change(&mut self, change: Change<EndpointSlice>, now: Instant) -> Changes {
        let mut before = None;
        if let Change::Apply(EndpointSlice { service: Some(key), .. }) = &change
            && self.config.gobgp
        {
            before = self.services.local_endpoints(key).map(|endpoints| (key.clone(), endpoints));
        }
        let changes = self.services.set_slice(change, &self.config.node);
        self.begin_waits(&changes, now);
        if let Some((service, before)) = before {
            self.record_move(&service, &before, now);
        }
        changes
    }
}

impl State {
    /// Returns the endpoints that count for the routes to the addresses of a Service in one family,
    /// if they are former ones.
    pub(crate) fn former_endpoints(
        &self,
        service: &Key,
        family: Family,
    ) -> Option<&EligibleEndpoints> {
        // Without holds, which is the usual case, no key is copied.
        let held = (!self.moved_endpoints.0.is_empty()).then(|| (service.clone(), family))?;
        self.moved_endpoints.0.get(&held).map(|(endpoints, _)| endpoints)
    }

    /// Begins or ends the holds of a Service whose endpoints were `before`.
    fn record_move(&mut self, service: &Key, before: &EligibleEndpoints, now: Instant) {
        let after = self.services.local_endpoints(service).unwrap_or_default();
        for family in [Family::V4, Family::V6] {
            let held = self.moved_endpoints.0.remove(&(service.clone(), family));
            let (former, until) = held.unwrap_or_else(|| (before.clone(), now + HOLD_TIME));
            if former.have_left(&self.config.node, &after, family) {
                self.moved_endpoints.0.insert((service.clone(), family), (former, until));
            }
        }
    }

    /// Withdraws the routes of the Services that moved long enough ago.
    pub(super) fn end_moves(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let services = &self.services;
        self.moved_endpoints.0.retain(|(service, _), (_, until)| {
            let is_held = now < *until;
            if !is_held {
                changes.add(services.concerning(service));
            }
            is_held
        });
        changes
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{Endpoint, Service, TrafficPolicy};

    use super::super::StateConfig;
    use super::super::tests::{service, state};
    use super::*;
    use crate::event::Event;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// Returns a state with gobgpd and a Service with this policy.
    fn with_service(policy: TrafficPolicy, gobgp: bool) -> State {
        let mut state = State::new(StateConfig { gobgp, ..state().config });
        let web = Service { policy, ..service("web") };
        state.handle(Event::of::<Service>(Change::Apply(web)), at(0));
        state
    }

    /// Sets the nodes of the Service's endpoints of a family.
    fn set_endpoints(state: &mut State, family: Family, nodes: &[&str], millis: u64) -> Changes {
        let endpoint = |node: &&str| Endpoint {
            node: Some((*node).into()),
            family,
            ready: true,
            serving: true,
            terminating: false,
        };
        let slice = EndpointSlice {
            key: Key::new("default", &format!("web-{family}")),
            service: Some(Key::new("default", "web")),
            endpoints: nodes.iter().map(endpoint).collect(),
            ..EndpointSlice::default()
        };
        state.handle(Event::of::<EndpointSlice>(Change::Apply(slice)), at(millis))
    }

    /// Returns the families in which former endpoints count.
    fn held(state: &State) -> Vec<Family> {
        let key = Key::new("default", "web");
        let families = [Family::V4, Family::V6].into_iter();
        families.filter(|family| state.former_endpoints(&key, *family).is_some()).collect()
    }

    #[test]
    fn former_endpoints_count_if_all_move_from_this_node_to_others_in_one_write() {
        use TrafficPolicy::{Cluster, Local};
        for (policy, before, now, gobgp, expect) in [
            (Local, &["node1"][..], &["node3"][..], true, true),
            (Local, &["node1", "node1"], &["node2", "node3"], true, true),
            (Local, &["node1", "node2"], &["node3"], true, true),
            (Local, &["node1"], &[], true, false),
            (Local, &["node1"], &["node1", "node3"], true, false),
            (Local, &["node1", "node3"], &["node3"], true, false),
            (Local, &["node2"], &["node3"], true, false),
            (Local, &["node1"], &["node3"], false, false),
            (Cluster, &["node1"], &["node3"], true, false),
        ] {
            let mut state = with_service(policy, gobgp);
            set_endpoints(&mut state, Family::V4, before, 0);
            set_endpoints(&mut state, Family::V4, now, 1_000);
            let is_held = held(&state) == [Family::V4];
            assert_eq!(is_held, expect, "{policy:?}, {before:?} to {now:?}, BGP: {gobgp}");
        }
    }

    #[test]
    fn each_family_is_held_for_its_own_time() {
        let mut state = with_service(TrafficPolicy::Local, true);
        for family in [Family::V4, Family::V6] {
            set_endpoints(&mut state, family, &["node1"], 0);
        }
        set_endpoints(&mut state, Family::V4, &["node3"], 1_000);
        assert_eq!(held(&state), [Family::V4]);
        set_endpoints(&mut state, Family::V6, &["node3"], 1_010);
        assert_eq!(held(&state), [Family::V4, Family::V6]);
        let end = at(1_000) + HOLD_TIME;
        assert_eq!(state.moved_endpoints.deadline(), Some(end));
        assert!(state.expire(at(1_050)).addresses.is_empty());
        assert_eq!(state.expire(end).addresses.len(), 1, "the routes are computed again");
        assert_eq!(held(&state), [Family::V6]);
        state.expire(at(1_010) + HOLD_TIME);
        assert_eq!((held(&state), state.moved_endpoints.deadline()), (vec![], None));
    }

    #[test]
    fn a_hold_ends_if_no_other_node_has_endpoints_any_more() {
        let mut state = with_service(TrafficPolicy::Local, true);
        set_endpoints(&mut state, Family::V4, &["node1"], 0);
        set_endpoints(&mut state, Family::V4, &["node3"], 1_000);
        assert_eq!(held(&state), [Family::V4]);
        set_endpoints(&mut state, Family::V4, &["node2"], 1_020);
        assert_eq!(state.moved_endpoints.deadline(), Some(at(1_000) + HOLD_TIME));
        set_endpoints(&mut state, Family::V4, &[], 1_030);
        assert_eq!(held(&state), []);
    }
}
