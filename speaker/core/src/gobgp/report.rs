//! State and issues of sessions, derived from gobgpd's data and counters.
//!
//! GoBGP 4.8 reports to no client why a session is not established or has ended. The numbers of
//! OPENs and NOTIFICATIONs in each direction distinguish the reasons.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{BfdState, BgpSessionState};
use gobgp_proto as api;
use gobgp_proto::peer_state::SessionState as GobgpState;

use super::session_counts::received_prefix_count;
use crate::event::{BgpReport, PREFIXES_MAX, SessionIssue, SessionReport};

/// Time without a change of the message counters after which the router counts as unreachable. The
/// time of two connection attempts is added.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(10);

/// Time that BFD may take to come up after the BGP session is established. FRR 8 starts BFD 8 s
/// after the BGP session.
const BFD_UP_MAX: Duration = Duration::from_secs(15);

/// Numbers of messages in each direction since the session was most recently established, or since
/// its creation.
#[derive(Clone, Copy, Default)]
struct MessagesSince {
    sent: api::Message,
    received: api::Message,
    /// True if the session was established at least once.
    was_established: bool,
}

/// Message counters of a session, sent and received, recorded from one read to the next.
#[derive(Clone, Debug)]
pub(super) struct SessionCounters {
    /// Counters at the most recent read that found the session established, if any.
    base: Option<[api::Message; 2]>,
    last: [api::Message; 2],
    /// Time at which a counter most recently changed, or the session was most recently established.
    changed_at: Instant,
    /// Start of the current period in which the session is established and its BFD is not up.
    bfd_down_since: Option<Instant>,
}

impl SessionCounters {
    pub(super) fn new(now: Instant) -> Self {
        Self { base: None, last: Default::default(), changed_at: now, bfd_down_since: None }
    }

    /// Records the counters of a read. Returns the messages since the session was most recently
    /// established; no messages if no counter has changed for longer than `timeout`.
    fn update(
        &mut self,
        observed: &api::Peer,
        established: bool,
        now: Instant,
        timeout: Duration,
    ) -> MessagesSince {
        let messages = observed.state.as_ref().and_then(|state| state.messages).unwrap_or_default();
        let current = [messages.sent.unwrap_or_default(), messages.received.unwrap_or_default()];
        let is_new_session = current
            .iter()
            .zip(&self.last)
            .any(|(now, before)| now.open < before.open || now.total < before.total);
        if is_new_session {
            // A counter is lower than before, so the counters belong to a new session of the same
            // BGPPeer.
            self.base = None;
        }
        if established {
            self.base = Some(current);
        }
        if established || current != self.last {
            (self.last, self.changed_at) = (current, now);
        }
        if now.since(self.changed_at) > timeout {
            return MessagesSince::default();
        }
        let base = self.base.unwrap_or_default();
        let since = |direction: usize| api::Message {
            open: current[direction].open.saturating_sub(base[direction].open),
            notification: current[direction]
                .notification
                .saturating_sub(base[direction].notification),
            ..api::Message::default()
        };
        MessagesSince { sent: since(0), received: since(1), was_established: self.base.is_some() }
    }
}

/// Returns the state of a session in gobgpd. `port_taken` is true if another program on the node
/// uses the BFD port.
pub(super) fn session_report(
    observed: &api::Peer,
    desired: &api::Peer,
    own_asn: u32,
    counters: &mut SessionCounters,
    (now, port_taken): (Instant, bool),
) -> SessionReport {
    let peer_state = observed.state.clone().unwrap_or_default();
    let state = match peer_state.session_state() {
        GobgpState::Unspecified | GobgpState::Idle => BgpSessionState::Idle,
        GobgpState::Connect => BgpSessionState::Connect,
        GobgpState::Active => BgpSessionState::Active,
        GobgpState::Opensent => BgpSessionState::OpenSent,
        GobgpState::Openconfirm => BgpSessionState::OpenConfirm,
        GobgpState::Established => BgpSessionState::Established,
    };
    let established = state == BgpSessionState::Established;
    let uptime = observed.timers.as_ref().and_then(|timers| timers.state.as_ref()?.uptime);
    let retry = desired
        .timers
        .as_ref()
        .and_then(|timers| timers.config)
        .map_or(0, |config| config.connect_retry);
    let messages = counters.update(
        observed,
        established,
        now,
        UNREACHABLE_AFTER + 2 * Duration::from_secs(retry),
    );
    let bfd = observed.bfd.filter(|bfd| bfd.enabled && established).map(|_| bfd_state(&peer_state));
    counters.bfd_down_since =
        bfd.filter(|bfd| *bfd != BfdState::Up).map(|_| counters.bfd_down_since.unwrap_or(now));
    let issue_of_bfd = bfd_issue(counters.bfd_down_since, &peer_state, port_taken, now);
    let (address, _zone) =
        peer_state.neighbor_address.split_once('%').unwrap_or((&peer_state.neighbor_address, ""));
    SessionReport {
        state,
        since: uptime.filter(|_| established).map(|since| since.seconds),
        address: address.parse().ok(),
        asn: Some(peer_state.peer_asn).filter(|asn| established && *asn != 0),
        bfd,
        issue: if established {
            issue_of_bfd.or_else(|| prefix_issue(observed))
        } else {
            Some(session_issue(messages, desired, own_asn))
        },
    }
}

/// Returns an issue if the router sends so many prefixes that gobgpd may run out of memory.
fn prefix_issue(observed: &api::Peer) -> Option<SessionIssue> {
    (received_prefix_count(observed) > PREFIXES_MAX).then_some(SessionIssue::TooManyPrefixes)
}

/// Returns the BFD state of a session.
fn bfd_state(peer_state: &api::PeerState) -> BfdState {
    match peer_state.bfd_state.unwrap_or_default().session_state() {
        api::BfdSessionState::Unspecified | api::BfdSessionState::Down => BfdState::Down,
        api::BfdSessionState::AdminDown => BfdState::AdminDown,
        api::BfdSessionState::Init => BfdState::Init,
        api::BfdSessionState::Up => BfdState::Up,
    }
}

/// Returns the likeliest reason why BFD is not up: immediately if another program uses the BFD
/// port, otherwise after [`BFD_UP_MAX`].
fn bfd_issue(
    since: Option<Instant>,
    peer_state: &api::PeerState,
    port_taken: bool,
    now: Instant,
) -> Option<SessionIssue> {
    let since = since?;
    let packets = peer_state.bfd_state.and_then(|state| state.bfd_async).unwrap_or_default();
    if port_taken {
        return Some(SessionIssue::BfdPortInUse);
    }
    if now.since(since) < BFD_UP_MAX {
        return None;
    }
    Some(if packets.received_packets == 0 {
        SessionIssue::BfdNoPackets
    } else {
        SessionIssue::BfdOneWay
    })
}

/// Returns the sessions that were established or lost since the report `before`, by the names of
/// their BGPPeers, for the log. A lost session has the reason for its loss, an established session
/// has none.
pub(super) fn transitions<'r>(
    before: Option<&BgpReport>,
    now: &'r BgpReport,
) -> Vec<(&'r str, Option<String>)> {
    let is_established = |session: &SessionReport| session.state == BgpSessionState::Established;
    let was_established = |name: &str| {
        before.and_then(|before| before.sessions.get(name)).is_some_and(is_established)
    };
    let changed = now
        .sessions
        .iter()
        .filter(|(name, session)| is_established(session) != was_established(name));
    let reason = |session: &SessionReport| {
        session.issue.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    changed
        .map(|(name, session)| (&**name, (!is_established(session)).then(|| reason(session))))
        .collect()
}

/// Returns the likeliest reason why a session is not established.
fn session_issue(messages: MessagesSince, desired: &api::Peer, own_asn: u32) -> SessionIssue {
    let conf = desired.conf.clone().unwrap_or_default();
    let MessagesSince { sent, received, was_established } = messages;
    let port = desired.transport.as_ref().map_or(0, |transport| transport.remote_port);
    let own_asn = if conf.local_asn == 0 { own_asn } else { conf.local_asn };
    if was_established && received.open == 0 && received.notification > 0 {
        SessionIssue::EndedByRouter
    } else if was_established && received.open == 0 && sent.notification > 0 {
        SessionIssue::EndedByNode
    } else if received.notification > 0 {
        SessionIssue::RejectedByRouter { own_asn }
    } else if sent.notification > 0 && received.open == 0 {
        SessionIssue::NotBgp { port }
    } else if sent.notification > 0 {
        SessionIssue::OpenRejected { peer_asn: conf.peer_asn }
    } else if sent.open > 0 {
        SessionIssue::NoOpen { own_asn }
    } else {
        SessionIssue::NoConnection { port, password: !conf.auth_password.is_empty() }
    }
}

#[cfg(test)]
mod tests;
