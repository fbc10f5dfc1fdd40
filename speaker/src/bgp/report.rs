//! How sessions stand, from what gobgpd tells and counts. Pure.
//!
//! GoBGP 4.8 tells no client why a session does not come about or has ended. What it counts tells it apart: how many OPENs and
//! NOTIFICATIONs went either way.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{BfdState, BgpSessionState};
use gobgp_proto as api;
use gobgp_proto::peer_state::SessionState as Told;

use crate::event::{BgpReport, SessionReport};
use crate::metrics::{BfdCounts, SessionCounts};

/// Beside two of its attempts, how long nothing is counted of a session before it is taken for one that nobody answers.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the BFD of an established session may take to come up: that of FRR 8 began 8 s after the session.
const BFD_WITHIN: Duration = Duration::from_secs(15);

/// So many prefixes of a router are too many: gobgpd keeps them all, in some 40 MB.
const PREFIXES_MAX: u64 = 50_000;

const NOTHING: api::Message = api::Message { notification: 0, update: 0, open: 0, keepalive: 0, refresh: 0, total: 0 };

/// What went either way since a session was established last, or since ever.
#[derive(Clone, Copy)]
struct Happened {
    sent: api::Message,
    received: api::Message,
    /// It was established once.
    stood: bool,
}

/// What was counted of a session, sent and received, from look to look.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    /// While it was established last, if it was.
    base: Option<[api::Message; 2]>,
    last: [api::Message; 2],
    /// When something was counted last.
    moved: Instant,
    /// Since when it is established and its BFD not up.
    unwatched: Option<Instant>,
}

impl Trace {
    pub(super) const fn new(now: Instant) -> Self {
        Self { base: None, last: [NOTHING; 2], moved: now, unwatched: None }
    }

    /// What has happened; none: nothing for so long that nobody answers.
    fn look(&mut self, is: &api::Peer, established: bool, now: Instant, patience: Duration) -> Option<Happened> {
        let messages = is.state.as_ref().and_then(|state| state.messages).unwrap_or_default();
        let counted = [messages.sent.unwrap_or_default(), messages.received.unwrap_or_default()];
        let fewer =
            counted.iter().zip(&self.last).any(|(now, before)| now.open < before.open || now.total < before.total);
        if fewer {
            // Another session of the same name.
            self.base = None;
        }
        if established {
            self.base = Some(counted);
        }
        if established || counted != self.last {
            (self.last, self.moved) = (counted, now);
        }
        let base = self.base.unwrap_or([NOTHING; 2]);
        let since = |place: usize| api::Message {
            open: counted[place].open.saturating_sub(base[place].open),
            notification: counted[place].notification.saturating_sub(base[place].notification),
            ..NOTHING
        };
        let happened = Happened { sent: since(0), received: since(1), stood: self.base.is_some() };
        (now.since(self.moved) <= patience).then_some(happened)
    }
}

/// How a session stands that is in gobgpd. `port_taken`: another program of the node has the port of BFD.
pub(super) fn session_report(
    is: &api::Peer,
    asked: &api::Peer,
    own_asn: u32,
    trace: &mut Trace,
    (now, port_taken): (Instant, bool),
) -> SessionReport {
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
    let retry = asked.timers.as_ref().and_then(|timers| timers.config).map_or(0, |config| config.connect_retry);
    let happened = trace.look(is, established, now, SILENCE + 2 * Duration::from_secs(retry));
    let bfd = is.bfd.filter(|bfd| bfd.enabled && established).map(|_| bfd_state(&told));
    trace.unwatched = bfd.filter(|bfd| *bfd != BfdState::Up).map(|_| trace.unwatched.unwrap_or(now));
    let unwatched = unwatched(trace.unwatched, &told, port_taken, now);
    let (address, _zone) = told.neighbor_address.split_once('%').unwrap_or((&told.neighbor_address, ""));
    SessionReport {
        state,
        since: uptime.filter(|_| established).map(|since| since.seconds),
        address: address.parse().ok(),
        asn: Some(told.peer_asn).filter(|asn| established && *asn != 0),
        bfd,
        problem: if established { unwatched.or_else(|| crowded(is)) } else { Some(problem(happened, asked, own_asn)) },
    }
}

/// The prefixes that a router has sent.
fn received(is: &api::Peer) -> u64 {
    is.afi_safis.iter().filter_map(|family| family.state).map(|state| state.received).sum()
}

/// The router sends so much that gobgpd may run out of memory. The same words whatever the number,
/// as each new text is written.
fn crowded(is: &api::Peer) -> Option<Box<str>> {
    let why = || {
        format!(
            "the router has sent more than {PREFIXES_MAX} prefixes, which gobgpd keeps in memory and nobody uses: have it send none \
             (docs/bgp.md)"
        )
    };
    (received(is) > PREFIXES_MAX).then(|| why().into())
}

/// How the BFD of a session stands.
fn bfd_state(told: &api::PeerState) -> BfdState {
    match told.bfd_state.unwrap_or_default().session_state() {
        api::BfdSessionState::Unspecified | api::BfdSessionState::Down => BfdState::Down,
        api::BfdSessionState::AdminDown => BfdState::AdminDown,
        api::BfdSessionState::Init => BfdState::Init,
        api::BfdSessionState::Up => BfdState::Up,
    }
}

/// The likeliest reason that BFD does not watch a session: at once where another program has its port, else when it should be up for long.
fn unwatched(since: Option<Instant>, told: &api::PeerState, port_taken: bool, now: Instant) -> Option<Box<str>> {
    let since = since?;
    let packets = told.bfd_state.and_then(|state| state.bfd_async).unwrap_or_default();
    let why = if port_taken {
        "another program on this node has UDP port 3784: stop the BFD of that (FRR's bfdd, BIRD)"
    } else if now.since(since) < BFD_WITHIN {
        return None;
    } else if packets.received_packets == 0 {
        "nothing of it is heard from the router: does that do BFD with this node, may UDP port 3784 pass, and is no other program's on this node (ss -ulnp)?"
    } else {
        "the router is heard and does not hear this node: may UDP port 3784 pass?"
    };
    Some(format!("BFD is not up: {why}").into())
}

/// What is counted of a session; of its BFD where that is asked for.
pub(super) fn session_counts(is: &api::Peer, asked: &api::Peer) -> SessionCounts {
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
        received_prefixes: received(is),
        // It has a state of BFD where there is none, too.
        bfd: told.bfd_state.filter(|_| asked.bfd.is_some()).map(bfd),
    }
}

/// The sessions that have come since a report, and those that have gone, with why: what an operator's log has of them, by BGPPeer.
pub(super) fn turns<'r>(before: Option<&BgpReport>, now: &'r BgpReport) -> Vec<(&'r str, Option<&'r str>)> {
    let stands = |session: &SessionReport| session.state == BgpSessionState::Established;
    let stood = |name: &str| before.and_then(|before| before.sessions.get(name)).is_some_and(stands);
    let turned = now.sessions.iter().filter(|(name, is)| stands(is) != stood(name));
    turned.map(|(name, is)| (&**name, (!stands(is)).then(|| is.problem.as_deref().unwrap_or_default()))).collect()
}

/// The likeliest reason that there is no session.
fn problem(happened: Option<Happened>, asked: &api::Peer, own_asn: u32) -> Box<str> {
    let conf = asked.conf.clone().unwrap_or_default();
    let own = if conf.local_asn == 0 { own_asn } else { conf.local_asn };
    let Happened { sent, received, stood } =
        happened.unwrap_or(Happened { sent: NOTHING, received: NOTHING, stood: false });
    let port = asked.transport.as_ref().map_or(0, |transport| transport.remote_port);
    let password = if conf.auth_password.is_empty() { "" } else { ", and with this password" };
    if stood && received.open == 0 && received.notification > 0 {
        "the router ended the session, and there is no other yet: was it told to?".into()
    } else if stood && received.open == 0 && sent.notification > 0 {
        "this node ended the session, because it heard nothing for the hold time or BFD found the router away".into()
    } else if received.notification > 0 {
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
        format!("no connection to the router: is there a route to it, and does it listen on port {port}{password}?")
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BFD: api::BfdPeerConfig = api::BfdPeerConfig {
        enabled: true,
        port: 3784,
        desired_minimum_tx_interval: 300_000,
        required_minimum_receive: 300_000,
        detection_multiplier: 3,
    };

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
        session_report(&is, &asked(password), 64512, &mut Trace::new(Instant::ZERO), (Instant::ZERO, false))
    }

    #[test]
    fn an_established_session_says_since_when_and_with_whom() {
        let none = api::Message::default();
        let report = session(Told::Established, none, none, "");
        assert_eq!((report.state, report.since, report.asn), (BgpSessionState::Established, Some(7), Some(64513)));
        assert_eq!((report.address, report.problem), ("fe80::1".parse().ok(), None));
    }

    #[test]
    fn a_router_that_sends_its_whole_table_is_asked_for_a_filter() {
        let problem = |state: Told, received: u64| {
            let family = api::AfiSafi { state: Some(api::AfiSafiState { received }), ..api::AfiSafi::default() };
            let state = api::PeerState { session_state: state as i32, ..api::PeerState::default() };
            let is = api::Peer { state: Some(state), afi_safis: vec![family, family], ..api::Peer::default() };
            let (mut trace, now) = (Trace::new(Instant::ZERO), (Instant::ZERO, false));
            session_report(&is, &asked(""), 64512, &mut trace, now).problem.unwrap_or_default()
        };
        assert_eq!(&*problem(Told::Established, 25_000), "");
        assert!(problem(Told::Established, 25_001).contains("more than 50000 prefixes"));
        assert!(problem(Told::Active, 25_001).contains("no connection"), "why there is no session comes first");
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
    fn what_was_before_a_session_is_not_said_of_what_came_after_it_and_nobody_is_blamed_for_ever() {
        let counted = |state: Told, sent: [u64; 2], received: [u64; 2]| {
            let message = |[open, notification]: [u64; 2]| api::Message { open, notification, ..NOTHING };
            let messages = api::Messages { sent: Some(message(sent)), received: Some(message(received)) };
            let state =
                api::PeerState { session_state: state as i32, messages: Some(messages), ..api::PeerState::default() };
            api::Peer { state: Some(state), ..api::Peer::default() }
        };
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        let mut trace = Trace::new(at(0));
        let mut why = |is: api::Peer, seconds: u64| {
            session_report(&is, &asked(""), 64512, &mut trace, (at(seconds), false)).problem.unwrap_or_default()
        };
        // It was refused once, then stood, and was ended by the router, which is gone now.
        assert!(why(counted(Told::Active, [1, 0], [1, 1]), 0).contains("is 64512 the AS"));
        assert_eq!(&*why(counted(Told::Established, [2, 0], [2, 1]), 5), "");
        assert!(why(counted(Told::Active, [2, 0], [2, 2]), 6).contains("the router ended the session"));
        assert!(why(counted(Told::Active, [2, 0], [2, 2]), 16).contains("the router ended the session"));
        assert!(why(counted(Told::Active, [2, 0], [2, 2]), 17).contains("no connection"), "for so long");
        assert!(why(counted(Told::Active, [3, 0], [3, 3]), 18).contains("is 64512 the AS"), "it is back, and refuses");
        assert_eq!(&*why(counted(Told::Established, [4, 0], [4, 3]), 20), "");
        assert!(why(counted(Told::Active, [4, 1], [4, 3]), 24).contains("heard nothing for the hold time"));
        // Counted from the beginning: another session.
        assert!(why(counted(Told::Active, [1, 0], [0, 0]), 25).contains("says nothing"));
    }

    #[test]
    fn a_session_that_comes_or_goes_is_told_once() {
        let report = |state, problem: Option<&str>| {
            let session = SessionReport { state, problem: problem.map(Into::into), ..SessionReport::default() };
            BgpReport { sessions: [("tor".into(), session)].into(), ..BgpReport::default() }
        };
        let (up, down) = (report(BgpSessionState::Established, None), report(BgpSessionState::Active, Some("gone")));
        assert_eq!(turns(None, &down), [], "it never stood");
        assert_eq!(turns(Some(&down), &up), [("tor", None)]);
        assert_eq!(turns(None, &up), [("tor", None)]);
        assert_eq!(turns(Some(&up), &up), []);
        assert_eq!(turns(Some(&up), &down), [("tor", Some("gone"))]);
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
        assert_eq!(session_counts(&is, &asked("")), plain);
        let watched = api::Peer { bfd: Some(BFD), ..asked("") };
        let bfd = Some(BfdCounts { up: true, received: 3, sent: 4 });
        assert_eq!(session_counts(&is, &watched), SessionCounts { bfd, ..plain });
        assert_eq!(session_counts(&api::Peer::default(), &watched), SessionCounts::default());
    }

    #[test]
    fn bfd_that_does_not_come_up_is_said_of_an_established_session_when_it_should_be_up() {
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        let mut trace = Trace::new(at(0));
        let mut look = |state: Told, bfd: Option<api::BfdSessionState>, received_packets, seconds, port_taken| {
            let packets = api::BfdAsyncCounters { received_packets, ..api::BfdAsyncCounters::default() };
            let bfd_state = api::BfdPeerState {
                session_state: bfd.unwrap_or(api::BfdSessionState::Unspecified) as i32,
                bfd_async: Some(packets),
            };
            let state =
                api::PeerState { session_state: state as i32, bfd_state: Some(bfd_state), ..api::PeerState::default() };
            let is = api::Peer { state: Some(state), bfd: bfd.map(|_| BFD), ..api::Peer::default() };
            let report = session_report(&is, &asked(""), 64512, &mut trace, (at(seconds), port_taken));
            (report.bfd, report.problem.unwrap_or_default().into_string())
        };
        use api::BfdSessionState::{Down, Init, Up};
        let quiet = String::new;
        assert_eq!(look(Told::Established, None, 0, 0, true), (None, quiet()), "it has none");
        assert_eq!(look(Told::Established, Some(Down), 0, 1, false), (Some(BfdState::Down), quiet()));
        assert!(look(Told::Established, Some(Down), 0, 2, true).1.contains("another program on this node"));
        assert_eq!(look(Told::Established, Some(Init), 1, 15, false), (Some(BfdState::Init), quiet()));
        assert!(look(Told::Established, Some(Init), 1, 16, false).1.contains("does not hear this node"));
        assert!(look(Told::Established, Some(Down), 0, 16, false).1.contains("does that do BFD"));
        assert_eq!(look(Told::Established, Some(Up), 9, 17, true), (Some(BfdState::Up), quiet()));
        assert_eq!(look(Told::Established, Some(Down), 9, 30, false).1, "", "it counts from when it was up");
        assert_eq!(look(Told::Active, Some(Down), 9, 60, false).0, None, "it begins with the session");
        assert_eq!(look(Told::Established, Some(Down), 9, 61, false).1, "");
    }
}
