//! Which BGPPeers a node has sessions with. Pure.
//!
//! One node speaks as one AS with one router id, and has one session to each router: of BGPPeers that differ in that the older is in use,
//! as MetalLB has it, which refuses the younger.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::facts::{BfdProfile, BfdProfileProblem, BfdTimers, BgpPeer, PeerAsn, PeerPlace, Session};
use crate::range::Family;

/// Why a BGPPeer that is sound by itself has no session on a node: another one excludes it, which is older, or of the same age and first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PeerConflict {
    /// Both go to one router.
    #[error(
        "BGPPeer {0} has the same router on a node of this one, and is older: remove one, or let them select other nodes"
    )]
    Place(Box<str>),
    /// A node speaks as one AS.
    #[error(
        "spec.myASN: BGPPeer {other} has {asn} on a node of this one, and is older; for another number towards one router write spec.localASN"
    )]
    MyAsn {
        /// The older one.
        other: Box<str>,
        /// Its number.
        asn: u32,
    },
    /// A node has one router id.
    #[error("spec.routerID: BGPPeer {other} has {} on a node of this one, and is older: write the same", id.map_or("none".to_owned(), |id| id.to_string()))]
    RouterId {
        /// The older one.
        other: Box<str>,
        /// Its router id, if it has one.
        id: Option<Ipv4Addr>,
    },
}

/// Why a session goes on without the BFD that its BGPPeer asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BfdFault {
    /// The router may be anywhere.
    #[error("spec.bfdProfile: GoBGP has no BFD to a router more than one hop away: BFD is off")]
    MultiHop,
    /// There is no profile of this name.
    #[error("spec.bfdProfile: there is no BFDProfile {0}: BFD is off")]
    Unknown(Box<str>),
    /// The profile cannot be used.
    #[error("spec.bfdProfile: BFDProfile {name}: {why}: BFD is off")]
    Profile {
        /// Its name.
        name: Box<str>,
        /// What is wrong with it.
        why: BfdProfileProblem,
    },
}

/// The sessions of a node.
#[derive(Clone, Debug, Default)]
pub struct Sessions<'a> {
    /// The BGPPeers that it has sessions with, the oldest first.
    pub with: Vec<(&'a BgpPeer, &'a Session)>,
    /// Those that it cannot have beside these, and why.
    pub conflicts: Vec<(&'a BgpPeer, PeerConflict)>,
}

/// The sessions that a node with these labels has with these routers. Whoever does not select it, or is unsound by itself, is none of them.
pub fn sessions<'a>(peers: impl IntoIterator<Item = &'a BgpPeer>, labels: &BTreeMap<String, String>) -> Sessions<'a> {
    let sound = |peer: &'a BgpPeer| Some((peer, peer.session.as_ref().ok()?));
    let mut here: Vec<_> = peers.into_iter().filter(|peer| peer.selects_node(labels)).filter_map(sound).collect();
    here.sort_by_key(|(peer, _)| (peer.created, &*peer.name));
    let mut sessions = Sessions::default();
    for (peer, session) in here {
        match sessions.with.iter().find_map(|(older, theirs)| conflict(&older.name, theirs, session)) {
            Some(conflict) => sessions.conflicts.push((peer, conflict)),
            None => sessions.with.push((peer, session)),
        }
    }
    sessions
}

fn conflict(other: &str, theirs: &Session, ours: &Session) -> Option<PeerConflict> {
    if theirs.place == ours.place {
        Some(PeerConflict::Place(other.into()))
    } else if theirs.my_asn != ours.my_asn {
        Some(PeerConflict::MyAsn { other: other.into(), asn: theirs.my_asn })
    } else {
        let differ = theirs.router_id != ours.router_id;
        differ.then(|| PeerConflict::RouterId { other: other.into(), id: theirs.router_id })
    }
}

impl Session {
    /// The timers of its BFD, if it has one; profiles are found by their names.
    ///
    /// # Errors
    /// When they cannot be had: the session goes on without.
    pub fn bfd<'p>(&self, profile: impl FnOnce(&str) -> Option<&'p BfdProfile>) -> Result<Option<BfdTimers>, BfdFault> {
        let Some(name) = &self.bfd_profile else { return Ok(None) };
        if self.multi_hop {
            return Err(BfdFault::MultiHop);
        }
        let profile = profile(name).ok_or_else(|| BfdFault::Unknown(name.clone()))?;
        let timers = profile.timers.clone().map_err(|why| BfdFault::Profile { name: name.clone(), why });
        timers.map(Some)
    }

    /// The AS number that the router sees of us.
    #[must_use]
    pub fn own_asn(&self) -> u32 {
        self.local_asn.unwrap_or(self.my_asn)
    }

    /// Whether the router is of our own AS (RFC 4271 section 1.1).
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.peer_asn == PeerAsn::Number(self.own_asn())
    }

    /// Whether prefixes of a family are announced over it: those of its own, of both where it is asked for or has no address at all.
    #[must_use]
    pub fn carries(&self, family: Family) -> bool {
        match &self.place {
            PeerPlace::Address(address) => self.dual_stack || Family::of(*address) == family,
            PeerPlace::Interface(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api;

    fn peer(name: &str, created: u32, spec: &Value) -> BgpPeer {
        let mut object = json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"}});
        for (field, value) in spec.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value::<api::Router>(object).expect("a peer").into()
    }

    fn labels(rack: &str) -> BTreeMap<String, String> {
        [("rack".to_owned(), rack.to_owned())].into()
    }

    fn names(sessions: &Sessions<'_>) -> Vec<String> {
        sessions.with.iter().map(|(peer, _)| peer.name.to_string()).collect()
    }

    #[test]
    fn the_older_of_two_that_exclude_each_other_is_in_use_and_the_younger_says_why() {
        let other = json!({"peerAddress": "10.0.0.2"});
        let cases = [
            (json!({}), "BGPPeer a has the same router"),
            (json!({"peerAddress": "10.0.0.2", "myASN": 64999}), "spec.myASN: BGPPeer a has 64512"),
            (json!({"peerAddress": "10.0.0.2", "routerID": "1.1.1.1"}), "spec.routerID: BGPPeer a has none"),
        ];
        for (spec, why) in cases {
            // By age, not by name or place in the list.
            let (younger, older) = (peer("0", 2, &spec), peer("a", 1, &json!({})));
            let sessions = sessions([&younger, &older], &labels("x"));
            assert_eq!(names(&sessions), ["a"], "{spec}");
            let [(culprit, conflict)] = &sessions.conflicts[..] else { panic!("{spec}: {:?}", sessions.conflicts) };
            assert_eq!(&*culprit.name, "0");
            assert!(conflict.to_string().contains(why), "{conflict}");
        }
        let (younger, older) = (peer("0", 2, &other), peer("a", 1, &json!({})));
        assert_eq!(names(&sessions([&younger, &older], &labels("x"))), ["a", "0"]);
        let (same, age) = (peer("a", 1, &json!({})), peer("b", 1, &json!({})));
        assert_eq!(names(&sessions([&age, &same], &labels("x"))), ["a"]);
    }

    #[test]
    fn who_excludes_nobody_on_this_node_excludes_nobody() {
        let on = |rack: &str| json!({"nodeSelectors": [{"matchLabels": {"rack": rack}}]});
        let all = [
            peer("x", 1, &on("x")),
            peer("y", 2, &on("y")),
            peer("bad", 0, &json!({"vrf": "red"})),
            peer("third", 3, &json!({"peerAddress": "10.0.0.9"})),
        ];
        assert_eq!(names(&sessions(&all, &labels("x"))), ["x", "third"]);
        assert_eq!(names(&sessions(&all, &labels("y"))), ["y", "third"]);
        assert_eq!(names(&sessions(&all, &labels("z"))), ["third"]);
        // What is refused refuses nobody in turn.
        let refused = peer("refused", 4, &json!({"myASN": 1, "peerAddress": "10.0.0.4"}));
        let twin = peer("twin", 5, &json!({"peerAddress": "10.0.0.4"}));
        assert_eq!(names(&sessions(all.iter().chain([&refused, &twin]), &labels("z"))), ["third", "twin"]);
    }

    #[test]
    fn a_session_is_internal_and_carries_families_as_its_terms_say() {
        let session = |spec: Value| peer("a", 1, &spec).session.expect("sound");
        assert!(!session(json!({})).is_internal());
        assert!(session(json!({"peerASN": 64512})).is_internal());
        assert!(session(json!({"peerASN": 64513, "localASN": 64513})).is_internal());
        assert!(!session(json!({"peerASN": 64512, "localASN": 64513})).is_internal());
        assert!(!session(json!({"peerASN": null, "dynamicASN": "external"})).is_internal());
        assert!(session(json!({"peerASN": null, "dynamicASN": "internal"})).is_internal());
        let carries = |spec: Value| [Family::V4, Family::V6].map(|family| session(spec.clone()).carries(family));
        assert_eq!(carries(json!({})), [true, false]);
        assert_eq!(carries(json!({"peerAddress": "fd00::1"})), [false, true]);
        assert_eq!(carries(json!({"dualStackAddressFamily": true})), [true, true]);
        assert_eq!(carries(json!({"peerAddress": "", "interface": "eth0"})), [true, true]);
    }
}
