//! What is said of BGPPeers, BGPAdvertisements and BFDProfiles: the state's part of it. They decide nothing about addresses and
//! depend on each other, so that a change of one only marks, and all are looked at once at the end of the pass.

mod advertisements;
mod peers;

use std::collections::BTreeMap;
use std::hash::Hash;

use ferrolb_proto::Instant;
use ferrolb_proto::api::Kind;
use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem, BgpAdvertisement, BgpAdvertisementProblem, BgpPeer, Pool};
use ferrolb_runtime::watch::Change;

use super::agenda::Agenda;
use super::inventory::Inventory;
use super::objects::{gone, put};
use super::{Own, State, bare, validity};
use crate::desired::{PeerStatus, Target, ValidStatus};
use crate::event::Outcome;
use advertisements::Surroundings;

/// Names that a condition lists.
const NAMED_MAX: usize = 5;

/// Our kinds for BGP.
#[derive(Debug, Default)]
pub(super) struct Bgp {
    pub(super) peers: Inventory<Own<BgpPeer, PeerStatus>>,
    pub(super) ads: Inventory<Own<BgpAdvertisement, ValidStatus>>,
    pub(super) profiles: Inventory<Own<BfdProfile, ValidStatus>>,
    /// Something has changed that may matter to any of them.
    pub(super) in_doubt: bool,
}

impl Bgp {
    /// New lists follow.
    pub(super) const fn doubt(&mut self) {
        self.peers.doubt();
        self.ads.doubt();
        self.profiles.doubt();
    }

    /// Nothing is to be written any more.
    pub(super) fn withdraw(&mut self, agenda: &mut Agenda) {
        self.peers.values_mut().for_each(|own| agenda.withdraw(&mut own.draft));
        self.ads.values_mut().for_each(|own| agenda.withdraw(&mut own.draft));
        self.profiles.values_mut().for_each(|own| agenda.withdraw(&mut own.draft));
    }

    /// What came of a write to one of them.
    pub(super) fn written(
        &mut self,
        agenda: &mut Agenda,
        target: &Target,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) {
        match target {
            Target::Peer(name) => {
                let Some(own) = self.peers.get_mut(&bare(name)) else { return };
                if let Some(written) = agenda.own_written(target, own, attempt, outcome, now) {
                    peers::assume_peer(&mut own.object.status, &written);
                }
            }
            Target::BgpAdvertisement(name) => {
                let Some(own) = self.ads.get_mut(&bare(name)) else { return };
                if let Some(written) = agenda.own_written(target, own, attempt, outcome, now) {
                    let is = &mut own.object.status;
                    validity::assume(&mut is.conditions, &mut is.observed_generation, &written);
                }
            }
            Target::BfdProfile(name) => {
                let Some(own) = self.profiles.get_mut(&bare(name)) else { return };
                if let Some(written) = agenda.own_written(target, own, attempt, outcome, now) {
                    let is = &mut own.object.status;
                    validity::assume(&mut is.conditions, &mut is.observed_generation, &written);
                }
            }
            Target::Service(_) | Target::Pool(_) | Target::Advertisement(_) | Target::Community(_) => {}
        }
    }
}

impl State {
    pub(super) fn peer(&mut self, change: Change<BgpPeer>) {
        let unreadable = |name: Box<str>, why: &str, before: Option<&BgpPeer>| {
            let mut peer = BgpPeer::unreadable(name, why);
            if let Some(before) = before {
                (peer.generation, peer.created) = (before.generation, before.created);
                peer.status = before.status.clone();
            }
            peer
        };
        let matters = |is: &BgpPeer, was: &BgpPeer| (is.generation, is.created) != (was.generation, was.created);
        let name = |peer: &BgpPeer| peer.name.clone();
        let changed = take(&mut self.bgp.peers, &mut self.agenda, change, name, matters, unreadable);
        self.changed(changed);
    }

    pub(super) fn bgp_advertisement(&mut self, change: Change<BgpAdvertisement>) {
        let unreadable = |name, why: &str, before: Option<&BgpAdvertisement>| {
            let mut ad = before.cloned().unwrap_or_default();
            (ad.name, ad.problem) = (name, Some(BgpAdvertisementProblem::Unreadable(why.into())));
            ad
        };
        let matters = |is: &BgpAdvertisement, was: &BgpAdvertisement| {
            (is.generation, is.created, &is.problem) != (was.generation, was.created, &was.problem)
        };
        let name = |ad: &BgpAdvertisement| ad.name.clone();
        let changed = take(&mut self.bgp.ads, &mut self.agenda, change, name, matters, unreadable);
        self.changed(changed);
    }

    pub(super) fn bfd_profile(&mut self, change: Change<BfdProfile>) {
        let unreadable = |name, why: &str, before: Option<&BfdProfile>| BfdProfile {
            name,
            generation: before.map_or(0, |before| before.generation),
            timers: Err(BfdProfileProblem::Unreadable(why.into())),
            status: before.map(|before| before.status.clone()).unwrap_or_default(),
        };
        let name = |profile: &BfdProfile| profile.name.clone();
        let changed = take(&mut self.bgp.profiles, &mut self.agenda, change, name, |_, _| false, unreadable);
        self.bgp.in_doubt |= changed != Changed::Nothing;
    }

    fn changed(&mut self, changed: Changed) {
        self.bgp.in_doubt |= changed != Changed::Nothing;
        if changed == Changed::Terms {
            self.doubt_announcing();
        }
    }

    /// Compares the statuses of all our kinds for BGP with what they should be, those whose surroundings are known.
    pub(super) fn settle_bgp(&mut self, now: Instant) {
        if !std::mem::take(&mut self.bgp.in_doubt) {
            return;
        }
        let has_profiles = self.bgp.profiles.is_complete();
        let has_peers = self.bgp.peers.is_complete();
        if has_profiles {
            self.settle_profiles(now);
        }
        if has_peers && has_profiles && (self.speakers.is_complete() || !self.has_speakers()) {
            self.settle_peers(now);
        }
        if self.bgp.ads.is_complete() && has_peers && self.communities.is_complete() {
            self.settle_bgp_advertisements(now);
        }
    }

    fn settle_profiles(&mut self, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::BFDProfile) else { return };
        let wanted: Vec<_> =
            self.bgp.profiles.iter().map(|(_, own)| peers::profile_status(&own.object, fields)).collect();
        for (own, wanted) in self.bgp.profiles.values_mut().zip(wanted) {
            set(&mut self.agenda, &Target::BfdProfile(own.object.name.clone()), own, wanted, now);
        }
    }

    fn settle_peers(&mut self, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::BGPPeer) else { return };
        let all = self.bgp.peers.iter().map(|(_, own)| &own.object);
        let nodes: Vec<&BTreeMap<_, _>> = self.nodes.iter().map(|(_, node)| &node.labels).collect();
        let surroundings = peers::Surroundings {
            conflicts: peers::conflicts(all.clone(), &nodes),
            secrets: peers::secrets(self.speakers.iter().map(|(_, speaker)| speaker)),
            profiles: self.bgp.profiles.iter().map(|(key, own)| (&*key.name, &own.object)).collect(),
            speakers: self.speakers.iter().filter_map(|(key, is)| Some((self.nodes.get(key)?, is))).collect(),
        };
        let wanted: Vec<_> = all.map(|peer| peers::peer_status(peer, &surroundings, fields)).collect();
        for (own, wanted) in self.bgp.peers.values_mut().zip(wanted) {
            set(&mut self.agenda, &Target::Peer(own.object.name.clone()), own, wanted, now);
        }
    }

    fn settle_bgp_advertisements(&mut self, now: Instant) {
        let Some(fields) = self.fields.get(&Kind::BGPAdvertisement) else { return };
        let pools: Vec<&Pool> = self.pools.iter().map(|(_, own)| &own.object).collect();
        let aliases = validity::alias_owners(self.communities.iter().map(|(_, own)| &own.object));
        let peers = self.bgp.peers.iter().map(|(key, _)| &*key.name).collect();
        let ads: Vec<&BgpAdvertisement> = self.bgp.ads.iter().map(|(_, own)| &own.object).collect();
        let nodes: Vec<&BTreeMap<_, _>> = self.nodes.iter().map(|(_, node)| &node.labels).collect();
        let surroundings = Surroundings::new(&ads, &nodes, pools, aliases, peers);
        let wanted: Vec<_> = ads.iter().map(|ad| surroundings.status(ad, fields)).collect();
        for (own, wanted) in self.bgp.ads.values_mut().zip(wanted) {
            set(&mut self.agenda, &Target::BgpAdvertisement(own.object.name.clone()), own, wanted, now);
        }
    }
}

fn set<F, S: PartialEq + Hash>(
    agenda: &mut Agenda,
    target: &Target,
    own: &mut Own<F, S>,
    wanted: Option<S>,
    now: Instant,
) {
    own.draft.renew();
    own.draft.hold_until(own.quiet_until);
    agenda.set(target, &mut own.draft, wanted, now);
}

/// What came of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Nothing,
    /// Something that concerns our kinds for BGP at most.
    Object,
    /// What it asks for: that may concern Services.
    Terms,
}

/// Takes a change of one kind; `matters` tells whether an object asks for something else than it did.
fn take<F, S>(
    inventory: &mut Inventory<Own<F, S>>,
    agenda: &mut Agenda,
    change: Change<F>,
    name: impl Fn(&F) -> Box<str>,
    matters: impl FnOnce(&F, &F) -> bool,
    unreadable: impl FnOnce(Box<str>, &str, Option<&F>) -> F,
) -> Changed {
    let object = match change {
        Change::ResyncStarted => {
            inventory.resync_started();
            return Changed::Nothing;
        }
        Change::Delete(_) | Change::ResyncDone => {
            return if gone(inventory, agenda, &change) { Changed::Terms } else { Changed::Object };
        }
        Change::Apply(object) => object,
        Change::Unreadable { key, why } => {
            let before = inventory.get(&bare(&key.name)).map(|own| &own.object);
            unreadable(key.name, &why, before)
        }
    };
    if put(inventory, bare(&name(&object)), object, matters) { Changed::Terms } else { Changed::Object }
}

/// Some of these names; none where there are none.
fn few<'s>(mut names: impl Iterator<Item = &'s str>) -> Option<String> {
    let named: Vec<_> = names.by_ref().take(NAMED_MAX).collect();
    let more = if names.next().is_some() { " and others" } else { "" };
    (!named.is_empty()).then(|| format!("{}{more}", named.join(", ")))
}
