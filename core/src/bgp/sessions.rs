//! The BGPPeers with which a node has sessions. Pure functions.
//!
//! A node has one AS number and one router ID, and one session with each router. If BGPPeers
//! contradict each other in this, the node uses the oldest one. MetalLB does the same and refuses
//! the younger one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem, BfdTimers, BgpPeer, SessionParameters};

/// Reason why a BGPPeer that is valid by itself has no session on a node: an older BGPPeer excludes
/// it, or one of the same age that is first by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PeerConflict {
    /// Both BGPPeers have the same router, and a node has one session with each router.
    #[error(
        "BGPPeer {0}, which is older, selects the same router on a common node: remove one of them, \
         or change spec.nodeSelectors"
    )]
    Router(Box<str>),
    /// The BGPPeers have different values of `spec.myASN`, and a node has one AS number.
    #[error(
        "spec.myASN: BGPPeer {other}, which is older, has {asn} on a common node: write the same, \
         and spec.localASN for another AS towards one router"
    )]
    MyAsn {
        /// The older BGPPeer.
        other: Box<str>,
        /// The AS number of the older BGPPeer.
        asn: u32,
    },
    /// The BGPPeers have different values of `spec.routerID`, and a node has one router ID.
    #[error("spec.routerID: BGPPeer {other}, which is older, has {} on a common node: write the \
             same", id.map_or("none".to_owned(), |id| id.to_string()))]
    RouterId {
        /// The older BGPPeer.
        other: Box<str>,
        /// The router ID of the older BGPPeer, if any.
        id: Option<Ipv4Addr>,
    },
}

/// Reason why a session continues without the BFD that its BGPPeer requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BfdUnavailable {
    /// GoBGP does not support BFD with `spec.ebgpMultiHop`, so BFD is off.
    ///
    /// With this field, the router may be several hops away.
    ///
    /// Action: Remove one of them.
    #[error(
        "spec.bfdProfile: BFD is off, because GoBGP does not support it with spec.ebgpMultiHop: \
         remove one of them"
    )]
    MultiHop,
    /// `spec.bfdProfile` names no BFDProfile, so BFD is off.
    ///
    /// Action: Create the profile, or remove the name.
    #[error(
        "spec.bfdProfile: BFD is off, because BFDProfile {0} does not exist: create it, or remove \
         the name"
    )]
    Unknown(Box<str>),
    /// The BFDProfile is invalid, so BFD is off.
    ///
    /// Action: Correct the profile.
    #[error("spec.bfdProfile: BFD is off, because BFDProfile {name} is invalid: {why}")]
    Profile {
        /// The name of the profile.
        name: Box<str>,
        /// The reason why the profile is invalid.
        why: BfdProfileProblem,
    },
}

impl BfdUnavailable {
    /// Returns the reason that identifies the variant in conditions and in SpeakerStatus.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::MultiHop => "Unsupported",
            Self::Unknown(_) => "UnknownBFDProfile",
            Self::Profile { .. } => "BadBFDProfile",
        }
    }
}

/// All BFDProfiles, by name.
pub type ProfilesByName<'a> = BTreeMap<&'a str, &'a BfdProfile>;

/// The sessions of a node.
#[derive(Clone, Debug, Default)]
pub struct Sessions<'a> {
    /// The BGPPeers with which the node has sessions, the oldest first.
    pub active: Vec<(&'a BgpPeer, &'a SessionParameters)>,
    /// The BGPPeers that select the node but have no session with it, each with its conflict with
    /// one of the BGPPeers in `active`.
    pub conflicts: Vec<(&'a BgpPeer, PeerConflict)>,
}

/// Returns the sessions of a node with these labels. BGPPeers that are invalid or do not select the
/// node are in neither list of [`Sessions`].
pub fn sessions<'a>(
    peers: impl IntoIterator<Item = &'a BgpPeer>,
    labels: &BTreeMap<String, String>,
) -> Sessions<'a> {
    let valid = |peer: &'a BgpPeer| Some((peer, peer.session.as_ref().ok()?));
    let mut selected: Vec<_> =
        peers.into_iter().filter(|peer| peer.selects_node(labels)).filter_map(valid).collect();
    selected.sort_by_key(|(peer, _)| (peer.created, &*peer.name));
    let mut sessions = Sessions::default();
    for (peer, session) in selected {
        match sessions
            .active
            .iter()
            .find_map(|(older, parameters)| conflict(&older.name, parameters, session))
        {
            Some(conflict) => sessions.conflicts.push((peer, conflict)),
            None => sessions.active.push((peer, session)),
        }
    }
    sessions
}

/// Returns the conflict between a BGPPeer and the older one with the name `older_name`, if any.
fn conflict(
    older_name: &str,
    older: &SessionParameters,
    younger: &SessionParameters,
) -> Option<PeerConflict> {
    if older.location == younger.location {
        Some(PeerConflict::Router(older_name.into()))
    } else if older.my_asn != younger.my_asn {
        Some(PeerConflict::MyAsn { other: older_name.into(), asn: older.my_asn })
    } else {
        let differ = older.router_id != younger.router_id;
        differ.then(|| PeerConflict::RouterId { other: older_name.into(), id: older.router_id })
    }
}

/// Returns the BFD timers of a session; `None` if its BGPPeer does not request BFD.
///
/// # Errors
/// Returns the reason why BFD is off. The session continues without BFD.
pub fn bfd_timers(
    session: &SessionParameters,
    profiles: &ProfilesByName<'_>,
) -> Result<Option<BfdTimers>, BfdUnavailable> {
    let Some(name) = &session.bfd_profile else { return Ok(None) };
    if session.multi_hop {
        return Err(BfdUnavailable::MultiHop);
    }
    let profile = profiles.get(&**name).ok_or_else(|| BfdUnavailable::Unknown(name.clone()))?;
    let timers =
        profile.timers.clone().map_err(|why| BfdUnavailable::Profile { name: name.clone(), why });
    timers.map(Some)
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api;
    use ferrolb_proto::range::Family;
    use serde_json::{Value, json};

    use super::*;

    fn peer(name: &str, created: u32, spec: &Value) -> BgpPeer {
        let mut object = json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"}});
        for (field, value) in spec.as_object().expect("fields") {
            object["spec"][field] = value.clone();
        }
        serde_json::from_value::<api::BgpPeerObject>(object).expect("a peer").into()
    }

    fn labels(rack: &str) -> BTreeMap<String, String> {
        [("rack".to_owned(), rack.to_owned())].into()
    }

    fn names(sessions: &Sessions<'_>) -> Vec<String> {
        sessions.active.iter().map(|(peer, _)| peer.name.to_string()).collect()
    }

    #[test]
    fn the_older_of_two_conflicting_peers_is_in_use() {
        let other = json!({"peerAddress": "10.0.0.2"});
        let cases = [
            (json!({}), "BGPPeer a, which is older, selects the same router"),
            (
                json!({"peerAddress": "10.0.0.2", "myASN": 64999}),
                "spec.myASN: BGPPeer a, which is older, has 64512",
            ),
            (
                json!({"peerAddress": "10.0.0.2", "routerID": "1.1.1.1"}),
                "spec.routerID: BGPPeer a, which is older, has none",
            ),
        ];
        for (spec, why) in cases {
            // Age decides, not the name or the position in the list.
            let (younger, older) = (peer("0", 2, &spec), peer("a", 1, &json!({})));
            let sessions = sessions([&younger, &older], &labels("x"));
            assert_eq!(names(&sessions), ["a"], "sessions with {spec}");
            let [(refused, conflict)] = &sessions.conflicts[..] else {
                panic!("conflicts with {spec}: {:?}", sessions.conflicts)
            };
            assert_eq!(&*refused.name, "0");
            assert!(conflict.to_string().contains(why), "the conflict is: {conflict}");
        }
        let (younger, older) = (peer("0", 2, &other), peer("a", 1, &json!({})));
        assert_eq!(names(&sessions([&younger, &older], &labels("x"))), ["a", "0"]);
        let (first, second) = (peer("a", 1, &json!({})), peer("b", 1, &json!({})));
        assert_eq!(names(&sessions([&second, &first], &labels("x"))), ["a"]);
    }

    #[test]
    fn a_peer_without_a_session_on_this_node_excludes_no_other() {
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
        // A refused BGPPeer does not exclude others.
        let refused = peer("refused", 4, &json!({"myASN": 1, "peerAddress": "10.0.0.4"}));
        let same_router = peer("same-router", 5, &json!({"peerAddress": "10.0.0.4"}));
        assert_eq!(
            names(&sessions(all.iter().chain([&refused, &same_router]), &labels("z"))),
            ["third", "same-router"]
        );
    }

    #[test]
    fn the_spec_decides_whether_a_session_is_internal_and_its_families() {
        let session = |spec: Value| peer("a", 1, &spec).session.expect("a valid BGPPeer");
        assert!(!session(json!({})).is_internal());
        assert!(session(json!({"peerASN": 64512})).is_internal());
        assert!(session(json!({"peerASN": 64513, "localASN": 64513})).is_internal());
        assert!(!session(json!({"peerASN": 64512, "localASN": 64513})).is_internal());
        assert!(!session(json!({"peerASN": null, "dynamicASN": "external"})).is_internal());
        assert!(session(json!({"peerASN": null, "dynamicASN": "internal"})).is_internal());
        let carries = |spec: Value| {
            [Family::V4, Family::V6].map(|family| session(spec.clone()).carries_family(family))
        };
        assert_eq!(carries(json!({})), [true, false]);
        assert_eq!(carries(json!({"peerAddress": "fd00::1"})), [false, true]);
        assert_eq!(carries(json!({"dualStackAddressFamily": true})), [true, true]);
        assert_eq!(carries(json!({"peerAddress": "", "interface": "eth0"})), [true, true]);
    }
}
