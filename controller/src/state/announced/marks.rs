//! Which changes concern which Services: those are marked to be looked at.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{ConditionKind, Key, Service, Slice, Speaker};
use ferrolb_runtime::watch::Change;

use super::super::{State, bare};

impl State {
    /// Something has changed that may concern every Service.
    pub(in crate::state) fn doubt_announcing(&mut self) {
        self.checks.begin_round(self.services.len());
    }

    /// A Service has changed: that concerns itself, and those that share its addresses.
    pub(in crate::state) fn service_changed(&mut self, key: &Key, before: &Service, now: Instant) {
        let Some(service) = self.services.get(key).map(|entry| &entry.service) else { return };
        let same = before.assigned == service.assigned
            && (before.policy, before.usable) == (service.policy, service.usable)
            && before.endpoint_problems().eq(service.endpoint_problems())
            && before.demand.labels == service.demand.labels
            && before.demand.request.announce == service.demand.request.announce;
        let written = |service: &Service| service.condition(ConditionKind::Announced).cloned();
        if !same {
            let assigned = before.assigned.iter().chain(&service.assigned);
            let addresses: BTreeSet<_> = assigned.map(|assigned| assigned.address).collect();
            self.look_at_sharers(addresses, now);
        } else if written(before) == written(service) {
            return;
        }
        self.look_at(key, now);
    }

    pub(in crate::state) fn slice(&mut self, change: Change<Slice>, now: Instant) {
        let listed = matches!(change, Change::ResyncDone);
        for key in self.slices.handle(change) {
            let assigned = self.services.get(&key).into_iter().flat_map(|entry| &entry.service.assigned);
            let addresses: Vec<_> = assigned.map(|assigned| assigned.address).collect();
            self.look_at_sharers(addresses, now);
            self.look_at(&key, now);
        }
        if listed {
            self.doubt_announcing();
        }
    }

    pub(in crate::state) fn speaker(&mut self, change: Change<Speaker>, now: Instant) {
        match change {
            Change::ResyncStarted => self.speakers.resync_started(),
            Change::Apply(speaker) => {
                let before = self.speakers.put(bare(&speaker.node), speaker.clone()).unwrap_or_default();
                self.bgp.in_doubt |= before.bgp != speaker.bgp;
                self.speaker_changed(&before, &speaker, now);
            }
            // What it says cannot be used, and what it said before is old.
            Change::Unreadable { key, .. } | Change::Delete(key) => {
                if self.speakers.remove(&bare(&key.name)).is_some() {
                    self.doubt_announcing();
                    self.bgp.in_doubt = true;
                }
            }
            Change::ResyncDone => {
                self.speakers.resync_done();
                self.bgp.in_doubt = true;
                self.doubt_announcing();
            }
        }
    }

    /// What a speaker has now, or has no more, concerns those Services, as does what fails there and whether the node is sound; all
    /// else may concern every one.
    fn speaker_changed(&mut self, before: &Speaker, speaker: &Speaker, now: Instant) {
        let rest = |speaker: &Speaker| {
            let mut links = speaker.links.clone();
            links.iter_mut().for_each(|link| link.addresses = Box::default());
            links
        };
        // What is announced by BGP goes over every session alike, and as sound as the node is.
        let standing = |speaker: &Speaker| {
            let sessions = speaker.bgp.as_ref()?.iter().filter(|session| session.established);
            let sessions = sessions.map(|session| session.peer.clone()).collect::<BTreeSet<_>>();
            Some((sessions, speaker.draining, speaker.broken().is_some(), speaker.withdraws))
        };
        if rest(before) != rest(speaker) || standing(before) != standing(speaker) {
            self.doubt_announcing();
        }
        let has = |speaker: &Speaker| -> BTreeSet<(usize, IpAddr)> {
            let links = speaker.links.iter().enumerate();
            links.flat_map(|(i, link)| link.addresses.iter().map(move |address| (i, *address))).collect()
        };
        let (had, has) = (has(before), has(speaker));
        let sound = |speaker: &Speaker| (speaker.broken().map(str::to_owned), speaker.draining);
        if sound(before) == sound(speaker) {
            self.look_at_sharers(had.symmetric_difference(&has).map(|(_, address)| *address), now);
        } else {
            self.look_at_sharers(had.union(&has).map(|(_, address)| *address), now);
        }
        let failing = |speaker: &Speaker| speaker.failing.iter().cloned().collect::<BTreeSet<_>>();
        for failing in failing(before).symmetric_difference(&failing(speaker)) {
            let assigned = self.services.get(&failing.service).into_iter().flat_map(|entry| &entry.service.assigned);
            let addresses: Vec<_> = assigned.map(|assigned| assigned.address).collect();
            self.look_at_sharers(addresses, now);
        }
    }

    fn look_at_sharers(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let tenants = addresses.into_iter().flat_map(|address| self.allocator.tenants_of(address));
        let keys: BTreeSet<Key> = tenants.cloned().collect();
        keys.iter().for_each(|key| self.look_at(key, now));
    }

    fn look_at(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.services.get_mut(key) {
            self.checks.look_at(key, &mut entry.motion, now, None);
        }
    }
}
