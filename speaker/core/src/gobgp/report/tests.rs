//! Reports of sessions, from the counters that gobgpd would return.

use super::super::session_counts::{BfdCounts, SessionCounts, session_counts};
use super::*;

const BFD: api::BfdPeerConfig = api::BfdPeerConfig {
    enabled: true,
    port: 3784,
    desired_minimum_tx_interval: 300_000,
    required_minimum_receive: 300_000,
    detection_multiplier: 3,
};

fn desired_peer(password: &str) -> api::Peer {
    let conf = api::PeerConf {
        peer_asn: 64513,
        auth_password: password.to_owned(),
        ..api::PeerConf::default()
    };
    let transport = api::Transport { remote_port: 179, ..api::Transport::default() };
    api::Peer { conf: Some(conf), transport: Some(transport), ..api::Peer::default() }
}

fn session(
    state: GobgpState,
    sent: api::Message,
    received: api::Message,
    password: &str,
) -> SessionReport {
    let uptime = Some(api::Time { seconds: 7, nanos: 0 });
    let observed = api::Peer {
        state: Some(api::PeerState {
            peer_asn: 64513,
            neighbor_address: "fe80::1%eth0".to_owned(),
            session_state: state as i32,
            messages: Some(api::Messages { received: Some(received), sent: Some(sent) }),
            ..api::PeerState::default()
        }),
        timers: Some(api::Timers { config: None, state: Some(api::TimersState { uptime }) }),
        ..api::Peer::default()
    };
    session_report(
        &observed,
        &desired_peer(password),
        64512,
        &mut SessionCounters::new(Instant::ZERO),
        (Instant::ZERO, false),
    )
}

#[test]
fn an_established_session_reports_its_uptime_and_router() {
    let none = api::Message::default();
    let report = session(GobgpState::Established, none, none, "");
    assert_eq!(
        (report.state, report.since, report.asn),
        (BgpSessionState::Established, Some(7), Some(64513))
    );
    assert_eq!((report.address, report.issue), ("fe80::1".parse().ok(), None));
}

#[test]
fn a_router_that_sends_too_many_prefixes_is_an_issue() {
    let issue = |state: GobgpState, received: u64| {
        let family =
            api::AfiSafi { state: Some(api::AfiSafiState { received }), ..api::AfiSafi::default() };
        let state = api::PeerState { session_state: state as i32, ..api::PeerState::default() };
        let observed = api::Peer {
            state: Some(state),
            afi_safis: vec![family, family],
            ..api::Peer::default()
        };
        let (mut counters, now) = (SessionCounters::new(Instant::ZERO), (Instant::ZERO, false));
        session_report(&observed, &desired_peer(""), 64512, &mut counters, now).issue
    };
    assert_eq!(issue(GobgpState::Established, 25_000), None);
    assert_eq!(issue(GobgpState::Established, 25_001), Some(SessionIssue::TooManyPrefixes));
    let no_connection = SessionIssue::NoConnection { port: 179, password: false };
    assert_eq!(
        issue(GobgpState::Active, 25_001),
        Some(no_connection),
        "the issue of the connection precedes that of the prefixes"
    );
}

#[test]
fn message_counters_determine_the_issue_of_a_session() {
    let none = api::Message::default();
    let (open, refusal) =
        (api::Message { open: 1, ..none }, api::Message { open: 1, notification: 1, ..none });
    for (sent, received, password, issue) in [
        (none, none, "", SessionIssue::NoConnection { port: 179, password: false }),
        (none, none, "hush", SessionIssue::NoConnection { port: 179, password: true }),
        (open, none, "", SessionIssue::NoOpen { own_asn: 64512 }),
        (refusal, open, "", SessionIssue::OpenRejected { peer_asn: 64513 }),
        (refusal, none, "", SessionIssue::NotBgp { port: 179 }),
        (open, refusal, "", SessionIssue::RejectedByRouter { own_asn: 64512 }),
    ] {
        let report = session(GobgpState::Active, sent, received, password);
        assert_eq!(report.issue, Some(issue));
        assert_eq!((report.state, report.since, report.asn), (BgpSessionState::Active, None, None));
    }
}

#[test]
fn an_issue_ends_with_the_next_session_or_a_timeout() {
    let observed_with_counters = |state: GobgpState, sent: [u64; 2], received: [u64; 2]| {
        let message = |[open, notification]: [u64; 2]| api::Message {
            open,
            notification,
            ..api::Message::default()
        };
        let messages =
            api::Messages { sent: Some(message(sent)), received: Some(message(received)) };
        let state = api::PeerState {
            session_state: state as i32,
            messages: Some(messages),
            ..api::PeerState::default()
        };
        api::Peer { state: Some(state), ..api::Peer::default() }
    };
    let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
    let mut counters = SessionCounters::new(at(0));
    let mut issue_at = |observed: api::Peer, seconds: u64| {
        session_report(&observed, &desired_peer(""), 64512, &mut counters, (at(seconds), false))
            .issue
    };
    // The router rejects the session once, then accepts it, ends it, and disappears.
    let rejected = Some(SessionIssue::RejectedByRouter { own_asn: 64512 });
    let no_connection = Some(SessionIssue::NoConnection { port: 179, password: false });
    assert_eq!(issue_at(observed_with_counters(GobgpState::Active, [1, 0], [1, 1]), 0), rejected);
    assert_eq!(issue_at(observed_with_counters(GobgpState::Established, [2, 0], [2, 1]), 5), None);
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [2, 0], [2, 2]), 6),
        Some(SessionIssue::EndedByRouter)
    );
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [2, 0], [2, 2]), 16),
        Some(SessionIssue::EndedByRouter)
    );
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [2, 0], [2, 2]), 17),
        no_connection,
        "the counters have not changed for 11 s"
    );
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [3, 0], [3, 3]), 18),
        rejected,
        "the router runs again, and rejects the session"
    );
    assert_eq!(issue_at(observed_with_counters(GobgpState::Established, [4, 0], [4, 3]), 20), None);
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [4, 1], [4, 3]), 24),
        Some(SessionIssue::EndedByNode)
    );
    // Lower counters belong to a new session.
    assert_eq!(
        issue_at(observed_with_counters(GobgpState::Active, [1, 0], [0, 0]), 25),
        Some(SessionIssue::NoOpen { own_asn: 64512 })
    );
}

#[test]
fn each_transition_of_a_session_is_reported_once() {
    let report = |state, issue| {
        let session = SessionReport { state, issue, ..SessionReport::default() };
        BgpReport { sessions: [("tor".into(), session)].into(), ..BgpReport::default() }
    };
    let (up, down) = (
        report(BgpSessionState::Established, None),
        report(BgpSessionState::Active, Some(SessionIssue::NoOpen { own_asn: 64512 })),
    );
    assert_eq!(transitions(None, &down), [], "the session was never established");
    assert_eq!(transitions(Some(&down), &up), [("tor", None)]);
    assert_eq!(transitions(None, &up), [("tor", None)]);
    assert_eq!(transitions(Some(&up), &up), []);
    assert_eq!(
        transitions(Some(&up), &down),
        [("tor", Some(SessionIssue::NoOpen { own_asn: 64512 }.to_string()))]
    );
}

#[test]
fn counts_include_bfd_only_if_it_is_configured() {
    let (received, sent) = (
        api::Message { update: 1, ..api::Message::default() },
        api::Message { update: 2, ..api::Message::default() },
    );
    let family = |received| api::AfiSafi {
        state: Some(api::AfiSafiState { received }),
        ..api::AfiSafi::default()
    };
    let packets = api::BfdAsyncCounters { received_packets: 3, transmitted_packets: 4 };
    let session_state = api::BfdSessionState::Up as i32;
    let observed = api::Peer {
        state: Some(api::PeerState {
            messages: Some(api::Messages { received: Some(received), sent: Some(sent) }),
            bfd_state: Some(api::BfdPeerState { session_state, bfd_async: Some(packets) }),
            ..api::PeerState::default()
        }),
        afi_safis: vec![family(5), family(6)],
        ..api::Peer::default()
    };
    let plain = SessionCounts { received, sent, received_prefixes: 11, bfd: None };
    assert_eq!(session_counts(&observed, &desired_peer("")), plain);
    let desired_with_bfd = api::Peer { bfd: Some(BFD), ..desired_peer("") };
    let bfd = Some(BfdCounts { up: true, received: 3, sent: 4 });
    assert_eq!(session_counts(&observed, &desired_with_bfd), SessionCounts { bfd, ..plain });
    assert_eq!(session_counts(&api::Peer::default(), &desired_with_bfd), SessionCounts::default());
}

#[test]
fn an_established_session_with_bfd_down_is_an_issue() {
    let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
    let mut counters = SessionCounters::new(at(0));
    let mut observe = |state: GobgpState,
                       bfd: Option<api::BfdSessionState>,
                       received_packets,
                       seconds,
                       port_taken| {
        let packets =
            api::BfdAsyncCounters { received_packets, ..api::BfdAsyncCounters::default() };
        let bfd_state = api::BfdPeerState {
            session_state: bfd.unwrap_or(api::BfdSessionState::Unspecified) as i32,
            bfd_async: Some(packets),
        };
        let state = api::PeerState {
            session_state: state as i32,
            bfd_state: Some(bfd_state),
            ..api::PeerState::default()
        };
        let observed =
            api::Peer { state: Some(state), bfd: bfd.map(|_| BFD), ..api::Peer::default() };
        let report = session_report(
            &observed,
            &desired_peer(""),
            64512,
            &mut counters,
            (at(seconds), port_taken),
        );
        (report.bfd, report.issue)
    };
    use api::BfdSessionState::{Down, Init, Up};
    assert_eq!(
        observe(GobgpState::Established, None, 0, 0, true),
        (None, None),
        "the session has no BFD"
    );
    assert_eq!(
        observe(GobgpState::Established, Some(Down), 0, 1, false),
        (Some(BfdState::Down), None)
    );
    assert_eq!(
        observe(GobgpState::Established, Some(Down), 0, 2, true).1,
        Some(SessionIssue::BfdPortInUse)
    );
    assert_eq!(
        observe(GobgpState::Established, Some(Init), 1, 15, false),
        (Some(BfdState::Init), None)
    );
    assert_eq!(
        observe(GobgpState::Established, Some(Init), 1, 16, false).1,
        Some(SessionIssue::BfdOneWay)
    );
    assert_eq!(
        observe(GobgpState::Established, Some(Down), 0, 16, false).1,
        Some(SessionIssue::BfdNoPackets)
    );
    assert_eq!(observe(GobgpState::Established, Some(Up), 9, 17, true), (Some(BfdState::Up), None));
    assert_eq!(
        observe(GobgpState::Established, Some(Down), 9, 30, false).1,
        None,
        "the delay starts when BFD goes down"
    );
    assert_eq!(
        observe(GobgpState::Active, Some(Down), 9, 60, false).0,
        None,
        "BFD starts with the BGP session"
    );
    assert_eq!(observe(GobgpState::Established, Some(Down), 9, 61, false).1, None);
}
