//! Replacement of new addresses for which another host replies before any node announces them.
//! Pure; the state owns one value for each Service.

pub(super) mod unannounced;

use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::State;
use super::alloc::{Refusal, Requester};
use super::service::ServiceEntry;
use super::service_addresses;
use super::sharing::SharingParameters;

/// Maximum number of addresses that a Service leaves in one leadership term. A device that replies
/// for all addresses must not exhaust the pools.
const LEFT_MAX: usize = 3;

/// Addresses of a Service on layer 2, as the speakers report them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportedAddresses {
    /// Addresses that a node announces.
    pub(super) announced: Vec<IpAddr>,
    /// Addresses for which another host replies, and which no node announces.
    pub(super) foreign: Vec<IpAddr>,
}

impl State {
    /// Records which addresses of a Service are new: it did not have them before, and has no record
    /// of them, and they are new for each Service that shares them.
    pub(super) fn record_new_addresses(&mut self, key: &Key, before: &[IpAddr]) {
        let Some(entry) = self.services.get(key) else { return };
        let Some(assignment) = &entry.assignment else { return };
        let record = entry.service.record.as_ref();
        let is_old_for = |other: &Key, address: &IpAddr| {
            let is_new = |it: &ServiceEntry| it.new_addresses.unannounced.contains(address);
            other != key && !self.services.get(other).is_some_and(is_new)
        };
        let became_new = |address: &&IpAddr| {
            let mut sharers = self.allocator.services_of(**address);
            !before.contains(address)
                && record.is_none_or(|record| !record.addresses.contains(address))
                && !sharers.any(|other| is_old_for(other, address))
        };
        let addresses = assignment.addresses.iter();
        let is_new = |it: &&IpAddr| entry.new_addresses.unannounced.contains(it) || became_new(it);
        let unannounced = addresses.filter(is_new).copied().collect();
        let Some(entry) = self.services.get_mut(key) else { return };
        entry.new_addresses.unannounced = unannounced;
    }

    /// Gives a Service other addresses instead of these, for which another host replies. Returns
    /// whether it has got one.
    ///
    /// The Service keeps an address that it requests, that a node has announced in this term, or
    /// for which no pool has another one.
    pub(super) fn leave_conflicts(&mut self, key: &Key, foreign: &[IpAddr], now: Instant) -> bool {
        let mut has_left = false;
        for address in foreign {
            has_left |= self.leave(key, *address, now);
        }
        has_left
    }

    fn leave(&mut self, key: &Key, address: IpAddr, now: Instant) -> bool {
        let Some(entry) = self.services.get_mut(key) else { return false };
        let (service, new) = (&entry.service, &mut entry.new_addresses);
        let request = &service.demand.request;
        let has_request = !request.addresses.is_empty() || request.problem.is_some();
        let may_leave = !has_request && !service.deleting && new.left.len() < LEFT_MAX;
        if !may_leave || !new.unannounced.contains(&address) {
            return false;
        }
        // From here on, no Service gets the address automatically.
        new.left.push(address);
        self.update_unmanaged(key);
        let replaced = self.replace_address(key, address, now);
        if !replaced && let Some(entry) = self.services.get_mut(key) {
            entry.new_addresses.left.pop();
            self.update_unmanaged(key);
        }
        replaced
    }

    fn replace_address(&mut self, key: &Key, address: IpAddr, now: Instant) -> bool {
        let Some(entry) = self.services.get_mut(key) else { return false };
        let Some(assignment) = &mut entry.assignment else { return false };
        let before = assignment.addresses.clone();
        let namespace_labels = self.namespaces.get(key.namespace());
        let sharing = SharingParameters::of(&entry.service);
        let requester = Requester { service: &entry.service, sharing, namespace_labels };
        if !service_addresses::replace(&mut self.allocator, &requester, assignment, address) {
            return false;
        }
        entry.lost.push((address, Refusal::ForeignHost));
        entry.announced = None;
        entry.attempts.reset_delay();
        self.record_new_addresses(key, &before);
        self.assign_addresses(key, now);
        self.update_status(key, now);
        true
    }
}
