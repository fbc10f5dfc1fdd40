//! New addresses, which no node has announced yet. Part of the state, which the main loop owns.
//!
//! kube-proxy makes the rules for a new address up to a second after the controller has written it.
//! A connection that arrives earlier fails, and its source port fails as long as the kernel
//! remembers the connection. This node therefore announces a new address only when kube-proxy has
//! made its rules ([`RuleUpdates`]). Until then, it only claims the address, so that the best node
//! owns it from the beginning. The rules need an endpoint, so the wait of a Service without one
//! begins with its first endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{EndpointCondition, Key, Service};
use ferrolb_proto::range::Family;

use super::State;
use super::changes::Changes;
use crate::health::kube_proxy::RuleUpdates;

/// Addresses that this node does not announce yet.
#[derive(Debug, Default)]
pub(super) struct NewAddresses {
    /// The addresses, each with the time at which its wait began. The threads of the interfaces
    /// share them.
    withheld: Arc<BTreeMap<IpAddr, Instant>>,
    /// New addresses of Services that have had no endpoint yet. No node announces them, and their
    /// wait begins with the first endpoint.
    without_endpoint: BTreeSet<IpAddr>,
    /// Updates of kube-proxy's rules: IPv4, then IPv6.
    updates: [RuleUpdates; 2],
}

impl NewAddresses {
    /// Returns the updates of kube-proxy's rules for the family of an address. kube-proxy updates
    /// each family on its own.
    fn updates(&self, address: IpAddr) -> &RuleUpdates {
        &self.updates[Family::of(address) as usize]
    }

    /// Returns the time at which the next address is announced at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.withheld.iter().map(|(address, since)| self.updates(*address).wait_end(*since)).min()
    }

    /// Forgets the updates of a kube-proxy that does not exist any more, so that no address waits
    /// for its next one.
    pub(super) fn forget_rule_updates(&mut self) {
        self.updates = Default::default();
    }

    /// Begins the wait of these addresses.
    fn begin(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        if !addresses.is_empty() {
            let withheld = Arc::make_mut(&mut self.withheld);
            withheld.extend(addresses.into_iter().map(|address| (address, now)));
        }
    }

    /// Removes the addresses for which `ends` returns true, and returns them.
    fn remove_if(&mut self, ends: impl Fn(&Self, IpAddr, Instant) -> bool) -> BTreeSet<IpAddr> {
        let over = self.withheld.iter().filter(|(address, since)| ends(self, **address, **since));
        let over: BTreeSet<_> = over.map(|(address, _)| *address).collect();
        if !over.is_empty() {
            Arc::make_mut(&mut self.withheld).retain(|address, _| !over.contains(address));
        }
        over
    }
}

impl State {
    /// Returns the addresses that this node does not announce yet, each with the time at which its
    /// wait began.
    pub(crate) const fn withheld(&self) -> &Arc<BTreeMap<IpAddr, Instant>> {
        &self.new_addresses.withheld
    }

    /// Withholds the addresses of a Service that are new: no Service had them before. Those in the
    /// first list of Services are not new, because other nodes may announce them.
    pub(super) fn record_new_addresses(&mut self, service: &Service, now: Instant) {
        let config = &self.config;
        if !self.services.is_listed()
            || !service.is_served_by_ferrolb(&config.classes, config.default_implementation)
        {
            return;
        }
        let is_new = |address: &IpAddr| self.services.with_address(*address).next().is_none();
        let new: Vec<_> = service.announceable().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        let key = Arc::new(service.key.clone());
        let condition = service.endpoint_condition;
        let (waiting, without): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|it| self.has_endpoint(&key, condition, *it));
        self.new_addresses.without_endpoint.extend(&without);
        self.new_addresses.begin(waiting, now);
    }

    /// Returns whether a Service has an eligible endpoint of the family of an address.
    fn has_endpoint(&self, key: &Arc<Key>, eligible: EndpointCondition, address: IpAddr) -> bool {
        let endpoints = self.services.slices_of(key).flat_map(|slice| &slice.endpoints);
        let mut of_family = endpoints.filter(|it| it.family == Family::of(address));
        of_family.any(|endpoint| eligible.accepts(endpoint))
    }

    /// Begins the waits of those new addresses that have got their first endpoint by a change, and
    /// forgets those that no Service has any more.
    pub(super) fn begin_waits(&mut self, changes: &Changes, now: Instant) {
        let waiting = &self.new_addresses.without_endpoint;
        let listed = waiting.iter().filter(|_| changes.all);
        let concerned = changes.addresses.iter().filter(|it| waiting.contains(*it)).chain(listed);
        let (mut begun, mut over) = (Vec::new(), Vec::new());
        for address in concerned.copied() {
            let mut services = self.services.with_address(address).peekable();
            let is_gone = services.peek().is_none();
            let has_endpoint =
                services.any(|(key, service)| self.has_endpoint(key, service.eligible, address));
            begun.extend(has_endpoint.then_some(address));
            over.extend((is_gone || has_endpoint).then_some(address));
        }
        self.new_addresses.without_endpoint.retain(|address| !over.contains(address));
        self.new_addresses.begin(begun, now);
    }

    /// Records the end of an update of kube-proxy's rules. Returns the addresses that this node now
    /// announces.
    pub(super) fn record_rule_update(&mut self, family: Family, end: Instant) -> Changes {
        self.new_addresses.updates[family as usize].record(end);
        let served =
            self.new_addresses.remove_if(|new, address, since| new.updates(address).include(since));
        announced_from_now(served)
    }

    /// Ends the wait for addresses that have waited long enough, or that no Service has any more.
    pub(super) fn end_waits(&mut self, now: Instant) -> Changes {
        let services = &self.services;
        let ended = self.new_addresses.remove_if(|new, address, since| {
            now >= new.updates(address).wait_end(since)
                || services.with_address(address).next().is_none()
        });
        announced_from_now(ended)
    }
}

fn announced_from_now(addresses: BTreeSet<IpAddr>) -> Changes {
    Changes { other: !addresses.is_empty(), addresses, ..Changes::default() }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use ferrolb_core::store::Change;
    use ferrolb_proto::api::KubeProxyState;
    use ferrolb_proto::facts::{Endpoint, EndpointSlice};

    use super::super::tests::{service, state};
    use super::*;
    use crate::event::Event;
    use crate::health::kube_proxy::KubeProxyHealth;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200));

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn apply(state: &mut State, change: Change<Service>, millis: u64) {
        state.handle(Event::of::<Service>(change), at(millis));
    }

    fn is_withheld(state: &State) -> bool {
        state.withheld().contains_key(&ADDRESS)
    }

    /// Returns a state that has received the list of all Services: none. The Services of the tests
    /// have an endpoint, except `late`.
    fn listed() -> State {
        let mut state = state();
        apply(&mut state, Change::ResyncStarted, 0);
        apply(&mut state, Change::ResyncDone, 0);
        let names = ["a", "c"].map(str::to_owned).into_iter();
        for name in names.chain((1..=50).map(|last| format!("s{last}"))) {
            apply_endpoint(&mut state, &name, true, 0);
        }
        state
    }

    fn apply_endpoint(state: &mut State, service: &str, ready: bool, millis: u64) {
        let endpoint = Endpoint {
            node: Some("node1".into()),
            family: Family::V4,
            ready,
            serving: true,
            terminating: false,
        };
        let slice = EndpointSlice {
            key: Key::new("default", &format!("{service}-1")),
            service: Some(Key::new("default", service)),
            endpoints: vec![endpoint],
            ..EndpointSlice::default()
        };
        state.handle(Event::of::<EndpointSlice>(Change::Apply(slice)), at(millis));
    }

    #[test]
    fn the_wait_begins_when_the_service_has_its_first_endpoint() {
        let mut state = listed();
        apply(&mut state, Change::Apply(service("late")), 10_000);
        apply_endpoint(&mut state, "late", false, 10_100);
        assert!(!is_withheld(&state) && state.deadline().is_none(), "no endpoint is ready");
        assert!(update(&mut state, 15_000).is_empty() && state.expire(at(19_000)).is_empty());
        apply_endpoint(&mut state, "late", true, 20_000);
        assert!(is_withheld(&state));
        assert!(update(&mut state, 20_010).is_empty(), "the update began before the endpoint");
        assert!(update(&mut state, 20_900).addresses.contains(&ADDRESS) && !is_withheld(&state));
        // An endpoint that returns does not wait again.
        apply_endpoint(&mut state, "late", false, 30_000);
        apply_endpoint(&mut state, "late", true, 31_000);
        assert!(!is_withheld(&state));
    }

    #[test]
    fn a_service_without_endpoints_that_is_deleted_waits_no_more() {
        let mut state = listed();
        apply(&mut state, Change::Apply(service("late")), 10_000);
        apply(&mut state, Change::Delete(Key::new("default", "late")), 11_000);
        assert!(state.new_addresses.without_endpoint.is_empty());
    }

    #[test]
    fn another_service_or_condition_with_an_endpoint_begins_the_wait() {
        // Another Service that shares the address has an endpoint.
        let mut state = listed();
        apply(&mut state, Change::Apply(service("late")), 10_000);
        apply(&mut state, Change::Apply(service("a")), 20_000);
        assert!(is_withheld(&state));
        assert!(update(&mut state, 20_010).is_empty(), "the update began before the endpoint");
        assert!(update(&mut state, 20_900).addresses.contains(&ADDRESS) && !is_withheld(&state));
        // The Service accepts its endpoint from now on.
        let mut state = listed();
        apply(&mut state, Change::Apply(service("late")), 10_000);
        apply_endpoint(&mut state, "late", false, 10_100);
        let condition = EndpointCondition::Serving;
        let serving = Service { endpoint_condition: condition, ..service("late") };
        apply(&mut state, Change::Apply(serving), 20_000);
        assert!(is_withheld(&state));
    }

    fn update(state: &mut State, millis: u64) -> Changes {
        let event = Event::RuleUpdate { family: Family::V4, end: at(millis) };
        state.handle(event, at(millis))
    }

    #[test]
    fn a_new_address_waits_for_the_rules_or_a_fixed_time() {
        let mut state = listed();
        apply(&mut state, Change::Apply(service("a")), 10_000);
        assert!(is_withheld(&state));
        assert_eq!(state.deadline(), Some(at(11_000)), "kube-proxy reports nothing");
        assert!(update(&mut state, 9_900).is_empty());
        assert_eq!(state.deadline(), Some(at(11_500)), "kube-proxy reports its updates");
        assert!(state.expire(at(10_800)).is_empty());
        let changes = update(&mut state, 10_950);
        assert!(changes.addresses.contains(&ADDRESS) && changes.other && !is_withheld(&state));
        assert_eq!(state.deadline(), None);

        let mut state = listed();
        apply(&mut state, Change::Apply(service("a")), 10_000);
        assert!(state.expire(at(10_999)).is_empty());
        assert!(state.expire(at(11_000)).addresses.contains(&ADDRESS) && !is_withheld(&state));
    }

    #[test]
    fn a_new_address_does_not_wait_for_a_kube_proxy_that_was_replaced() {
        let mut state = listed();
        update(&mut state, 900);
        for (proxy, wait) in
            [(KubeProxyState::Unhealthy, 1_500), (KubeProxyState::NotChecked, 1_000)]
        {
            let health = KubeProxyHealth { state: proxy, ..KubeProxyHealth::default() };
            state.handle(Event::ProxyHealth(health), at(9_000));
            apply(&mut state, Change::Apply(service("a")), 10_000);
            assert_eq!(state.deadline(), Some(at(10_000 + wait)), "{proxy:?}");
            apply(&mut state, Change::Delete(Key::new("default", "a")), 10_100);
            state.expire(at(10_100));
        }
    }

    #[test]
    fn an_address_of_the_first_list_or_of_another_service_does_not_wait() {
        let mut state = state();
        apply(&mut state, Change::ResyncStarted, 0);
        apply(&mut state, Change::Apply(service("a")), 0);
        apply(&mut state, Change::ResyncDone, 0);
        assert!(!is_withheld(&state), "other nodes may have announced the address");
        apply(&mut state, Change::Apply(service("b")), 1_000);
        apply(&mut state, Change::Apply(service("a")), 2_000);
        assert!(!is_withheld(&state), "the address was announced before");
        for name in ["a", "b"] {
            apply(&mut state, Change::Delete(Key::new("default", name)), 3_000);
        }
        apply_endpoint(&mut state, "c", true, 3_500);
        apply(&mut state, Change::Apply(service("c")), 4_000);
        assert!(is_withheld(&state));
        apply(&mut state, Change::Delete(Key::new("default", "c")), 4_100);
        assert!(state.expire(at(4_100)).other && !is_withheld(&state));
    }

    #[test]
    fn a_burst_of_services_waits_for_each_address() {
        let mut state = listed();
        for last in 1..=50 {
            let mut service = service(&format!("s{last}"));
            service.assigned[0].address = [172, 30, 0, last].into();
            apply(&mut state, Change::Apply(service), 10_000 + u64::from(last) * 20);
        }
        assert_eq!(state.withheld().len(), 50);
        update(&mut state, 10_030);
        update(&mut state, 11_060);
        let served = state.withheld().keys().next().copied();
        // The addresses that kube-proxy received before 11,030 ms are in the latest update.
        assert_eq!(served, Some([172, 30, 0, 47].into()));
        let end = state.deadline().unwrap();
        assert_eq!(end.since(at(10_940)), Duration::from_millis(1_500));
    }
}
