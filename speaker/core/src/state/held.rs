//! Addresses that left the status of a Service although the controller has not taken them: another
//! client has cleared or replaced the status. Part of the state, which the main loop owns.
//!
//! The controller restores such a status within milliseconds. This node keeps announcing the
//! addresses meanwhile, so that clients notice nothing.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::store::Change;
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{AssignedAddress, Key, Service};
use ferrolb_proto::range::{AddressRange, Family};

use super::changes::Changes;
use super::{State, StateConfig};

/// Time for which an address stays announced after it has left the status of its Service.
const HOLD_TIME: Duration = Duration::from_secs(5);

/// Service whose former addresses this node still announces.
#[derive(Debug)]
pub(super) struct HeldService {
    /// The Service as the API server has it, without the held addresses.
    service: Service,
    /// The held addresses.
    addresses: Vec<IpAddr>,
    pub(super) until: Instant,
}

impl HandleChange<Service, Changes> for State {
    /// Applies the change of a Service. The addresses that have left its status stay for
    /// [`HOLD_TIME`], unless another Service has them. New addresses wait for kube-proxy.
    fn handle_change(&mut self, change: Change<Service>, now: Instant) -> Changes {
        let Change::Apply(service) = change else {
            let changes = self.services.set_service(change, &self.config);
            self.held.retain(|key, _| self.services.get(key).is_some());
            self.begin_waits(&changes, now);
            return changes;
        };
        let takes = |(key, held): &(&Key, &HeldService)| {
            let mut shown = service.assigned.iter();
            **key != service.key && shown.any(|it| held.addresses.contains(&it.address))
        };
        let taken: Vec<_> = self.held.iter().filter(takes).map(|(key, _)| key.clone()).collect();
        let mut changes = Changes::default();
        taken.iter().for_each(|key| changes.add(self.end_hold(key)));
        let service = self.with_held_addresses(service, now);
        self.record_new_addresses(&service, now);
        changes.add(self.services.set_service(Change::Apply(service), &self.config));
        self.begin_waits(&changes, now);
        changes
    }
}

impl State {
    /// Returns the Service with those of its former addresses that this node still announces.
    fn with_held_addresses(&mut self, service: Service, now: Instant) -> Service {
        let held = self.held.remove(&service.key);
        let until = held.map_or(now + HOLD_TIME, |held| held.until);
        let Some((_, before)) = self.services.get(&service.key) else { return service };
        if now >= until || !is_assigned_by_ferrolb(&service, &self.config) {
            return service;
        }
        let had = before.assigned.iter().copied();
        let addresses: Vec<_> = had.filter(|address| self.may_hold(&service, *address)).collect();
        if addresses.is_empty() {
            return service;
        }
        // The first address decides the order of the nodes, so the former addresses come first.
        let former = before.assigned.iter().filter_map(|address| {
            let shown = service.assigned.iter().find(|shown| shown.address == *address).copied();
            let held = AssignedAddress { address: *address, mode: Some(IpMode::Vip) };
            shown.or(addresses.contains(address).then_some(held))
        });
        let is_new = |it: &&AssignedAddress| !before.assigned.contains(&it.address);
        let new = service.assigned.iter().filter(is_new).copied();
        let assigned = former.chain(new).collect();
        let with_held = Service { assigned, ..service.clone() };
        self.held.insert(service.key.clone(), HeldService { service, addresses, until });
        with_held
    }

    /// Returns whether an address that a Service had is missing in its status although the
    /// controller has not taken it: the Service has no other address of a pool in this family, and
    /// no other Service has the address.
    fn may_hold(&self, service: &Service, address: IpAddr) -> bool {
        let family = Family::of(address);
        let is_in_pool = |address: IpAddr| {
            let mut ranges = self.existing_pools().flat_map(|pool| &pool.ranges);
            ranges.any(|range| range.overlaps(&AddressRange::single(address)))
        };
        let mut shown = service.assigned.iter().map(|shown| shown.address);
        let is_replaced =
            shown.any(|shown| shown == address || Family::of(shown) == family && is_in_pool(shown));
        let mut services = self.services.with_address(address);
        let is_of_another = services.any(|(key, _)| **key != service.key);
        service.families.contains(&family) && !is_replaced && !is_of_another
    }

    /// Ends the hold of a Service's addresses.
    fn end_hold(&mut self, key: &Key) -> Changes {
        let Some(held) = self.held.remove(key) else { return Changes::default() };
        self.services.set_service(Change::Apply(held.service), &self.config)
    }

    /// Ends the holds that are over at `now`.
    pub(super) fn end_expired_holds(&mut self, now: Instant) -> Changes {
        let over = self.held.iter().filter(|(_, held)| now >= held.until);
        let over: Vec<_> = over.map(|(key, _)| key.clone()).collect();
        let mut changes = Changes::default();
        over.iter().for_each(|key| changes.add(self.end_hold(key)));
        changes
    }
}

/// Returns whether FerroLB serves the Service and still has an address for it: if the controller
/// takes all addresses, it also removes the annotation that names the pool.
fn is_assigned_by_ferrolb(service: &Service, config: &StateConfig) -> bool {
    service.is_served_by_ferrolb(&config.classes, config.default_implementation)
        && service.pool_annotation.is_some()
        && !service.deleting
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ferrolb_proto::facts::{Node, Pool};

    use super::super::tests::{service, state};
    use super::*;
    use crate::event::Event;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200));

    fn assigned(name: &str) -> Service {
        let families = vec![Family::V4];
        Service { pool_annotation: Some("lan".into()), families, ..service(name) }
    }

    fn address(last: u8) -> AssignedAddress {
        AssignedAddress { address: [172, 30, 0, last].into(), mode: None }
    }

    fn cleared(name: &str) -> Service {
        Service { assigned: Vec::new(), ..assigned(name) }
    }

    fn apply(state: &mut State, service: Service, millis: u64) -> Changes {
        state.handle(Event::of::<Service>(Change::Apply(service)), Instant::from_millis(millis))
    }

    /// Returns the Services with the address.
    fn owners(state: &State) -> Vec<String> {
        state.services.with_address(ADDRESS).map(|(key, _)| key.name().to_owned()).collect()
    }

    #[test]
    fn an_address_that_another_client_removes_stays_for_the_hold_time() {
        let mut state = state();
        apply(&mut state, assigned("a"), 0);
        assert!(apply(&mut state, cleared("a"), 1_000).is_empty(), "the plan stays the same");
        apply(&mut state, cleared("a"), 4_000);
        // The controller does not take an address of a Node, either.
        let node = Node { name: "n".into(), addresses: vec![ADDRESS], ..Node::default() };
        state.handle(Event::of::<Node>(Change::Apply(node)), Instant::from_millis(4_000));
        apply(&mut state, cleared("a"), 4_000);
        assert_eq!(
            (owners(&state).len(), state.deadline()),
            (1, Some(Instant::from_millis(6_000)))
        );
        apply(&mut state, assigned("a"), 5_000);
        assert_eq!(state.deadline(), None, "the controller has restored the status");

        apply(&mut state, cleared("a"), 7_000);
        assert!(state.expire(Instant::from_millis(11_999)).is_empty());
        let changes = state.expire(Instant::from_millis(12_000));
        assert!(changes.addresses.contains(&ADDRESS));
        assert_eq!((owners(&state), state.deadline()), (vec![], None));
        apply(&mut state, cleared("a"), 13_000);
        assert_eq!(owners(&state), Vec::<String>::new());
    }

    #[test]
    fn an_address_that_another_client_replaces_stays_beside_the_new_one() {
        let mut state = state();
        apply(&mut state, assigned("a"), 0);
        let other = AssignedAddress { address: [192, 0, 2, 1].into(), mode: None };
        apply(&mut state, Service { assigned: vec![other], ..assigned("a") }, 1_000);
        let (_, shown) = state.services.get(&Key::new("default", "a")).unwrap();
        assert_eq!(*shown.assigned, [ADDRESS, other.address], "the former address comes first");
        state.expire(Instant::from_millis(6_000));
        assert_eq!(state.services.addresses().collect::<Vec<_>>(), [other.address]);
    }

    #[test]
    fn an_address_that_the_controller_has_changed_does_not_stay() {
        let changed = || Service { assigned: vec![address(201)], ..assigned("a") };
        let mut state = state();
        let range = "172.30.0.200-172.30.0.209".parse().unwrap();
        let pool = Pool { name: "lan".into(), ranges: vec![range], ..Pool::default() };
        state.handle(Event::of::<Pool>(Change::Apply(pool)), Instant::ZERO);
        apply(&mut state, assigned("a"), 0);
        apply(&mut state, changed(), 1_000);
        assert_eq!(owners(&state), Vec::<String>::new(), "the Service has another address");

        state.handle(Event::of::<Service>(Change::Delete(Key::new("default", "a"))), Instant::ZERO);
        let single = Service { families: vec![Family::V6], ..cleared("b") };
        apply(&mut state, Service { assigned: vec![address(205)], ..assigned("b") }, 4_000);
        apply(&mut state, single, 5_000);
        assert_eq!(state.services.addresses().count(), 0, "the Service has no IPv4 any more");
    }

    #[test]
    fn an_address_that_the_controller_takes_or_another_service_gets_does_not_stay() {
        let taken = Service { pool_annotation: None, ..cleared("a") };
        let deleting = Service { deleting: true, ..cleared("a") };
        let other_class = Service { class: Some("other".into()), ..cleared("a") };
        for change in [taken, deleting, other_class] {
            let mut state = state();
            apply(&mut state, assigned("a"), 0);
            apply(&mut state, change, 1_000);
            assert_eq!((owners(&state), state.deadline()), (vec![], None));
        }
        let mut state = state();
        apply(&mut state, assigned("a"), 0);
        apply(&mut state, cleared("a"), 1_000);
        apply(&mut state, assigned("b"), 1_001);
        assert_eq!((owners(&state), state.deadline()), (vec!["b".to_owned()], None));
        apply(&mut state, assigned("a"), 2_000);
        apply(&mut state, cleared("a"), 3_000);
        assert_eq!(owners(&state), ["b"], "another Service shares the address");
        apply(&mut state, cleared("b"), 4_000);
        state.handle(Event::of::<Service>(Change::Delete(Key::new("default", "b"))), Instant::ZERO);
        assert_eq!((owners(&state), state.deadline()), (vec![], None));
    }
}
