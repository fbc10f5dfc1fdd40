//! Task that reconciles gobgpd with the plan. The main loop's `JoinSet` owns the task; cancelling
//! it is safe, and leaves gobgpd unchanged. The task is gobgpd's only client. After a failure, the
//! task connects again, reads gobgpd's state and continues from there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::api::BgpSessionState;
use ferrolb_proto::facts::PeerLocation;
use ferrolb_runtime::admin::ActionRequest;
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::log_once::LogOnce;
use ferrolb_speaker_core::event::{BgpReport, Event, SessionIssue, SessionReport};
use ferrolb_speaker_core::plan::BgpConfig;
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::bfd_port::{self, BfdPortWatch};
use super::client::{Client, GobgpError, ListedSession, sessions};
use super::config_receiver::ConfigReceiver;
use super::gobgp_config::GobgpConfig;
use super::peer_config::PeerConfig;
use super::report::{SessionCounters, session_counts, session_report, transitions};
use super::stale_socket::StaleSocket;
use super::steps::{BgpStep, ObservedState, next_step};
use crate::metrics::GobgpMetrics;

/// Interval between attempts to use a gobgpd that is unavailable or unusable.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum delay from gobgpd's report of a change until gobgpd's list of sessions shows the change.
const SETTLE_DELAY: Duration = Duration::from_millis(50);
/// Interval at which sessions are read while a session is not established: gobgpd counts failed
/// attempts to open the session, but does not report them.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time after which a session that gobgpd rejected is added again: the interface that it needs may
/// exist by then.
const REJECTION_LIFETIME: Duration = Duration::from_secs(10);

/// HTTP path of the handover action. The `preStop` hook of gobgpd's container requests it. The
/// speaker then stops gobgpd in such a way that routers keep its routes for the next gobgpd.
pub const HANDOVER_PATH: &str = "/gobgp/handover";
/// HTTP path of gobgpd's liveness probe, which the speaker serves. gobgpd is healthy while it
/// replies to the speaker and the speaker's main loop runs.
pub const HEALTHZ_PATH: &str = "/gobgp/healthz";
/// Delay before a handover. If the whole node shuts down, its Node becomes not Ready at about the
/// same time, and no handover must take place.
const HANDOVER_DELAY: Duration = Duration::from_secs(1);
/// Interval at which sessions are read while a session has BFD: gobgpd reports no changes of BFD.
const BFD_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which sessions are read while all are established: gobgpd does not report how many
/// prefixes a router sent.
const ESTABLISHED_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// Minimum time between two reads of the sessions that scrapes of the metrics cause.
const SCRAPE_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Brings the gobgpd at the socket `path` to the latest desired state, as soon as that is known.
/// Reports the state of gobgpd's sessions, sets `responsive` to true while gobgpd replies, and
/// stops gobgpd on request. Runs until the process ends.
pub async fn run(
    (path, responsive): (String, Arc<AtomicBool>),
    wanted: watch::Receiver<Option<BgpConfig>>,
    mut handovers: mpsc::Receiver<ActionRequest>,
    events: mpsc::Sender<Event>,
    metrics: GobgpMetrics,
) {
    let mut wanted = ConfigReceiver::new(wanted);
    let (mut error_log, mut stale_socket) = (LogOnce::default(), StaleSocket::default());
    let first_read_done = AtomicBool::new(false);
    loop {
        let gobgpd = (&*path, &*responsive, &first_read_done);
        let Err(error) = run_connection(
            gobgpd,
            &mut wanted,
            &mut handovers,
            &events,
            &metrics,
            &mut stale_socket,
        )
        .await;
        // A gobgpd that is too old counts as healthy, because a restart by the kubelet would not
        // help.
        responsive.store(matches!(error, GobgpError::TooOld(_)), Ordering::Relaxed);
        stale_socket.remove_if_stale(&path).await;
        metrics.usable.set(0);
        metrics.failures.inc();
        metrics.counts.send_replace(BTreeMap::new());
        let why = error.to_string();
        while let Ok(request) = handovers.try_recv() {
            request.respond(Err(why.clone()));
        }
        let report = BgpReport { unusable: Some(why.as_str().into()), ..BgpReport::default() };
        if error_log.begins(why.clone()) {
            warn!(why, "gobgpd is not available, retrying");
        }
        if events.send(Event::Bgp(report)).await.is_err() {
            return;
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Reconciles gobgpd over one connection until the connection fails.
async fn run_connection(
    (path, responsive, first_read_done): (&str, &AtomicBool, &AtomicBool),
    wanted: &mut ConfigReceiver,
    handovers: &mut mpsc::Receiver<ActionRequest>,
    events: &mpsc::Sender<Event>,
    metrics: &GobgpMetrics,
    stale_socket: &mut StaleSocket,
) -> Result<Infallible, GobgpError> {
    let mut client = Client::connect(path).await?;
    stale_socket.mark_alive(path);
    let known = client.read().await?;
    responsive.store(true, Ordering::Relaxed);
    if !first_read_done.swap(true, Ordering::Relaxed) {
        let _ = events.send(Event::GobgpRead(known.paths.len())).await;
    }
    info!(path, sessions = known.peers.len(), prefixes = known.paths.len(), "connected to gobgpd");
    let mut changes = pin!(client.changes());
    let mut daemon = GobgpSession {
        client,
        known,
        metrics,
        rejections: BTreeMap::new(),
        counters: BTreeMap::new(),
        retry_at: None,
        bfd_port_watch: BfdPortWatch::default(),
        version_checked: false,
    };
    let mut reported = None;
    let mut poll_at = Some(Clock::now());
    let mut polled_at = None;
    loop {
        let now = Clock::now();
        daemon.expire_rejections(now);
        if daemon.reconcile(wanted).await? || !covers(reported.as_ref(), wanted) {
            poll_at = poll_soon(poll_at);
        }
        if poll_at.is_some_and(|at| at <= now) {
            let report = daemon.poll(wanted).await?;
            polled_at = Some(now);
            metrics.usable.set(1);
            poll_at = poll_interval(&report).map(|after| now + after);
            log_transitions(reported.as_ref(), &report);
            if reported.as_ref() != Some(&report) {
                reported = Some(report.clone());
                let _ = events.send(Event::Bgp(report)).await;
            }
            // The states of the sessions were just read. They may require another step, because BFD
            // is enabled only in established sessions.
            if daemon.next(wanted).is_some() {
                continue;
            }
        }
        let wake = [poll_at, daemon.retry_at].into_iter().flatten().min();
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => poll_at = poll_soon(poll_at),
                None => return Err(GobgpError::Call { call: "WatchEvent", why: "the stream ended".to_owned() }),
            },
            () = metrics.scraped.notified() => {
                let next = polled_at.map_or_else(Clock::now, |at| at + SCRAPE_POLL_INTERVAL);
                poll_at = poll_at.into_iter().chain([next]).min();
            }
            Ok(()) = wanted.changed() => {}
            Some(request) = handovers.recv() => daemon.hand_over(request, wanted).await?,
            () = Clock::sleep_until(wake) => {}
        }
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

fn log_transitions(before: Option<&BgpReport>, now: &BgpReport) {
    for (peer, lost_reason) in transitions(before, now) {
        match lost_reason {
            None => info!(peer, "BGP session established"),
            Some(why) => warn!(peer, why, "BGP session lost"),
        }
    }
}

/// Returns whether a report covers all desired sessions. After a restart, the speaker finds
/// sessions that already exist. Neither a step nor a change causes a read of them.
fn covers(report: Option<&BgpReport>, wanted: &mut ConfigReceiver) -> bool {
    let peers = wanted.latest().into_iter().flat_map(|wanted| wanted.peers.values());
    let mut names = peers.map(|config| &config.name);
    report.is_some_and(|report| names.all(|name| report.sessions.contains_key(name)))
}

/// Returns the time of the next read after a change: after [`SETTLE_DELAY`], or earlier if a read
/// is due earlier anyway.
fn poll_soon(poll_at: Option<Instant>) -> Option<Instant> {
    poll_at.into_iter().chain([Clock::now() + SETTLE_DELAY]).min()
}

/// Connection to one gobgpd, and the state that the driver last read from it or set in it.
struct GobgpSession<'t> {
    client: Client,
    known: ObservedState,
    metrics: &'t GobgpMetrics,
    /// Sessions that gobgpd rejected, and sessions that the driver ended again, with the reason.
    rejections: BTreeMap<PeerLocation, SessionIssue>,
    /// Message counters of each desired session.
    counters: BTreeMap<PeerLocation, SessionCounters>,
    /// Time at which rejected sessions are added again, if there are any.
    retry_at: Option<Instant>,
    /// Sockets by which the driver detects other programs that use the BFD port.
    bfd_port_watch: BfdPortWatch,
    /// True if the driver has verified that gobgpd's version is supported.
    version_checked: bool,
}

impl GobgpSession<'_> {
    /// Executes steps until gobgpd has the desired state, each computed from the latest desired
    /// state. Returns whether a step changed a session.
    async fn reconcile(&mut self, wanted: &mut ConfigReceiver) -> Result<bool, GobgpError> {
        let mut session_changed = false;
        loop {
            if self.known.identity.is_some() && !self.version_checked {
                self.client.check_version().await?;
                self.version_checked = true;
            }
            wanted.mark_unchanged();
            let Some(step) = self.next(wanted) else {
                wanted.latest().into_iter().for_each(|wanted| self.known.share_paths(wanted));
                return Ok(session_changed);
            };
            session_changed |= matches!(
                step,
                BgpStep::AddSession(..) | BgpStep::RemoveSession(_) | BgpStep::SetBfd(..)
            );
            match (self.client.execute(&step).await, step) {
                (Ok(()), step) => self.known.apply(step),
                (Err(GobgpError::Rejected(why)), BgpStep::AddSession(location, config)) => {
                    self.reject(location, &config, SessionIssue::RejectedByGobgp(why.into()))
                }
                (Err(GobgpError::Rejected(why)), BgpStep::SetBfd(location, config, _)) => {
                    self.reject(location, &config, SessionIssue::BfdRejectedByGobgp(why.into()));
                }
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Returns the next step towards the latest desired state of gobgpd, if one is left.
    fn next(&self, wanted: &mut ConfigReceiver) -> Option<BgpStep> {
        wanted.latest().and_then(|wanted| next_step(wanted, &self.known))
    }

    /// Stops gobgpd, so that routers with graceful restart keep its routes for the next gobgpd.
    /// Does not stop gobgpd if the next one possibly does not start in time, because a stopped
    /// gobgpd cannot be started again.
    async fn hand_over(
        &mut self,
        request: ActionRequest,
        wanted: &mut ConfigReceiver,
    ) -> Result<(), GobgpError> {
        tokio::time::sleep(HANDOVER_DELAY).await;
        if !request.is_client_waiting() {
            return Ok(());
        }
        let no_restart_reason =
            wanted.latest().map_or(Some("the speaker has no configuration yet"), |wanted| {
                wanted.no_restart_reason
            });
        if let Some(why) = no_restart_reason {
            info!(
                why,
                "gobgpd stops without graceful restart: peers are not asked to keep its routes"
            );
            request.respond(Err(why.to_owned()));
            return Ok(());
        }
        let stopped = self.client.stop().await;
        request.respond(stopped.as_ref().copied().map_err(ToString::to_string));
        Err(stopped.err().unwrap_or(GobgpError::Stopped))
    }

    fn reject(&mut self, location: PeerLocation, config: &PeerConfig, why: SessionIssue) {
        self.metrics.rejections.inc();
        self.known.reject(location.clone(), config);
        self.rejections.insert(location, why);
        self.retry_at.get_or_insert_with(|| Clock::now() + REJECTION_LIFETIME);
    }

    /// Drops the recorded rejections once the retry is due, so that the sessions are added again.
    fn expire_rejections(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.known.rejected.clear();
            self.rejections.clear();
            self.retry_at = None;
        }
    }

    /// Reads the sessions and returns the state of the desired ones. Ends sessions that must be
    /// external but whose router has this node's AS.
    async fn poll(&mut self, wanted: &mut ConfigReceiver) -> Result<BgpReport, GobgpError> {
        let listed = self.client.peers().await?;
        let not_known = GobgpConfig::default();
        let wanted = wanted.latest().unwrap_or(&not_known);
        let own_asn = wanted.identity.map_or(0, |identity| identity.asn);
        let (mut report, mut counts, now) = (BgpReport::default(), BTreeMap::new(), Clock::now());
        self.counters.retain(|location, _| wanted.peers.contains_key(location));
        // The recorded sessions are replaced: another client may have deleted some, and an earlier
        // list may have been incomplete.
        self.known.peers = sessions(&listed);
        let bfd_port_taken = self.bfd_port_taken(&listed, wanted, now);
        for (location, config) in &wanted.peers {
            let observed = listed.iter().find(|session| session.location == *location);
            // If a session accepts any external AS, GoBGP also accepts a router with this node's
            // own AS.
            if let Some(asn) =
                observed.and_then(|observed| unexpected_own_as(observed, config, own_asn))
            {
                let step = BgpStep::RemoveSession(location.clone());
                self.client.execute(&step).await?;
                self.known.apply(step);
                self.reject(location.clone(), config, SessionIssue::OwnAsn(asn));
            }
            let rejection = self.rejections.get(location);
            let session = match observed.filter(|_| self.known.peers.contains_key(location)) {
                Some(observed) => {
                    let counters = self
                        .counters
                        .entry(location.clone())
                        .or_insert_with(|| SessionCounters::new(now));
                    let session = session_report(
                        &observed.peer,
                        &config.peer,
                        own_asn,
                        counters,
                        (now, bfd_port_taken),
                    );
                    SessionReport { issue: session.issue.or(rejection.cloned()), ..session }
                }
                None => SessionReport { issue: rejection.cloned(), ..SessionReport::default() },
            };
            report.sessions.insert(config.name.clone(), session);
            counts.extend(observed.map(|observed| {
                (config.name.clone(), session_counts(&observed.peer, &config.peer))
            }));
        }
        self.metrics.counts.send_replace(counts);
        Ok(report)
    }

    /// Returns whether another program uses the BFD port while a session needs BFD.
    fn bfd_port_taken(
        &mut self,
        listed: &[ListedSession],
        wanted: &GobgpConfig,
        now: Instant,
    ) -> bool {
        let watched = wanted.peers.values().any(|config| config.peer.bfd.is_some());
        let has_bfd = listed.iter().any(|session| session.peer.bfd.is_some_and(|bfd| bfd.enabled));
        watched && self.bfd_port_watch.is_taken(&bfd_port::sockets(), has_bfd, now)
    }
}

/// Returns this node's own AS number if a session that must be external has a router with the same
/// AS.
fn unexpected_own_as(session: &ListedSession, config: &PeerConfig, own_asn: u32) -> Option<u32> {
    let conf = config.peer.conf.as_ref()?;
    let own_asn = if conf.local_asn == 0 { own_asn } else { conf.local_asn };
    (conf.peer_asn == 0 && session.state().peer_asn == own_asn).then_some(own_asn)
}
