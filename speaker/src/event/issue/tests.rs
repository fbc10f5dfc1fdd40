//! Every issue of a session and of a node, with its reason and its message.

use ferrolb_proto::facts::BfdProfileProblem;

use super::*;

/// Does not compile while a variant is missing here; each has a row in the test.
const fn exhaustive(issue: &SessionIssue) {
    match issue {
        SessionIssue::EndedByRouter
        | SessionIssue::EndedByNode
        | SessionIssue::RejectedByRouter { .. }
        | SessionIssue::NotBgp { .. }
        | SessionIssue::OpenRejected { .. }
        | SessionIssue::NoOpen
        | SessionIssue::NoConnection { .. }
        | SessionIssue::BfdPortInUse
        | SessionIssue::BfdNoPackets
        | SessionIssue::BfdOneWay
        | SessionIssue::TooManyPrefixes
        | SessionIssue::OwnAsn(_)
        | SessionIssue::RejectedByGobgp(_)
        | SessionIssue::BfdRejectedByGobgp(_)
        | SessionIssue::GobgpUnavailable(_)
        | SessionIssue::PasswordUnavailable { .. }
        | SessionIssue::BfdProfile(
            BfdUnavailable::MultiHop | BfdUnavailable::Unknown(_) | BfdUnavailable::Profile { .. },
        ) => {}
    }
}

/// An issue, its reason, and its message.
type Row = (SessionIssue, &'static str, &'static str);

/// Returns the issues of the connection and of the router.
fn router_issues() -> Vec<Row> {
    use SessionIssue as Issue;
    vec![
        (
            Issue::EndedByRouter,
            "EndedByRouter",
            "the router ended the session and has not opened a new one: check its configuration and its log",
        ),
        (
            Issue::EndedByNode,
            "EndedByNode",
            "this node ended the session, because the hold time expired or BFD reported the router as down: check the network to the router",
        ),
        (
            Issue::RejectedByRouter { own_asn: 64512 },
            "RejectedByRouter",
            "the router rejected or ended the session: check that it expects AS 64512 from this node",
        ),
        (
            Issue::NotBgp { port: 179 },
            "NotBGP",
            "the host on port 179 did not send a BGP OPEN: check that spec.peerAddress and spec.peerPort are those of a BGP router",
        ),
        (
            Issue::OpenRejected { peer_asn: 64513 },
            "OpenRejected",
            "this node rejected the router's OPEN, or the hold time expired: check that the router's AS is 64513",
        ),
        (
            Issue::NoOpen,
            "NoOpen",
            "the router accepts the connection and sends no OPEN: check that it knows this node, and that TTL security is configured at both ends or at neither",
        ),
        (
            Issue::NoConnection { port: 179, password: false },
            "NoConnection",
            "no connection to the router: check the route to it, and that it listens on port 179 without a password",
        ),
        (
            Issue::NoConnection { port: 179, password: true },
            "NoConnection",
            "no connection to the router: check the route to it, and that it listens on port 179 with this password",
        ),
        (
            Issue::TooManyPrefixes,
            "TooManyPrefixes",
            "the router has sent more than 50000 prefixes, which gobgpd keeps in memory and FerroLB does not use: configure the router to send none (docs/bgp.md)",
        ),
        (
            Issue::OwnAsn(64512),
            "OwnASN",
            "the router has the AS of this node, 64512: set spec.dynamicASN to internal, or set spec.peerASN",
        ),
    ]
}

/// Returns the issues of gobgpd and of the password.
fn gobgp_issues() -> Vec<Row> {
    use SessionIssue as Issue;
    let why = || "Secret tor1 does not exist: create it with type kubernetes.io/basic-auth".into();
    vec![
        (
            Issue::RejectedByGobgp("invalid ttl".into()),
            "RejectedByGoBGP",
            "gobgpd rejected the session: invalid ttl",
        ),
        (
            Issue::GobgpUnavailable("gobgpd is GoBGP/4.6".into()),
            "GoBGPUnavailable",
            "gobgpd is GoBGP/4.6",
        ),
        (
            Issue::PasswordUnavailable { why: why(), continues: false },
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 does not exist: create it with type kubernetes.io/basic-auth",
        ),
        (
            Issue::PasswordUnavailable { why: why(), continues: true },
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 does not exist: create it with type kubernetes.io/basic-auth; until then the session continues with the last password",
        ),
    ]
}

fn bfd_issues() -> Vec<Row> {
    use SessionIssue as Issue;
    let echo = BfdProfileProblem::Unsupported("echoMode");
    vec![
        (
            Issue::BfdPortInUse,
            "BFDPortInUse",
            "BFD is not up: another program on this node uses UDP port 3784. Stop the BFD of that program (FRR's bfdd, BIRD)",
        ),
        (
            Issue::BfdNoPackets,
            "BFDNoPackets",
            "BFD is not up: no packets from the router. Check that BFD is enabled there, that UDP port 3784 is open, and that no other program on this node uses it (ss -ulnp)",
        ),
        (
            Issue::BfdOneWay,
            "BFDOneWay",
            "BFD is not up: the router receives no packets from this node. Check that UDP port 3784 is open there",
        ),
        (
            Issue::BfdRejectedByGobgp("no such option".into()),
            "BFDRejectedByGoBGP",
            "BFD is off: gobgpd rejected it: no such option",
        ),
        (
            Issue::BfdProfile(BfdUnavailable::MultiHop),
            "Unsupported",
            "spec.bfdProfile: BFD is off, because GoBGP does not support it with spec.ebgpMultiHop: remove one of them",
        ),
        (
            Issue::BfdProfile(BfdUnavailable::Unknown("fast".into())),
            "UnknownBFDProfile",
            "spec.bfdProfile: BFD is off, because BFDProfile fast does not exist: create it, or remove the name",
        ),
        (
            Issue::BfdProfile(BfdUnavailable::Profile { name: "fast".into(), why: echo }),
            "BadBFDProfile",
            "spec.bfdProfile: BFD is off, because BFDProfile fast is invalid: spec.echoMode: GoBGP's BFD does not support it: remove it",
        ),
    ]
}

#[test]
fn every_issue_of_a_session_has_its_message() {
    let rows = [router_issues(), gobgp_issues(), bfd_issues()].into_iter().flatten();
    for (issue, reason, text) in rows {
        exhaustive(&issue);
        assert_eq!((issue.reason(), issue.to_string().as_str()), (reason, text));
        assert!(!text.ends_with('.') && text.len() <= 250, "{text}");
    }
}

#[test]
fn too_many_attributes_are_an_issue_of_the_node() {
    assert_eq!(too_many_attributes(0, 1_000), None);
    let issue = too_many_attributes(3, 1_000).unwrap();
    assert_eq!(issue.reason, "TooManyAttributes");
    assert_eq!(
        issue.message,
        "3 prefixes are not advertised: the BGPAdvertisements result in more than 1000 different sets of attributes on this node, counted once for all peers that receive the same. Use the same attributes for more prefixes or more peers"
    );
}
