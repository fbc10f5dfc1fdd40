//! Every issue of a session and of a node, with its reason and its message.

use ferrolb_proto::facts::BfdProfileProblem;

use super::*;

/// Lists all variants: a new variant does not compile until it is added here and to the rows.
const fn exhaustive(issue: &SessionIssue) {
    match issue {
        SessionIssue::EndedByRouter
        | SessionIssue::EndedByNode
        | SessionIssue::RejectedByRouter { .. }
        | SessionIssue::NotBgp { .. }
        | SessionIssue::OpenRejected { .. }
        | SessionIssue::NoOpen { .. }
        | SessionIssue::NoConnection { .. }
        | SessionIssue::BfdPortInUse
        | SessionIssue::BfdNoPackets
        | SessionIssue::BfdOneWay
        | SessionIssue::TooManyPrefixes
        | SessionIssue::OwnAsn(_)
        | SessionIssue::RejectedByGobgp(_)
        | SessionIssue::BfdRejectedByGobgp(_)
        | SessionIssue::GobgpUnavailable(_)
        | SessionIssue::PasswordUnavailable {
            problem:
                PasswordProblem::NoSecret
                | PasswordProblem::Type(_)
                | PasswordProblem::NoEntry
                | PasswordProblem::NotUtf8
                | PasswordProblem::TooLong
                | PasswordProblem::Empty,
            ..
        }
        | SessionIssue::Bfd(
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
            "this node rejected the router's OPEN, or the hold time expired: check that the router's AS is 64513, or correct spec.peerASN",
        ),
        (
            Issue::NoOpen { own_asn: 64500 },
            "NoOpen",
            "the router accepts the connection and sends no OPEN: check that it knows this node with the AS 64500 (spec.myASN), and that TTL security is configured at both ends or at neither",
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
            "the router has sent more than 50000 prefixes, which gobgpd keeps in memory and FerroLB does not use: configure the router to send none (docs/configure/bgp.md)",
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
    let unavailable = |problem, continues| Issue::PasswordUnavailable {
        secret: "tor1".into(),
        problem,
        continues,
    };
    vec![
        (
            Issue::RejectedByGobgp("invalid ttl".into()),
            "RejectedByGoBGP",
            "gobgpd rejected the session: invalid ttl. Change the BGPPeer, or see the log of gobgpd on this node",
        ),
        (
            Issue::GobgpUnavailable("gobgpd is GoBGP/4.6".into()),
            "GoBGPUnavailable",
            "gobgpd is GoBGP/4.6",
        ),
        (
            unavailable(PasswordProblem::NoSecret, false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 does not exist: create it with type kubernetes.io/basic-auth",
        ),
        (
            unavailable(PasswordProblem::NoSecret, true),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 does not exist: create it with type kubernetes.io/basic-auth; until then the session continues with the last password",
        ),
        (
            unavailable(PasswordProblem::Type("Opaque".into()), false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 is of type Opaque: delete it, and create it with type kubernetes.io/basic-auth",
        ),
        (
            unavailable(PasswordProblem::NoEntry, false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 has no entry `password`: add it",
        ),
        (
            unavailable(PasswordProblem::NotUtf8, false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 has a password that is not UTF-8: write it as UTF-8 text",
        ),
        (
            unavailable(PasswordProblem::TooLong, false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 has a password that is longer than 80 bytes: write a shorter one",
        ),
        (
            unavailable(PasswordProblem::Empty, false),
            "PasswordUnavailable",
            "spec.passwordSecret: Secret tor1 has an empty password: write one into the entry `password`",
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
            "BFD is off: gobgpd rejected it: no such option. Change the BFDProfile, or see the log of gobgpd on this node",
        ),
        (
            Issue::Bfd(BfdUnavailable::MultiHop),
            "Unsupported",
            "spec.bfdProfile: BFD is off, because GoBGP does not support it with spec.ebgpMultiHop: remove one of them",
        ),
        (
            Issue::Bfd(BfdUnavailable::Unknown("fast".into())),
            "UnknownBFDProfile",
            "spec.bfdProfile: BFD is off, because BFDProfile fast does not exist: create it, or remove the name",
        ),
        (
            Issue::Bfd(BfdUnavailable::Profile { name: "fast".into(), why: echo }),
            "BadBFDProfile",
            "spec.bfdProfile: BFD is off, because BFDProfile fast is invalid: spec.echoMode: GoBGP's BFD does not support it: remove it",
        ),
    ]
}

#[test]
fn every_session_issue_has_a_reason_and_a_message() {
    let rows = [router_issues(), gobgp_issues(), bfd_issues()].into_iter().flatten();
    for (issue, reason, text) in rows {
        exhaustive(&issue);
        assert_eq!((issue.reason(), issue.to_string().as_str()), (reason, text));
        assert!(!text.ends_with('.') && text.len() <= 250, "{text}");
    }
}

#[test]
fn every_issue_of_a_node_has_a_reason_and_a_message() {
    let issue = NodeIssue::TooManyAttributes { prefixes: 3, limit: 1_000 };
    // A new variant does not compile until it is added here.
    let NodeIssue::TooManyAttributes { .. } = issue;
    assert_eq!(issue.reason(), "TooManyAttributes");
    assert_eq!(
        issue.to_string(),
        "3 prefixes are not advertised: the BGPAdvertisements result in more than 1000 different sets of attributes on this node, counted once for all peers that receive the same. Use the same attributes for more prefixes or more peers"
    );
}
