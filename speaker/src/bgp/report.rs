//! How sessions stand, from what gobgpd tells and counts. Pure.
//!
//! GoBGP 4.8 tells no client why a session does not come about or has ended. What it counts tells it apart: how many OPENs and
//! NOTIFICATIONs went either way.

use ferrolb_proto::api::BgpSessionState;
use gobgp_proto as api;
use gobgp_proto::peer_state::SessionState as Told;

use crate::event::SessionReport;
use crate::metrics::{BfdCounts, SessionCounts};

/// How a session stands that is in gobgpd.
pub(super) fn session_report(is: &api::Peer, asked: &api::Peer, own_asn: u32) -> SessionReport {
    let told = is.state.clone().unwrap_or_default();
    let state = match told.session_state() {
        Told::Unspecified | Told::Idle => BgpSessionState::Idle,
        Told::Connect => BgpSessionState::Connect,
        Told::Active => BgpSessionState::Active,
        Told::Opensent => BgpSessionState::OpenSent,
        Told::Openconfirm => BgpSessionState::OpenConfirm,
        Told::Established => BgpSessionState::Established,
    };
    let established = state == BgpSessionState::Established;
    let uptime = is.timers.as_ref().and_then(|timers| timers.state.as_ref()?.uptime);
    let (address, _zone) = told.neighbor_address.split_once('%').unwrap_or((&told.neighbor_address, ""));
    SessionReport {
        state,
        since: uptime.filter(|_| established).map(|since| since.seconds),
        address: address.parse().ok(),
        asn: Some(told.peer_asn).filter(|asn| established && *asn != 0),
        problem: (!established).then(|| problem(&told, asked, own_asn)),
    }
}

/// What is counted of a session.
pub(super) fn session_counts(is: &api::Peer) -> SessionCounts {
    let told = is.state.clone().unwrap_or_default();
    let messages = told.messages.unwrap_or_default();
    let bfd = |state: api::BfdPeerState| {
        let packets = state.bfd_async.unwrap_or_default();
        let up = state.session_state() == api::BfdSessionState::Up;
        BfdCounts { up, received: packets.received_packets, sent: packets.transmitted_packets }
    };
    SessionCounts {
        received: messages.received.unwrap_or_default(),
        sent: messages.sent.unwrap_or_default(),
        received_prefixes: is.afi_safis.iter().filter_map(|family| family.state).map(|state| state.received).sum(),
        // It has a state of BFD where there is none, too.
        bfd: told.bfd_state.filter(|_| is.bfd.is_some_and(|bfd| bfd.enabled)).map(bfd),
    }
}

/// The likeliest reason that there is no session.
fn problem(told: &api::PeerState, asked: &api::Peer, own_asn: u32) -> Box<str> {
    let conf = asked.conf.clone().unwrap_or_default();
    let own = if conf.local_asn == 0 { own_asn } else { conf.local_asn };
    let messages = told.messages.unwrap_or_default();
    let (received, sent) = (messages.received.unwrap_or_default(), messages.sent.unwrap_or_default());
    let port = asked.transport.as_ref().map_or(0, |transport| transport.remote_port);
    let password = if conf.auth_password.is_empty() { "" } else { ", and with this password" };
    if received.notification > 0 {
        format!("the router refused the session, or ended it: is {own} the AS that it expects of this node?").into()
    } else if sent.notification > 0 && received.open == 0 {
        format!(
            "who listens on port {port} sent nothing that is an OPEN of BGP, and the session was ended: is it a router?"
        )
        .into()
    } else if sent.notification > 0 {
        format!("this node refused the router's OPEN, or heard nothing for the hold time: is its AS {}?", conf.peer_asn)
            .into()
    } else if sent.open > 0 {
        "the router takes the connection and says nothing: does it know this node, and is TTL security asked for at both ends or at none?"
            .into()
    } else {
        format!("no connection to the router: does it listen on port {port}{password}?").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(password: &str) -> api::Peer {
        let conf = api::PeerConf { peer_asn: 64513, auth_password: password.to_owned(), ..api::PeerConf::default() };
        let transport = api::Transport { remote_port: 179, ..api::Transport::default() };
        api::Peer { conf: Some(conf), transport: Some(transport), ..api::Peer::default() }
    }

    fn session(state: Told, sent: api::Message, received: api::Message, password: &str) -> SessionReport {
        let uptime = Some(api::Time { seconds: 7, nanos: 0 });
        let is = api::Peer {
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
        session_report(&is, &asked(password), 64512)
    }

    #[test]
    fn an_established_session_says_since_when_and_with_whom() {
        let none = api::Message::default();
        let report = session(Told::Established, none, none, "");
        assert_eq!((report.state, report.since, report.asn), (BgpSessionState::Established, Some(7), Some(64513)));
        assert_eq!((report.address, report.problem), ("fe80::1".parse().ok(), None));
    }

    #[test]
    fn what_went_either_way_tells_why_there_is_no_session() {
        let none = api::Message::default();
        let (open, refusal) = (api::Message { open: 1, ..none }, api::Message { open: 1, notification: 1, ..none });
        for (sent, received, password, why) in [
            (none, none, "", "does it listen on port 179?"),
            (none, none, "hush", "port 179, and with this password?"),
            (open, none, "", "says nothing"),
            (refusal, open, "", "is its AS 64513?"),
            (refusal, none, "", "port 179 sent nothing that is an OPEN"),
            (open, refusal, "", "is 64512 the AS that it expects"),
        ] {
            let report = session(Told::Active, sent, received, password);
            let problem = report.problem.as_deref().unwrap_or_default();
            assert!(problem.contains(why), "{problem}");
            assert_eq!((report.state, report.since, report.asn), (BgpSessionState::Active, None, None));
        }
    }

    #[test]
    fn what_gobgpd_counts_is_told_and_of_bfd_only_where_it_is_on() {
        let (received, sent) = (
            api::Message { update: 1, ..api::Message::default() },
            api::Message { update: 2, ..api::Message::default() },
        );
        let family = |received| api::AfiSafi { state: Some(api::AfiSafiState { received }), ..api::AfiSafi::default() };
        let packets = api::BfdAsyncCounters { received_packets: 3, transmitted_packets: 4 };
        let session_state = api::BfdSessionState::Up as i32;
        let is = api::Peer {
            state: Some(api::PeerState {
                messages: Some(api::Messages { received: Some(received), sent: Some(sent) }),
                bfd_state: Some(api::BfdPeerState { session_state, bfd_async: Some(packets) }),
                ..api::PeerState::default()
            }),
            afi_safis: vec![family(5), family(6)],
            ..api::Peer::default()
        };
        let plain = SessionCounts { received, sent, received_prefixes: 11, bfd: None };
        assert_eq!(session_counts(&is), plain);
        let watched =
            api::Peer { bfd: Some(api::BfdPeerConfig { enabled: true, ..api::BfdPeerConfig::default() }), ..is };
        let bfd = Some(BfdCounts { up: true, received: 3, sent: 4 });
        assert_eq!(session_counts(&watched), SessionCounts { bfd, ..plain });
        assert_eq!(session_counts(&api::Peer::default()), SessionCounts::default());
    }
}
