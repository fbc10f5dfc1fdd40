//! New addresses, which no node has announced yet. Part of the state, which the main loop owns.
//!
//! kube-proxy makes the rules for a new address up to a second after the controller has written it.
//! A connection that arrives earlier fails, and its source port fails as long as the kernel
//! remembers the connection. This node therefore announces a new address only when kube-proxy has
//! made its rules ([`RuleUpdates`]). Until then, it only claims the address, so that the best node
//! owns it from the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Service;
use ferrolb_proto::health::kube_proxy::RuleUpdates;
use ferrolb_proto::range::Family;

use super::State;
use super::changes::Changes;

/// Addresses that this node does not announce yet.
#[derive(Debug, Default)]
pub(super) struct NewAddresses {
    /// The addresses, each with the time at which it arrived. The threads of the interfaces share
    /// them.
    withheld: Arc<BTreeMap<IpAddr, Instant>>,
    /// Updates of kube-proxy's rules: IPv4, then IPv6.
    updates: [RuleUpdates; 2],
}

impl NewAddresses {
    fn updates(&self, address: IpAddr) -> &RuleUpdates {
        match Family::of(address) {
            Family::V4 => &self.updates[0],
            Family::V6 => &self.updates[1],
        }
    }

    /// Returns the time at which the next address is announced at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.withheld.iter().map(|(address, seen)| self.updates(*address).wait_end(*seen)).min()
    }

    /// Removes the addresses for which `ends` returns true, and returns them.
    fn remove_if(&mut self, ends: impl Fn(&Self, IpAddr, Instant) -> bool) -> BTreeSet<IpAddr> {
        let over = self.withheld.iter().filter(|(address, seen)| ends(self, **address, **seen));
        let over: BTreeSet<_> = over.map(|(address, _)| *address).collect();
        if !over.is_empty() {
            Arc::make_mut(&mut self.withheld).retain(|address, _| !over.contains(address));
        }
        over
    }
}

impl State {
    /// Returns the addresses that this node does not announce yet, each with the time at which it
    /// arrived.
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
        if !new.is_empty() {
            let withheld = Arc::make_mut(&mut self.new_addresses.withheld);
            withheld.extend(new.into_iter().map(|address| (address, now)));
        }
    }

    /// Records the end of an update of kube-proxy's rules. Returns the addresses that this node now
    /// announces.
    pub(super) fn record_rule_update(&mut self, family: Family, end: Instant) -> Changes {
        let index = usize::from(family == Family::V6);
        self.new_addresses.updates[index].record(end);
        let served =
            self.new_addresses.remove_if(|new, address, seen| new.updates(address).include(seen));
        announced_from_now(served)
    }

    /// Ends the wait for addresses that have waited long enough, or that no Service has any more.
    pub(super) fn end_waits(&mut self, now: Instant) -> Changes {
        let services = &self.services;
        let ended = self.new_addresses.remove_if(|new, address, seen| {
            now >= new.updates(address).wait_end(seen)
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

    use ferrolb_proto::facts::Key;
    use ferrolb_proto::store::Change;

    use super::super::tests::{service, state};
    use super::*;
    use crate::event::Event;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200));

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn apply(state: &mut State, change: Change<Service>, millis: u64) {
        state.handle(Event::Service(change), at(millis));
    }

    fn is_withheld(state: &State) -> bool {
        state.withheld().contains_key(&ADDRESS)
    }

    /// Returns a state that has received the list of all Services: none.
    fn listed() -> State {
        let mut state = state();
        apply(&mut state, Change::ResyncStarted, 0);
        apply(&mut state, Change::ResyncDone, 0);
        state
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
