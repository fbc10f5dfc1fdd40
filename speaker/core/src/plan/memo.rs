//! Results of the latest plan that the next one reuses. Pure; the main loop owns the one [`Memo`],
//! and adds the changes of each event. A plan with a memo equals a plan with a new one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_core::bgp::RouteTable;
use ferrolb_proto::api::SpeakerStatusStatus;
use ferrolb_proto::range::Family;

use super::bgp::BgpInput;
use super::probes::HealthCheckMemo;
use super::received_ranges::ReceivedRanges;
use super::second_path::{SecondPathConfig, second_path};
use super::units::{self, AddressMemo};
use crate::state::{Changes, State};

/// Results of the latest plan that the next one reuses, and the changes since then.
#[derive(Debug)]
pub struct Memo {
    /// Changes since the latest plan.
    changes: Changes,
    pub(super) health_checks: HealthCheckMemo,
    pub(super) addresses: AddressMemo,
    pub(super) received_ranges: ReceivedRanges,
    second_path: Arc<SecondPathConfig>,
    pub(super) routes: RouteTable,
    /// True if `routes` contains the routes of all addresses.
    has_routes: bool,
    pub(super) status: Arc<SpeakerStatusStatus>,
}

impl Default for Memo {
    /// Returns a memo without results, so that the next plan computes everything.
    fn default() -> Self {
        Self {
            changes: Changes::everything(),
            health_checks: HealthCheckMemo::default(),
            addresses: AddressMemo::default(),
            received_ranges: ReceivedRanges::default(),
            second_path: Arc::default(),
            routes: RouteTable::default(),
            has_routes: false,
            status: Arc::default(),
        }
    }
}

impl Memo {
    /// Adds the changes of an event to those that the next plan takes into account.
    pub fn add(&mut self, changes: Changes) {
        self.changes.add(changes);
    }

    /// Returns the configuration of the second path, computed again if a Node or the keys may have
    /// changed. Must be called before [`Memo::update`], which ends the changes.
    pub(super) fn second_path(&mut self, state: &State) -> Arc<SecondPathConfig> {
        if self.changes.all || self.second_path.keys != state.keys {
            let config = second_path(state);
            if *self.second_path != config {
                self.second_path = Arc::new(config);
            }
        }
        Arc::clone(&self.second_path)
    }

    /// Computes health checks, addresses and routes again, as far as they have changed. Without
    /// `bgp`, there are no routes. Returns whether the SpeakerStatus can differ.
    pub(super) fn update(&mut self, state: &State, bgp: Option<&BgpInput<'_>>) -> bool {
        let route_input = bgp.map(BgpInput::routes);
        let changes = std::mem::take(&mut self.changes);
        let is_reported = self.health_checks.update(state, &changes);
        let view = units::cluster_view(state);
        let has_routes = route_input.is_some();
        let all_routes = changes.all || has_routes != self.has_routes;
        self.has_routes = has_routes;
        if changes.all {
            self.addresses.clear_selections();
            self.received_ranges.set_pools(state.existing_pools());
        }
        if all_routes {
            self.routes.clear();
        }
        let addresses: BTreeSet<IpAddr> = if all_routes {
            state.services.addresses().chain(self.addresses.addresses()).collect()
        } else {
            changes.addresses
        };
        for address in addresses {
            let mut services: Vec<_> = state
                .services
                .with_address(address)
                .map(|(key, service)| {
                    let families = self.health_checks.failing_families(key);
                    let failing_on = families.map(|family| (&*state.config.node, family));
                    units::service_view(state, (key, service), failing_on.collect())
                })
                .collect();
            self.addresses.set_address(state, &view, address, &services);
            self.received_ranges.set_address(address, !services.is_empty());
            if let Some(input) = &route_input {
                let keys = state.services.with_address(address).map(|(key, _)| key);
                for (service, key) in services.iter_mut().zip(keys) {
                    if let Some(former) = state.former_endpoints(key, Family::of(address)) {
                        service.endpoints = former.clone();
                    }
                }
                let is_withheld = state.withheld().contains_key(&address);
                let services = if is_withheld { &[] } else { &*services };
                self.routes.set_address(&view, input, address, services);
            }
        }
        if let Some(input) = &route_input {
            self.routes.update(input);
        }
        is_reported || changes.all || changes.other
    }
}
