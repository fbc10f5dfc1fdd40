//! State machine that brings gobgpd to the desired configuration, with one call at a time. Each
//! call is computed from the latest configuration. After a failure, the machine reads gobgpd again
//! and continues from there.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::timers::Timers;
use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_proto::api::BgpSessionState;

use super::connection::{Connection, Listing};
use super::error::GobgpError;
use super::gobgp_config::{GobgpConfig, Translation};
use super::listed_session::ListedSession;
use super::report::transitions;
use super::steps::{BgpStep, ObservedState, next_step};
use super::{GobgpCall, GobgpInput, GobgpOutput, GobgpReply};
use crate::event::{BgpReport, SessionIssue};

/// Interval between attempts to use a gobgpd that is unavailable or unusable.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum delay from gobgpd's report of a change until gobgpd's list of sessions shows the change.
const SETTLE_DELAY: Duration = Duration::from_millis(50);
/// Interval at which sessions are read while a session is not established: gobgpd counts failed
/// attempts to open the session, but does not report them.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Interval at which sessions are read while a session has BFD: gobgpd reports no changes of BFD.
const BFD_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which sessions are read while all are established: gobgpd does not report how many
/// prefixes a router sent.
const ESTABLISHED_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Minimum time between two reads of the sessions that scrapes of the metrics cause.
const SCRAPE_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a session that gobgpd rejected is added again: the interface that it needs may
/// exist by then.
const REJECTION_LIFETIME: Duration = Duration::from_secs(10);
/// Delay before a handover. If the whole node shuts down, its Node becomes not Ready at about the
/// same time, and no handover must take place.
pub(super) const HANDOVER_DELAY: Duration = Duration::from_secs(1);

/// Timers of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GobgpTimer {
    /// Next attempt to use a gobgpd that is not connected.
    Connect,
    /// Next read of the sessions.
    ListSessions,
    /// End of the rejections, after which the sessions are added again.
    EndRejections,
    /// Decision about the requested handover. The timer is set until the client has a response.
    HandOver,
}

/// State machine that brings gobgpd to the desired configuration, and reports its sessions.
#[derive(Debug)]
pub struct GobgpMachine {
    /// Translation of the latest desired configuration. None: not known yet.
    wanted: Option<Translation>,
    /// gobgpd, while the driver is connected to it.
    connection: Option<Connection>,
    /// True from a call until its result.
    is_calling: bool,
    /// True if gobgpd was read since the start of the speaker.
    first_read_done: bool,
    timers: Timers<GobgpTimer>,
    outputs: VecDeque<GobgpOutput>,
}

impl GobgpMachine {
    /// Creates a machine that connects to gobgpd at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let mut timers = Timers::default();
        timers.set_by(GobgpTimer::Connect, now);
        Self {
            wanted: None,
            connection: None,
            is_calling: false,
            first_read_done: false,
            timers,
            outputs: VecDeque::new(),
        }
    }

    fn call_done(&mut self, result: Result<GobgpReply, GobgpError>, now: Instant) {
        self.is_calling = false;
        let reply = match result {
            Ok(GobgpReply::Stopped) => {
                self.timers.stop(&GobgpTimer::HandOver);
                self.outputs.push_back(GobgpOutput::Respond(Ok(())));
                return self.fail(GobgpError::Stopped, now);
            }
            Ok(GobgpReply::Read(known)) => return self.connected(known, now),
            Ok(reply) => reply,
            Err(error) => return self.fail(error, now),
        };
        if let GobgpReply::Executed(step) | GobgpReply::Rejected(step, _) = &reply
            && step.changes_session()
        {
            self.list_by(now + SETTLE_DELAY);
        }
        let Some(connection) = &mut self.connection else { return };
        match reply {
            GobgpReply::VersionChecked => connection.version_checked = true,
            GobgpReply::Executed(step) => connection.known.apply(step),
            GobgpReply::Rejected(BgpStep::AddSession(location, config), why) => {
                connection.reject(location, &config, SessionIssue::RejectedByGobgp(why.into()));
                self.rejected(1, now);
            }
            GobgpReply::Rejected(BgpStep::SetBfd(location, config, _), why) => {
                connection.reject(location, &config, SessionIssue::BfdRejectedByGobgp(why.into()));
                self.rejected(1, now);
            }
            GobgpReply::Sessions(listed, bfd_sockets) => {
                self.sessions_listed(&listed, bfd_sockets.as_ref(), now);
            }
            GobgpReply::Read(_) | GobgpReply::Stopped | GobgpReply::Rejected(..) => {}
        }
    }

    fn connected(&mut self, known: ObservedState, now: Instant) {
        if !self.first_read_done {
            self.first_read_done = true;
            let paths = known.paths.len();
            self.outputs.push_back(GobgpOutput::FirstRead(paths));
        }
        self.connection = Some(Connection::new(known));
        self.timers.set_by(GobgpTimer::ListSessions, now);
    }

    /// Ends the connection. The next attempt follows after [`RETRY_INTERVAL`].
    fn fail(&mut self, error: GobgpError, now: Instant) {
        // A call that the driver has not executed yet belongs to the connection that ends.
        self.outputs.retain(|output| !matches!(output, GobgpOutput::Call(_)));
        let why = error.to_string();
        let report = BgpReport { unusable: Some(why.as_str().into()), ..BgpReport::default() };
        if self.timers.stop(&GobgpTimer::HandOver) {
            self.outputs.push_back(GobgpOutput::Respond(Err(why)));
        }
        self.outputs.push_back(GobgpOutput::Unusable(error));
        self.outputs.push_back(GobgpOutput::Report(report));
        (self.connection, self.timers) = (None, Timers::default());
        self.timers.set_by(GobgpTimer::Connect, now + RETRY_INTERVAL);
    }

    /// Lists the sessions at this time, unless an earlier list is due. A gobgpd that is not
    /// connected has no list.
    fn list_by(&mut self, deadline: Instant) {
        if self.connection.is_some() {
            self.timers.set_by(GobgpTimer::ListSessions, deadline);
        }
    }

    fn rejected(&mut self, sessions: usize, now: Instant) {
        for _ in 0..sessions {
            self.timers.set_by(GobgpTimer::EndRejections, now + REJECTION_LIFETIME);
            self.outputs.push_back(GobgpOutput::Rejected);
        }
    }

    /// Reports the listed sessions, and sets the time of the next list.
    fn sessions_listed(
        &mut self,
        listed: &[ListedSession],
        bfd_sockets: Option<&BTreeSet<u64>>,
        now: Instant,
    ) {
        let Some(connection) = &mut self.connection else { return };
        let not_known = GobgpConfig::default();
        let wanted = self.wanted.as_ref().map_or(&not_known, Translation::config);
        let Listing { report, counts, rejected } =
            connection.list(listed, bfd_sockets, wanted, now);
        self.outputs.push_back(GobgpOutput::Counts(counts));
        if let Some(after) = poll_interval(&report) {
            self.timers.set_by(GobgpTimer::ListSessions, now + after);
        }
        let changes = transitions(connection.reported.as_ref(), &report).into_iter();
        let changes = changes.map(|(peer, why)| GobgpOutput::SessionChanged(peer.into(), why));
        self.outputs.extend(changes);
        if connection.reported.as_ref() != Some(&report) {
            connection.reported = Some(report.clone());
            self.outputs.push_back(GobgpOutput::Report(report));
        }
        self.rejected(rejected, now);
    }

    /// Starts the next call, if no other one has to end before.
    fn advance(&mut self, now: Instant) {
        if self.is_calling {
            return;
        }
        let call = if self.connection.is_some() {
            self.next_call(now)
        } else {
            self.timers.expire(&GobgpTimer::Connect, now).then_some(GobgpCall::Read)
        };
        self.is_calling = call.is_some();
        self.outputs.extend(call.map(GobgpOutput::Call));
    }

    /// Returns the next call to a connected gobgpd: the handover if it is due, otherwise the next
    /// step to the desired configuration, otherwise a list of the sessions if it is due.
    fn next_call(&mut self, now: Instant) -> Option<GobgpCall> {
        let connection = self.connection.as_mut()?;
        let wanted = self.wanted.as_ref().map(Translation::config);
        if self.timers.is_due(&GobgpTimer::HandOver, now) {
            // A stopped gobgpd cannot be started again. Therefore it continues if the next one
            // possibly does not start in time.
            let not_known = Some("the speaker has no configuration yet");
            let Some(why) = wanted.map_or(not_known, |wanted| wanted.no_restart_reason) else {
                return Some(GobgpCall::Stop);
            };
            self.timers.stop(&GobgpTimer::HandOver);
            self.outputs.push_back(GobgpOutput::Refuse(why));
        }
        if self.timers.expire(&GobgpTimer::EndRejections, now) {
            connection.end_rejections();
        }
        if connection.known.identity.is_some() && !connection.version_checked {
            return Some(GobgpCall::CheckVersion);
        }
        if let Some(wanted) = wanted {
            if let Some(step) = next_step(wanted, &connection.known) {
                return Some(GobgpCall::Execute(step));
            }
            connection.known.share_paths(wanted);
            if !connection.has_reported_all(wanted) {
                self.timers.set_by(GobgpTimer::ListSessions, now + SETTLE_DELAY);
            }
        }
        let has_bfd = wanted.is_some_and(GobgpConfig::has_bfd);
        let is_due = self.timers.expire(&GobgpTimer::ListSessions, now);
        is_due.then_some(GobgpCall::ListSessions(has_bfd))
    }
}

impl Machine for GobgpMachine {
    type Input = GobgpInput;
    type Output = GobgpOutput;

    fn handle(&mut self, input: GobgpInput, now: Instant) {
        match input {
            GobgpInput::Config(Some(config)) => {
                self.wanted.get_or_insert_default().update(config);
            }
            GobgpInput::Config(None) => self.wanted = None,
            GobgpInput::CallDone(result) => self.call_done(result, now),
            GobgpInput::SessionChanged => self.list_by(now + SETTLE_DELAY),
            GobgpInput::Scraped => {
                let listed_at = self.connection.as_ref().and_then(|it| it.listed_at);
                self.list_by(listed_at.map_or(now, |at| at + SCRAPE_POLL_INTERVAL));
            }
            GobgpInput::HandoverRequested => {
                self.timers.set_by(GobgpTimer::HandOver, now + HANDOVER_DELAY);
            }
            GobgpInput::HandoverCancelled => {
                self.timers.stop(&GobgpTimer::HandOver);
            }
        }
        self.advance(now);
    }

    fn tick(&mut self, now: Instant) {
        self.advance(now);
    }

    fn poll(&mut self) -> Option<GobgpOutput> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        // No timer has an effect before the result of the call.
        if self.is_calling { None } else { self.timers.deadline() }
    }
}

/// Returns the time until the next read of the sessions if gobgpd reports no change before. gobgpd
/// does report when an established session ends. None: there is no session to read.
fn poll_interval(report: &BgpReport) -> Option<Duration> {
    let mut sessions = report.sessions.values();
    let settled = sessions.clone().all(|session| session.state == BgpSessionState::Established);
    let watched = sessions.any(|session| session.bfd.is_some());
    let every = if settled { ESTABLISHED_POLL_INTERVAL } else { POLL_INTERVAL };
    (!report.sessions.is_empty()).then_some(if watched { BFD_POLL_INTERVAL } else { every })
}
