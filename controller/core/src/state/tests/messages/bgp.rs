//! Messages of the conditions of BGPAdvertisements and BGPPeers.

use ferrolb_core::bgp::{BfdUnavailable, PeerConflict};
use ferrolb_proto::facts::{BfdProfileProblem, BgpAdvertisementProblem, BgpPeerProblem};

use super::*;
use crate::state::messages::bgp::BgpMessage;
use crate::state::messages::peer::{NodeSession, PeerMessage, SessionMessage, SessionProblem};

const SELECTOR_PROBLEM: &str =
    "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist";

#[test]
fn every_validity_of_a_bgp_advertisement_has_its_message() {
    table!(BgpMessage<'static>, condition;
        BgpMessage::Valid => [(BgpMessage::Valid, "Valid", "the selected addresses are announced")],
        BgpMessage::Problem(_) => [
            (BgpMessage::Problem(&BgpAdvertisementProblem::SelectorsWithAggregation), "BadLength", "spec.serviceSelectors and an aggregation length are both set, and a prefix also covers Services that are not selected: remove one of them")
        ],
        BgpMessage::UnknownCommunity(_) => [(BgpMessage::UnknownCommunity(vec!["near"]), "UnknownCommunity", "spec.communities: no Community defines near, so this advertisement announces nothing: define the name, or remove it")],
        BgpMessage::UnknownPool(_) => [(BgpMessage::UnknownPool(vec!["wan"]), "UnknownPool", "spec.ipAddressPools: IPAddressPool wan does not exist: create it, or remove the name. The other selected pools are announced")],
        BgpMessage::UnknownPeer(_) => [(BgpMessage::UnknownPeer(vec!["tor1"]), "UnknownPeer", "spec.peers: BGPPeer tor1 does not exist: create it, or remove the name. The other peers are served")],
        BgpMessage::TooWide { .. } => [
            (BgpMessage::TooWide { family: Family::V4, length: 23, pool: "lan", shortest: 24 }, "TooWide", "spec.aggregationLength: a prefix of 23 bits is wider than IPAddressPool lan and would attract traffic for other addresses, so the pool is not announced: write 24 or more"),
            (BgpMessage::TooWide { family: Family::V6, length: 119, pool: "lan", shortest: 120 }, "TooWide", "spec.aggregationLengthV6: a prefix of 119 bits is wider than IPAddressPool lan and would attract traffic for other addresses, so the pool is not announced: write 120 or more"),
        ],
        BgpMessage::Conflict { .. } => [
            (BgpMessage::Conflict { fields: vec!["spec.localPref", "spec.med"], older: "all" }, "Conflict", "spec.localPref, spec.med: BGPAdvertisement all, which is older, announces the same prefixes with another value, and takes precedence for peers of both: write the same value, or select other pools, peers or nodes")
        ],
    );
    use BgpAdvertisementProblem as Problem;
    fn problem(problem: &Problem) -> (String, String) {
        condition(&BgpMessage::Problem(problem))
    }
    table!(Problem, problem;
        Problem::Length { .. } => [
            (Problem::Length { field: "aggregationLength", length: 33, max: 32 }, "BadLength", "spec.aggregationLength is 33: write 1 to 32")
        ],
        Problem::SelectorsWithAggregation => [(Problem::SelectorsWithAggregation, "BadLength", "spec.serviceSelectors and an aggregation length are both set, and a prefix also covers Services that are not selected: remove one of them")],
        Problem::DuplicateCommunity(_) => [(Problem::DuplicateCommunity("64512:1".into()), "BadCommunity", "spec.communities: \"64512:1\" occurs twice: write it once")],
        Problem::Selector(_) => [(Problem::Selector(SELECTOR_PROBLEM.into()), "BadSelector", "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist")],
        Problem::Unreadable(_) => [(Problem::Unreadable("no".into()), "Unreadable", "the object cannot be read: no. Apply the CRDs of this version")],
    );
}

#[test]
fn every_validity_of_a_bgp_peer_has_its_message() {
    table!(PeerMessage<'static>, condition;
        PeerMessage::Valid => [(PeerMessage::Valid, "Valid", "nodes can establish sessions with this router")],
        PeerMessage::GracefulRestartWithBfd => [
            (PeerMessage::GracefulRestartWithBfd, "GracefulRestartWithBFD", "spec.enableGracefulRestart and spec.bfdProfile can conflict: BFD ends with gobgpd, and the router may then drop the routes at once (BIRD without `bfd graceful` does, FRR does not). Check the router, or remove one of them")
        ],
        PeerMessage::Problem(_) => [(PeerMessage::Problem(&BgpPeerProblem::MyAsn), "BadASN", "spec.myASN is 0: write the AS number of the nodes")],
        PeerMessage::Secret { .. } => [(
            PeerMessage::Secret { node: "n1", why: "spec.passwordSecret: Secret tor1 does not exist" },
            "BadSecret",
            "spec.passwordSecret: Secret tor1 does not exist (reported by node n1)"
        )],
        PeerMessage::Conflict(PeerConflict::Router(_)) => [
            (PeerMessage::Conflict(Box::leak(Box::new(PeerConflict::Router("tor1".into())))), "Conflict", "BGPPeer tor1, which is older, selects the same router on a common node: remove one of them, or change spec.nodeSelectors")
        ],
        PeerMessage::Conflict(PeerConflict::MyAsn { .. }) => [(
            PeerMessage::Conflict(Box::leak(Box::new(PeerConflict::MyAsn { other: "tor1".into(), asn: 64512 }))),
            "Conflict",
            "spec.myASN: BGPPeer tor1, which is older, has 64512 on a common node: write the same, and spec.localASN for another AS towards one router"
        )],
        PeerMessage::Conflict(PeerConflict::RouterId { .. }) => [(
            PeerMessage::Conflict(Box::leak(Box::new(PeerConflict::RouterId { other: "tor1".into(), id: None }))),
            "Conflict",
            "spec.routerID: BGPPeer tor1, which is older, has none on a common node: write the same"
        )],
        PeerMessage::Bfd(BfdUnavailable::MultiHop) => [(PeerMessage::Bfd(BfdUnavailable::MultiHop), "Unsupported", "spec.bfdProfile: BFD is off, because GoBGP does not support it with spec.ebgpMultiHop: remove one of them")],
        PeerMessage::Bfd(BfdUnavailable::Unknown(_)) => [
            (PeerMessage::Bfd(BfdUnavailable::Unknown("fast".into())), "UnknownBFDProfile", "spec.bfdProfile: BFD is off, because BFDProfile fast does not exist: create it, or remove the name")
        ],
        PeerMessage::Bfd(BfdUnavailable::Profile { .. }) => [(
            PeerMessage::Bfd(BfdUnavailable::Profile {
                name: "fast".into(),
                why: BfdProfileProblem::Unsupported("echoMode"),
            }),
            "BadBFDProfile",
            "spec.bfdProfile: BFD is off, because BFDProfile fast is invalid: spec.echoMode: GoBGP's BFD does not support it: remove it"
        )],
    );
}

fn problem(problem: &BgpPeerProblem) -> (String, String) {
    condition(&PeerMessage::Problem(problem))
}

#[test]
fn every_problem_of_a_bgp_peer_has_its_message() {
    use BgpPeerProblem as Problem;
    table!(Problem, problem;
        Problem::MyAsn => [(Problem::MyAsn, "BadASN", "spec.myASN is 0: write the AS number of the nodes")],
        Problem::PeerAsn => [(Problem::PeerAsn, "BadASN", "none or both of spec.peerASN and spec.dynamicASN are set: write one of them")],
        Problem::Location => [(Problem::Location, "BadAddress", "none or both of spec.peerAddress and spec.interface are set: write one of them")],
        Problem::Address { .. } => [
            (Problem::Address { field: "peerAddress", text: "tor".into(), what: "IPv4 or IPv6" }, "BadAddress", "spec.peerAddress is \"tor\": write an IPv4 or IPv6 address")
        ],
        Problem::SourceFamily => [(Problem::SourceFamily, "BadAddress", "spec.sourceAddress and spec.peerAddress are of different families: write two of the same family")],
        Problem::Duration { .. } => [(Problem::Duration { field: "holdTime", text: "1s".into(), min: 3 }, "BadTime", "spec.holdTime is \"1s\": write whole seconds from 3s to 65535s")],
        Problem::Keepalive => [(Problem::Keepalive, "BadTime", "spec.keepaliveTime is longer than spec.holdTime: write a shorter one")],
        Problem::MultiHop => [(Problem::MultiHop, "BadHops", "spec.ebgpMultiHop is for external peers, and spec.peerASN is spec.myASN: remove it")],
        Problem::MultiHopWithTtlSecurity => [(Problem::MultiHopWithTtlSecurity, "BadHops", "spec.ebgpMultiHop and spec.ttlSecurityHops are both set: remove one of them")],
        Problem::TwoPasswords => [(Problem::TwoPasswords, "BadPassword", "spec.password and spec.passwordSecret are both set: remove one of them")],
        Problem::PasswordTooLong => [(Problem::PasswordTooLong, "BadPassword", "spec.password is longer than 80 bytes: write a shorter one")],
        Problem::SecretNamespace(_) => [(Problem::SecretNamespace("default".into()), "BadSecret", "spec.passwordSecret.namespace is \"default\", and FerroLB reads Secrets of its own namespace only: move the Secret, and remove the field")],
        Problem::Vrf => [(Problem::Vrf, "Unsupported", "spec.vrf: GoBGP does not support sessions in a VRF: remove it")],
        Problem::Selector(_) => [(Problem::Selector(SELECTOR_PROBLEM.into()), "BadSelector", "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist")],
        Problem::Unreadable(_) => [(Problem::Unreadable("no".into()), "Unreadable", "the object cannot be read: no. Apply the CRDs of this version")],
    );
}

#[test]
fn every_state_of_the_sessions_has_its_message() {
    let reported = |node, why| NodeSession { node, why: SessionProblem::Reported(why) };
    let why = "no connection to the router: check the route to it, and that it listens on port 179";
    table!(SessionMessage<'static>, condition;
        SessionMessage::Established => [(SessionMessage::Established, "Established", "session established on all selected nodes")],
        SessionMessage::NoBfd(_) => [(
            SessionMessage::NoBfd(vec![reported("n1", "BFD is not up: the router receives no packets of this node")]),
            "NoBFD",
            "session established on all selected nodes, but BFD is not up on n1; n1: BFD is not up: the router receives no packets of this node"
        )],
        SessionMessage::NoSession(_) => [
            (SessionMessage::NoSession(vec![reported("n1", why), reported("n2", why)]), "NoSession", "no session on n1, n2; n1: no connection to the router: check the route to it, and that it listens on port 179"),
            (SessionMessage::NoSession(vec![reported("n1", "")]), "NoSession", "no session on n1; n1: the speaker has not reported a cause yet"),
            (
                SessionMessage::NoSession(vec![NodeSession { node: "n1", why: SessionProblem::SpeakerNotRunning }]),
                "NoSession",
                "no session on n1; n1: its speaker does not run. See `kubectl describe node n1`"
            ),
        ],
    );
}
