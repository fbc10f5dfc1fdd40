//! How sessions stand, from what gobgpd tells and counts. Pure.
//!
//! GoBGP 4.8 tells no client why a session does not come about or has ended. What it counts tells it apart: how many OPENs and
//! NOTIFICATIONs went either way.

use gobgp_proto as api;
use gobgp_proto::peer_state::SessionState as Told;

use crate::event::{SessionReport, SessionState};

/// How a session stands that is in gobgpd.
pub(super) fn session_report(is: &api::Peer, asked: &api::Peer, own_asn: u32) -> SessionReport {
    let told = is.state.clone().unwrap_or_default();
    let state = match told.session_state() {
        Told::Unspecified | Told::Idle => SessionState::Idle,
        Told::Connect => SessionState::Connect,
        Told::Active => SessionState::Active,
        Told::Opensent => SessionState::OpenSent,
        Told::Openconfirm => SessionState::OpenConfirm,
        Told::Established => SessionState::Established,
    };
    let established = state == SessionState::Established;
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
    } else if sent.notification > 0 {
        format!("this node refused the router's OPEN, or heard nothing for the hold time: is its AS {}?", conf.peer_asn)
            .into()
    } else if sent.open > 0 {
        "the router takes the connection and says nothing: does it know this node?".into()
    } else {
        format!("no connection to the router: does it listen on port {port}{password}?").into()
    }
}
