//! Maps changes of objects to the Services that they concern, and queues checks of these Services.
//! Part of the state.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{
    EndpointSlice, Key, Service, ServiceConditionType, Speaker, UncheckedHealthCheck, is_api_server,
};
use ferrolb_proto::range::AddressRange;

use super::super::State;
use super::super::alloc::AddressUser;
use super::super::slices::SliceEndpoints;
use super::super::status_queue::Class;
use crate::desired::Target;

impl State {
    /// Starts a round of checks through all Services, after a change that may concern every
    /// Service.
    pub(in crate::state) fn recheck_all_services(&mut self) {
        self.stale_speakers.is_current = false;
        self.status_queue.round.left = self.services.len();
    }

    /// Queues checks of a changed Service and of the Services that share its addresses, if the
    /// change can affect their conditions.
    pub(in crate::state) fn service_changed(&mut self, key: &Key, before: &Service, now: Instant) {
        let Some(service) = self.services.get(key).map(|entry| &entry.service) else { return };
        let unchanged = before.assigned == service.assigned
            && (before.policy, before.endpoint_condition)
                == (service.policy, service.endpoint_condition)
            && before.endpoint_problems().eq(service.endpoint_problems())
            && before.health_check().is_some() == service.health_check().is_some()
            && before.demand.labels == service.demand.labels
            && before.demand.request.announce_in_proxy_mode
                == service.demand.request.announce_in_proxy_mode;
        let written =
            |service: &Service| service.condition(ServiceConditionType::Announced).cloned();
        if !unchanged {
            let assigned = before.assigned.iter().chain(&service.assigned);
            let addresses: BTreeSet<_> = assigned.map(|assigned| assigned.address).collect();
            self.queue_rechecks_at(addresses, now);
        } else if written(before) == written(service) {
            return;
        }
        self.queue_recheck(key, now);
    }

    pub(in crate::state) fn handle_slice(&mut self, change: Change<EndpointSlice>, now: Instant) {
        let listed = matches!(change, Change::ResyncDone);
        for key in self.slices.handle(change, SliceEndpoints::of) {
            if is_api_server(&key) {
                self.update_host(AddressUser::ApiServer);
            }
            let assigned =
                self.services.get(&key).into_iter().flat_map(|entry| &entry.service.assigned);
            let addresses: Vec<_> = assigned.map(|assigned| assigned.address).collect();
            self.queue_rechecks_at(addresses, now);
            self.queue_recheck(&key, now);
        }
        if listed {
            self.recheck_all_services();
        }
    }

    pub(in crate::state) fn handle_speaker(&mut self, change: Change<Speaker>, now: Instant) {
        if matches!(change, Change::ResyncDone) {
            self.custom_resources.statuses_dirty = true;
            self.recheck_all_services();
        }
        self.node_failures.evidence_changed();
        // An unreadable SpeakerStatus counts as deleted, because the version that was read earlier
        // is outdated.
        for (node, before) in self.speakers.handle(change.or_delete(), Some) {
            self.update_host(AddressUser::node(&node));
            if let Some(speaker) = self.speakers.get(&node).cloned() {
                let before = before.unwrap_or_default();
                self.custom_resources.statuses_dirty |= before.bgp != speaker.bgp
                    || before.host_addresses != speaker.host_addresses
                    || !subnets_by_interface(&before).eq(subnets_by_interface(&speaker));
                self.speaker_changed(&before, &speaker, now);
            } else {
                self.custom_resources.statuses_dirty = true;
                self.recheck_all_services();
            }
        }
    }

    /// Queues checks of the Services that a change of a SpeakerStatus concerns.
    ///
    /// An address that appears or disappears, and a change of a health check, concern the Services
    /// with the affected addresses. A change of the node's health concerns the Services whose
    /// addresses the node announces. Any other change may concern every Service.
    fn speaker_changed(&mut self, before: &Speaker, speaker: &Speaker, now: Instant) {
        let without_addresses = |speaker: &Speaker| {
            let mut interfaces = speaker.interfaces.clone();
            interfaces.iter_mut().for_each(|interface| interface.addresses = Box::default());
            interfaces
        };
        // A node advertises its routes over every session, with attributes that depend on its
        // health. A change of the sessions or the health can therefore concern every Service with
        // BGP.
        let bgp_state = |speaker: &Speaker| {
            let sessions = speaker.bgp.as_ref()?.iter().filter(|session| session.established);
            let sessions = sessions.map(|session| session.peer.clone()).collect::<BTreeSet<_>>();
            Some((sessions, speaker.draining, speaker.kube_proxy_issue().is_some()))
        };
        if without_addresses(before) != without_addresses(speaker)
            || bgp_state(before) != bgp_state(speaker)
            || before.watched != speaker.watched
            || before.host_addresses != speaker.host_addresses
        {
            self.recheck_all_services();
        }
        let addresses_of = |speaker: &Speaker| -> BTreeSet<(usize, IpAddr)> {
            let interfaces = speaker.interfaces.iter().enumerate();
            interfaces
                .flat_map(|(i, interface)| {
                    interface.addresses.iter().map(move |address| (i, *address))
                })
                .collect()
        };
        let (had, has) = (addresses_of(before), addresses_of(speaker));
        for (_, address) in has.difference(&had) {
            for key in self.allocator.services_of(*address) {
                let Some(entry) = self.services.get_mut(key) else { continue };
                entry.new_addresses.announced(*address);
            }
        }
        let health =
            |speaker: &Speaker| (speaker.kube_proxy_issue().map(str::to_owned), speaker.draining);
        if health(before) == health(speaker) {
            self.queue_rechecks_at(
                had.symmetric_difference(&has).map(|(_, address)| *address),
                now,
            );
        } else {
            self.queue_rechecks_at(had.union(&has).map(|(_, address)| *address), now);
        }
        let set = |unchecked: &[UncheckedHealthCheck]| -> BTreeSet<_> {
            unchecked.iter().cloned().collect()
        };
        for changed in set(&before.unchecked).symmetric_difference(&set(&speaker.unchecked)) {
            self.queue_recheck(&changed.service, now);
        }
        let failing = |speaker: &Speaker| speaker.failing.iter().cloned().collect::<BTreeSet<_>>();
        for failing in failing(before).symmetric_difference(&failing(speaker)) {
            let assigned = self
                .services
                .get(&failing.service)
                .into_iter()
                .flat_map(|entry| &entry.service.assigned);
            let addresses: Vec<_> = assigned.map(|assigned| assigned.address).collect();
            self.queue_rechecks_at(addresses, now);
        }
    }

    pub(in crate::state) fn queue_rechecks_at(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        now: Instant,
    ) {
        let services =
            addresses.into_iter().flat_map(|address| self.allocator.services_of(address));
        let keys: BTreeSet<Key> = services.cloned().collect();
        keys.iter().for_each(|key| self.queue_recheck(key, now));
    }

    fn queue_recheck(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.services.get_mut(key) {
            let target = Target::Service(key.clone());
            self.status_queue.queue(&mut entry.attempts, Class::Condition, target, now);
        }
    }
}

/// Returns the facts about interfaces on which the statuses of custom resources depend.
fn subnets_by_interface(speaker: &Speaker) -> impl Iterator<Item = (&str, bool, &[AddressRange])> {
    speaker.interfaces.iter().map(|it| (&*it.name, it.up, &*it.subnets))
}
