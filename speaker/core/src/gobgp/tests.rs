//! Simulator of the machine: a gobgpd in plain Rust that fails at each call in turn, and tests of
//! handovers and rejected sessions with it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::bgp::{Prefix, RouteAttributes, RouteClass};
use ferrolb_proto::Instant;
use ferrolb_proto::api::BgpPeerObject;
use ferrolb_proto::facts::{BfdTimers, BgpPeer, PeerLocation};
use ferrolb_proto::range::Family;
use gobgp_proto as api;
use serde_json::json;

use super::gobgp_config::Translation;
use super::machine::{HANDOVER_DELAY, RETRY_INTERVAL};
use super::*;
use crate::event::SessionIssue;
use crate::plan::{BgpIdentity, RouteReceiver, SessionConfig};

/// Time after which gobgpd has the desired state, even if a call failed or a session was rejected.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// Way in which one call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    /// The call has no effect.
    NotExecuted,
    /// The call has an effect, but no response.
    NoResponse,
    /// gobgpd is replaced by a new one.
    Restart,
    /// gobgpd rejects the session of the call. Other calls are not executed.
    Rejection,
}

/// A gobgpd, and the way in which its calls fail.
#[derive(Default)]
struct FakeGobgpd {
    identity: Option<BgpIdentity>,
    classes: BTreeSet<ContentHash>,
    paths: BTreeMap<Prefix, ContentHash>,
    peers: BTreeMap<PeerLocation, api::Peer>,
    is_stopped: bool,
    /// AS number of all routers.
    router_asn: u32,
    calls: usize,
    /// Number of sessions that were added or removed.
    session_changes: usize,
    /// Number of the call that fails, and how.
    failure: Option<(usize, Failure)>,
}

fn failed() -> GobgpError {
    GobgpError::Call { call: "Call", why: "the test ends it".to_owned() }
}

impl FakeGobgpd {
    fn call(&mut self, call: GobgpCall) -> Result<GobgpReply, GobgpError> {
        let failure = self.failure.filter(|(number, _)| *number == self.calls).map(|(_, it)| it);
        self.calls += 1;
        match (failure, call) {
            (None, call) => self.execute(call),
            (Some(Failure::NoResponse), call) => self.execute(call).and(Err(failed())),
            (Some(Failure::Restart), _) => {
                self.restart();
                Err(failed())
            }
            (
                Some(Failure::Rejection),
                GobgpCall::Execute(step @ (BgpStep::AddSession(..) | BgpStep::SetBfd(..))),
            ) => Ok(GobgpReply::Rejected(step, "rejected".to_owned())),
            (Some(Failure::NotExecuted | Failure::Rejection), _) => Err(failed()),
        }
    }

    fn restart(&mut self) {
        let (router_asn, calls, failure) = (self.router_asn, self.calls, self.failure);
        *self = Self { router_asn, calls, failure, ..Self::default() };
    }

    fn execute(&mut self, call: GobgpCall) -> Result<GobgpReply, GobgpError> {
        if self.is_stopped {
            return Err(GobgpError::Stopped);
        }
        Ok(match call {
            GobgpCall::Read => GobgpReply::Read(self.state()),
            GobgpCall::CheckVersion => GobgpReply::VersionChecked,
            GobgpCall::Execute(step) => {
                self.apply(&step);
                GobgpReply::Executed(step)
            }
            GobgpCall::ListSessions(bfd) => {
                GobgpReply::Sessions(self.sessions(), bfd.then(BTreeSet::new))
            }
            GobgpCall::Stop => {
                self.is_stopped = true;
                GobgpReply::Stopped
            }
        })
    }

    fn state(&self) -> ObservedState {
        let peers = self.sessions().into_iter().map(|it| (it.location.clone(), it.observed()));
        ObservedState {
            identity: self.identity,
            peers: peers.collect(),
            classes: self.classes.iter().map(|mark| (*mark, None)).collect(),
            paths: self.paths.iter().map(|(prefix, mark)| (*prefix, Some(*mark))).collect(),
            rejected: BTreeMap::new(),
        }
    }

    fn sessions(&self) -> Vec<ListedSession> {
        let state = |peer: &api::Peer| api::PeerState {
            peer_asn: self.router_asn,
            neighbor_address: peer.conf.clone().unwrap_or_default().neighbor_address,
            session_state: api::peer_state::SessionState::Established as i32,
            ..api::PeerState::default()
        };
        let listed = |peer: &api::Peer| api::Peer { state: Some(state(peer)), ..peer.clone() };
        self.peers.values().filter_map(|peer| ListedSession::read(listed(peer))).collect()
    }

    fn apply(&mut self, step: &BgpStep) {
        assert!(self.identity.is_some() || matches!(step, BgpStep::Start(_)), "{step:?}");
        self.session_changes +=
            usize::from(matches!(step, BgpStep::AddSession(..) | BgpStep::RemoveSession(_)));
        match step {
            BgpStep::Start(identity) => {
                assert!(self.peers.is_empty(), "a session has the old identity");
                self.identity = Some(*identity);
                self.classes.clear();
                self.paths.clear();
            }
            BgpStep::RemoveSession(location) => drop(self.peers.remove(location)),
            BgpStep::SetPolicies(policies) => {
                self.classes = policies.iter().map(|policy| policy.hash).collect();
            }
            BgpStep::Announce(paths) => {
                let mut marks = paths.iter().map(|(_, mark)| mark);
                assert!(marks.all(|mark| self.classes.contains(mark)), "a path has no policy");
                self.paths.extend(paths.iter().copied());
            }
            BgpStep::Withdraw(prefixes) => {
                self.paths.retain(|prefix, _| !prefixes.contains(prefix));
            }
            BgpStep::AddSession(location, config) => {
                let replaced = self.peers.insert(location.clone(), config.with_bfd(false));
                assert!(replaced.is_none(), "gobgpd rejects a session that exists");
            }
            BgpStep::SetBfd(location, config, on) => {
                self.peers.insert(location.clone(), config.with_bfd(*on));
            }
        }
    }

    fn assert_has(&self, config: &BgpConfig) {
        let mut translation = Translation::default();
        translation.update(config.clone());
        let wanted = translation.config();
        let paths = self.paths.iter().map(|(prefix, mark)| (*prefix, Some(*mark)));
        assert_eq!(paths.collect::<Paths>(), wanted.paths);
        assert!(self.classes.iter().eq(wanted.policies.keys()));
        assert!(wanted.identity.is_none_or(|identity| self.identity == Some(identity)));
        let peers = wanted.peers.iter().map(|(location, it)| (location, it.with_bfd(true)));
        assert!(
            self.peers.iter().eq(peers.collect::<BTreeMap<_, _>>().iter().map(|(k, v)| (*k, v)))
        );
    }
}

fn session(name: &str, router: u8, bfd: bool) -> (PeerLocation, Arc<SessionConfig>) {
    let object = json!({"metadata": {"name": name}, "spec": {"myASN": 64512,
        "dynamicASN": "external", "peerAddress": format!("192.0.2.{router}")}});
    let peer: BgpPeer = serde_json::from_value::<BgpPeerObject>(object).expect("a peer").into();
    let parameters = peer.session.expect("a valid session");
    let time = Duration::from_millis(300);
    let bfd = bfd.then_some(BfdTimers { transmit: time, receive: time, multiplier: 3 });
    let location = parameters.location.clone();
    (location, Arc::new(SessionConfig { name: peer.name, parameters, password: None, bfd }))
}

/// Returns a configuration with the sessions `a`, with a password of this length, and `b`, with BFD
/// if true, and with these routes, by number and MED.
fn config(router_id: u8, password: usize, bfd: bool, routes: &[(u8, u32)]) -> BgpConfig {
    let (location, mut a) = session("a", 1, false);
    Arc::make_mut(&mut a).password = Some("x".repeat(password).into());
    let class = |med| {
        let attributes = RouteAttributes { med: Some(med), ..RouteAttributes::default() };
        let peers_by_attributes = [(attributes, ["a".into()].into())].into();
        Arc::new(RouteClass { peers_by_attributes })
    };
    let address = Ipv4Addr::new(192, 0, 2, 1).into();
    let receiver = RouteReceiver { address, next_hop: None, own_asn: 64512, internal: false };
    let prefix = |number| Prefix::of(Ipv4Addr::new(10, 0, 0, number).into(), 32);
    BgpConfig {
        identity: Some(BgpIdentity { asn: 64512, router_id: [10, 0, 0, router_id].into() }),
        sessions: [(location, a), session("b", 2, bfd)].into(),
        receivers: [(Family::V4, [("a".into(), receiver)].into())].into(),
        routes: routes.iter().map(|(number, med)| (prefix(*number), class(*med))).collect(),
        no_restart_reason: None,
    }
}

/// Returns configurations of which each needs other steps than the one before it.
fn configs() -> [BgpConfig; 5] {
    let first = config(1, 1, true, &[(1, 1), (2, 1), (3, 2)]);
    let mut without_b = config(1, 2, false, &[(1, 2), (4, 3)]);
    without_b.sessions.pop_last();
    let other_identity = config(2, 2, true, &[(1, 2), (4, 3)]);
    [first.clone(), without_b, other_identity, BgpConfig::default(), first]
}

/// A machine with its gobgpd.
struct Simulation {
    machine: GobgpMachine,
    gobgpd: FakeGobgpd,
    now: Instant,
    /// Time of the most recent failure, until the next call.
    failed_at: Option<Instant>,
    /// The most recent report, and the number of reports of the first read.
    report: BgpReport,
    first_reads: usize,
    /// Responses to handovers.
    responses: Vec<Result<(), String>>,
    /// Reason of the refused handover.
    refused: Option<&'static str>,
}

impl Simulation {
    fn new(failure: Option<(usize, Failure)>) -> Self {
        Self {
            machine: GobgpMachine::new(Instant::ZERO),
            gobgpd: FakeGobgpd { failure, router_asn: 64513, ..FakeGobgpd::default() },
            now: Instant::ZERO,
            failed_at: None,
            report: BgpReport::default(),
            first_reads: 0,
            responses: Vec::new(),
            refused: None,
        }
    }

    /// Starts the speaker again, with the same gobgpd.
    fn restart_speaker(&mut self) {
        (self.machine, self.failed_at) = (GobgpMachine::new(self.now), None);
        self.first_reads = 0;
    }

    fn handle(&mut self, input: GobgpInput) {
        self.machine.handle(input, self.now);
        self.perform();
    }

    fn configure(&mut self, config: &BgpConfig) {
        self.handle(GobgpInput::Config(Some(config.clone())));
    }

    /// Advances the time, and performs all calls until then.
    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline >= self.now || self.now == Instant::ZERO);
            self.now = self.now.max(deadline);
            self.machine.tick(self.now);
            self.perform();
            let next = self.machine.deadline();
            assert!(next.is_none_or(|next| next > self.now), "the machine makes no progress");
        }
        self.now = end;
    }

    /// Advances the time until gobgpd has the desired state.
    fn settle(&mut self) {
        let before = self.gobgpd.calls;
        self.run_for(SETTLED_AFTER);
        let calls = before..self.gobgpd.calls;
        if self.gobgpd.failure.is_some_and(|(number, _)| calls.contains(&number)) {
            self.run_for(SETTLED_AFTER);
        }
    }

    fn perform(&mut self) {
        loop {
            let outputs: Vec<_> = std::iter::from_fn(|| self.machine.poll()).collect();
            let mut calls = Vec::new();
            for output in outputs {
                match output {
                    GobgpOutput::Call(call) => calls.push(call),
                    GobgpOutput::Report(report) => self.report = report,
                    GobgpOutput::FirstRead(_) => self.first_reads += 1,
                    GobgpOutput::Respond(outcome) => self.responses.push(outcome),
                    GobgpOutput::Refuse(why) => self.refused = Some(why),
                    GobgpOutput::Counts(_)
                    | GobgpOutput::SessionChanged(..)
                    | GobgpOutput::Rejected
                    | GobgpOutput::Unusable(_) => {}
                }
            }
            assert!(calls.len() <= 1, "two calls at once: {calls:?}");
            let Some(call) = calls.pop() else { return };
            self.perform_call(call);
        }
    }

    fn perform_call(&mut self, call: GobgpCall) {
        if let Some(failed_at) = self.failed_at.take() {
            assert!(matches!(call, GobgpCall::Read), "the machine has not read gobgpd again");
            assert!(self.now.since(failed_at) >= RETRY_INTERVAL, "no back-off");
        }
        // No other call starts before the result.
        if matches!(call, GobgpCall::Execute(_)) {
            self.machine.handle(GobgpInput::SessionChanged, self.now);
            self.machine.handle(GobgpInput::Scraped, self.now);
        }
        self.machine.tick(self.now);
        let other = self.machine.poll();
        assert!(other.is_none() && self.machine.deadline().is_none(), "{other:?}");
        let result = self.gobgpd.call(call);
        self.failed_at = result.is_err().then_some(self.now);
        self.now = self.now + Duration::from_millis(1);
        self.machine.handle(GobgpInput::CallDone(result), self.now);
    }
}

/// Applies all configurations, with a restart of the speaker after each of them. Returns the number
/// of calls.
fn run_all(failure: Option<(usize, Failure)>) -> usize {
    let mut run = Simulation::new(failure);
    for config in &configs() {
        run.configure(config);
        run.settle();
        run.gobgpd.assert_has(config);
        let changes = run.gobgpd.session_changes;
        run.restart_speaker();
        run.configure(config);
        run.settle();
        run.gobgpd.assert_has(config);
        let is_restarted = failure.is_some_and(|(_, failure)| failure == Failure::Restart);
        assert!(is_restarted || run.gobgpd.session_changes == changes, "a session was reset");
        assert_eq!(run.first_reads, 1);
        assert_eq!(
            (&run.report.unusable, run.report.sessions.len()),
            (&None, config.sessions.len())
        );
        assert!(run.report.sessions.values().all(|session| session.asn == Some(64513)));
    }
    run.gobgpd.calls
}

#[test]
fn gobgpd_has_the_desired_state_after_a_failure_of_any_call() {
    let calls = run_all(None);
    assert!(calls > 50, "{calls} calls");
    for number in 0..calls {
        for failure in
            [Failure::NotExecuted, Failure::NoResponse, Failure::Restart, Failure::Rejection]
        {
            run_all(Some((number, failure)));
        }
    }
}

#[test]
fn a_new_configuration_replaces_the_remaining_steps() {
    let [first, _, other, ..] = configs();
    for number in 0..12 {
        let mut run = Simulation::new(Some((number, Failure::NotExecuted)));
        run.configure(&first);
        run.configure(&other);
        run.run_for(RETRY_INTERVAL / 2);
        run.configure(&first);
        run.handle(GobgpInput::Config(None));
        run.configure(&other);
        run.run_for(SETTLED_AFTER);
        run.gobgpd.assert_has(&other);
    }
}

#[test]
fn the_end_of_a_connection_drops_a_call_that_is_not_executed() {
    let mut run = Simulation::new(None);
    run.run_for(SETTLED_AFTER);
    run.machine.handle(GobgpInput::Config(Some(config(1, 1, false, &[]))), run.now);
    run.failed_at = Some(run.now);
    let calls = run.gobgpd.calls;
    run.handle(GobgpInput::CallDone(Err(failed())));
    assert_eq!(run.gobgpd.calls, calls);
    run.run_for(SETTLED_AFTER);
    run.gobgpd.assert_has(&config(1, 1, false, &[]));
}

#[test]
fn a_handover_stops_gobgpd_only_if_another_one_follows() {
    let desired = config(1, 1, false, &[(1, 1)]);
    let handover = |config: &BgpConfig, failure| {
        let mut run = Simulation::new(None);
        run.configure(config);
        run.run_for(SETTLED_AFTER);
        run.gobgpd.failure = failure;
        run.handle(GobgpInput::HandoverRequested);
        run.run_for(HANDOVER_DELAY - Duration::from_millis(1));
        assert!(!run.gobgpd.is_stopped && run.responses.is_empty());
        run
    };
    let mut run = handover(&desired, None);
    run.run_for(SETTLED_AFTER);
    assert!(run.gobgpd.is_stopped && run.responses == [Ok(())]);
    assert_eq!(run.report.unusable.as_deref(), Some(&*GobgpError::Stopped.to_string()));
    run.gobgpd.restart();
    run.run_for(SETTLED_AFTER);
    run.gobgpd.assert_has(&desired);
    let drains = BgpConfig { no_restart_reason: Some("drains"), ..desired.clone() };
    let mut run = handover(&drains, None);
    run.run_for(SETTLED_AFTER);
    assert!(!run.gobgpd.is_stopped && run.refused == Some("drains"));
    let mut run = handover(&desired, None);
    run.handle(GobgpInput::HandoverCancelled);
    run.run_for(SETTLED_AFTER);
    assert!(!run.gobgpd.is_stopped && run.responses.is_empty());
    let calls = run.gobgpd.calls;
    run.gobgpd.failure = Some((calls, Failure::NotExecuted));
    run.handle(GobgpInput::HandoverRequested);
    run.run_for(SETTLED_AFTER);
    assert_eq!(run.responses, [Err(failed().to_string())]);
    run.gobgpd.assert_has(&desired);
}

#[test]
fn a_handover_without_gobgpd_has_the_next_error_as_response() {
    let mut run = Simulation::new(Some((1, Failure::NotExecuted)));
    run.gobgpd.is_stopped = true;
    run.run_for(RETRY_INTERVAL / 2);
    run.handle(GobgpInput::HandoverRequested);
    assert!(run.responses.is_empty());
    run.run_for(RETRY_INTERVAL);
    assert_eq!(run.responses, [Err(failed().to_string())]);
}

#[test]
fn a_session_whose_router_has_this_nodes_as_is_removed() {
    let mut run = Simulation::new(None);
    run.gobgpd.router_asn = 64512;
    let desired = config(1, 1, false, &[]);
    run.configure(&desired);
    run.run_for(Duration::from_secs(5));
    assert!(run.gobgpd.peers.is_empty());
    let issues = run.report.sessions.values().map(|session| session.issue.clone());
    assert_eq!(
        issues.collect::<Vec<_>>(),
        [Some(SessionIssue::OwnAsn(64512)), Some(SessionIssue::OwnAsn(64512))]
    );
    run.gobgpd.router_asn = 64513;
    run.run_for(SETTLED_AFTER);
    run.gobgpd.assert_has(&desired);
    assert!(run.report.sessions.values().all(|session| session.issue.is_none()));
}

#[test]
fn sessions_are_listed_as_often_as_their_state_requires() {
    let deadline = |bfd, input: Option<GobgpInput>| {
        let mut run = Simulation::new(None);
        run.configure(&config(1, 1, bfd, &[]));
        run.run_for(Duration::from_millis(999));
        input.into_iter().for_each(|input| run.handle(input));
        run.machine.deadline().map(|at| at.since(run.now).as_millis())
    };
    assert!(deadline(false, None).is_some_and(|ms| (58_000..60_000).contains(&ms)));
    assert!(deadline(true, None).is_some_and(|ms| ms < 1_000), "a session has BFD");
    assert!(deadline(false, Some(GobgpInput::Scraped)).is_some_and(|ms| ms < 1_000));
    assert_eq!(deadline(false, Some(GobgpInput::SessionChanged)), Some(50));
}
