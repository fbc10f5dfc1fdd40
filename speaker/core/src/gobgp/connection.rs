//! State of the gobgpd to which the driver is connected, and the report of its sessions.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::Instant;
use ferrolb_proto::facts::PeerLocation;

use super::bfd_port::BfdPortWatch;
use super::gobgp_config::GobgpConfig;
use super::listed_session::ListedSession;
use super::peer_config::PeerConfig;
use super::report::{SessionCounters, session_report};
use super::session_counts::{SessionCounts, session_counts};
use super::steps::ObservedState;
use crate::event::{BgpReport, SessionIssue, SessionReport};

/// State that was read from one gobgpd or set in it since the driver connected to it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) known: ObservedState,
    /// True if gobgpd's version is supported.
    pub(super) version_checked: bool,
    /// The most recent report.
    pub(super) reported: Option<BgpReport>,
    /// Time of the most recent list of the sessions.
    pub(super) listed_at: Option<Instant>,
    /// Sessions that gobgpd rejected, and sessions whose router has this node's AS, with the issue.
    rejections: BTreeMap<PeerLocation, SessionIssue>,
    /// Message counters of each desired session.
    counters: BTreeMap<PeerLocation, SessionCounters>,
    bfd_port: BfdPortWatch,
}

/// Result of a list of the sessions.
#[derive(Debug)]
pub(super) struct Listing {
    /// States of the desired sessions.
    pub(super) report: BgpReport,
    /// Counters of the desired sessions, by the names of their BGPPeers.
    pub(super) counts: BTreeMap<Box<str>, SessionCounts>,
    /// Number of sessions whose router has this node's AS.
    pub(super) rejected: usize,
}

impl Connection {
    pub(super) fn new(known: ObservedState) -> Self {
        Self { known, ..Self::default() }
    }

    /// Records why a session is not in gobgpd, or has no BFD, until [`Self::end_rejections`].
    pub(super) fn reject(&mut self, at: PeerLocation, config: &PeerConfig, why: SessionIssue) {
        self.known.reject(at.clone(), config);
        self.rejections.insert(at, why);
    }

    /// Drops the recorded rejections, so that the sessions are added again.
    pub(super) fn end_rejections(&mut self) {
        self.known.rejected.clear();
        self.rejections.clear();
    }

    /// Returns whether a report covers all desired sessions. After a restart, the speaker finds
    /// sessions that already exist. Neither a step nor a change causes a list of them.
    pub(super) fn has_reported_all(&self, wanted: &GobgpConfig) -> bool {
        let mut names = wanted.peers.values().map(|config| &config.name);
        let reported = self.reported.as_ref();
        reported.is_some_and(|report| names.all(|name| report.sessions.contains_key(name)))
    }

    /// Records the sessions in gobgpd, and returns the state of the desired ones.
    pub(super) fn list(
        &mut self,
        listed: &[ListedSession],
        bfd_sockets: Option<&BTreeSet<u64>>,
        wanted: &GobgpConfig,
        now: Instant,
    ) -> Listing {
        self.listed_at = Some(now);
        self.counters.retain(|location, _| wanted.peers.contains_key(location));
        // The recorded sessions are replaced: another client may have deleted some, and an earlier
        // list may have been incomplete.
        let observed = listed.iter().map(|it| (it.location.clone(), it.observed()));
        self.known.peers = observed.collect();
        let own_asn = wanted.identity.map_or(0, |identity| identity.asn);
        let has_bfd = listed.iter().any(|it| it.peer.bfd.is_some_and(|bfd| bfd.enabled));
        let port_taken =
            bfd_sockets.is_some_and(|sockets| self.bfd_port.is_taken(sockets, has_bfd, now));
        let (mut report, mut counts, mut rejected) = (BgpReport::default(), BTreeMap::new(), 0);
        for (location, config) in &wanted.peers {
            let observed = listed.iter().find(|session| session.location == *location);
            // If a session accepts any external AS, GoBGP also accepts a router with this node's
            // own AS. The next step removes the session.
            let unexpected = observed.and_then(|it| unexpected_own_as(it, config, own_asn));
            if let Some(asn) = unexpected {
                self.known.peers.entry(location.clone()).or_default().has_own_asn = true;
                self.reject(location.clone(), config, SessionIssue::OwnAsn(asn));
                rejected += 1;
            }
            let mut session = SessionReport::default();
            if let Some(observed) = observed.filter(|_| unexpected.is_none()) {
                let counters = self.counters.entry(location.clone());
                let counters = counters.or_insert_with(|| SessionCounters::new(now));
                let (observed, at) = (&observed.peer, (now, port_taken));
                session = session_report(observed, &config.peer, own_asn, counters, at);
            }
            session.issue = session.issue.or_else(|| self.rejections.get(location).cloned());
            report.sessions.insert(config.name.clone(), session);
            counts.extend(observed.map(|observed| {
                (config.name.clone(), session_counts(&observed.peer, &config.peer))
            }));
        }
        Listing { report, counts, rejected }
    }
}

/// Returns this node's own AS number if a session that must be external has a router with the same
/// AS.
fn unexpected_own_as(session: &ListedSession, config: &PeerConfig, own_asn: u32) -> Option<u32> {
    let conf = config.peer.conf.as_ref()?;
    let own_asn = if conf.local_asn == 0 { own_asn } else { conf.local_asn };
    (conf.peer_asn == 0 && session.state().peer_asn == own_asn).then_some(own_asn)
}
