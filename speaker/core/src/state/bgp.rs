//! State of the custom resources and Secrets that configure BGP. Pure; the speaker watches them
//! only on nodes that have a gobgpd.

use std::time::Duration;

use ferrolb_core::store::{Change, Store};
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{BfdProfile, BgpAdvertisement, BgpPeer, Community, PasswordSecret};

use super::held_objects::HeldObjects;
use super::last_passwords::LastPasswords;
use super::{Changes, State, apply};

/// Custom resources and Secrets that configure BGP.
#[derive(Debug, Default)]
pub(crate) struct BgpObjects {
    pub(crate) peers: HeldObjects<BgpPeer>,
    pub(crate) advertisements: HeldObjects<BgpAdvertisement>,
    pub(crate) communities: HeldObjects<Community>,
    pub(crate) profiles: HeldObjects<BfdProfile>,
    pub(crate) passwords: Store<Box<str>, PasswordSecret>,
    pub(crate) last_passwords: LastPasswords,
}

impl BgpObjects {
    /// Forgets the deleted objects that are not held any more. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant, grace: Duration) -> bool {
        let peers = self.peers.expire(now, grace);
        let others = [
            self.advertisements.expire(now, grace),
            self.communities.expire(now, grace),
            self.profiles.expire(now, grace),
        ];
        self.update_last_passwords(peers) || others.contains(&true)
    }

    /// Returns the time at which [`Self::expire`] is due next.
    pub(super) fn deadline(&self, grace: Duration) -> Option<Instant> {
        let all = [
            self.peers.deadline(grace),
            self.advertisements.deadline(grace),
            self.communities.deadline(grace),
            self.profiles.deadline(grace),
        ];
        all.into_iter().flatten().min()
    }

    fn update_last_passwords(&mut self, changed: bool) -> bool {
        if changed {
            self.last_passwords.update(self.peers.values(), &self.passwords);
        }
        changed
    }

    /// Returns the first resource whose list has not arrived yet, if any. gobgpd is not configured
    /// before all lists have arrived.
    pub(crate) fn missing_input(&self) -> Option<&'static str> {
        let listed = [
            ("BGPPeers", self.peers.was_ever_complete()),
            ("BGPAdvertisements", self.advertisements.was_ever_complete()),
            ("Communities", self.communities.was_ever_complete()),
            ("BFDProfiles", self.profiles.was_ever_complete()),
            ("Secrets", self.passwords.was_ever_complete()),
        ];
        listed.into_iter().find(|(_, listed)| !listed).map(|(what, _)| what)
    }
}

impl HandleChange<BgpPeer, Changes> for State {
    fn handle_change(&mut self, change: Change<BgpPeer>, now: Instant) -> Changes {
        let changed = self.bgp_objects.peers.handle(change, now);
        Changes::all_if(self.bgp_objects.update_last_passwords(changed))
    }
}

impl HandleChange<PasswordSecret, Changes> for State {
    fn handle_change(&mut self, change: Change<PasswordSecret>, _: Instant) -> Changes {
        let changed = apply(&mut self.bgp_objects.passwords, change);
        Changes::other_if(self.bgp_objects.update_last_passwords(changed))
    }
}

impl HandleChange<BgpAdvertisement, Changes> for State {
    fn handle_change(&mut self, change: Change<BgpAdvertisement>, now: Instant) -> Changes {
        Changes::all_if(self.bgp_objects.advertisements.handle(change, now))
    }
}

impl HandleChange<Community, Changes> for State {
    fn handle_change(&mut self, change: Change<Community>, now: Instant) -> Changes {
        Changes::all_if(self.bgp_objects.communities.handle(change, now))
    }
}

impl HandleChange<BfdProfile, Changes> for State {
    fn handle_change(&mut self, change: Change<BfdProfile>, now: Instant) -> Changes {
        Changes::other_if(self.bgp_objects.profiles.handle(change, now))
    }
}
