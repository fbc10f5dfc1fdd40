//! The metrics of BGP: of each session under MetalLB's names, `ferrolb_bgp_…` and `ferrolb_bfd_…`, and of gobgpd. Made by the main loop of a node that
//! has a gobgpd; the plan says which sessions there are, the driver what gobgpd has counted.
//!
//! Nothing asks gobgpd for numbers while nobody wants them: each scrape has the driver look, and shows what the look before it found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use gobgp_proto as api;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};

use crate::plan::{Shown, ShownSession};

/// What gobgpd has counted of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Messages that came, by kind.
    pub received: api::Message,
    /// Messages that went, by kind.
    pub sent: api::Message,
    /// Prefixes that the router has sent and that are in gobgpd's memory.
    pub received_prefixes: u64,
    /// Its BFD session, if it has one.
    pub bfd: Option<BfdCounts>,
}

/// What gobgpd says of a BFD session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BfdCounts {
    /// It is up.
    pub up: bool,
    /// Control packets that came.
    pub received: u64,
    /// Control packets that went.
    pub sent: u64,
}

/// A number of a session, if there is one.
type Value = fn(&ShownSession, Option<&SessionCounts>) -> Option<u64>;
/// A series: its name, its help, its type and its value.
type Series = (&'static str, &'static str, MetricType, Value);

/// `ferrolb_bgp_…`. A counter's name has to end in `_total` (OpenMetrics); those that MetalLB calls otherwise are of no type.
const BGP: [Series; 13] = [
    ("session_up", "Whether there is a session", MetricType::Gauge, |session, _| Some(session.established.into())),
    ("announced_prefixes_total", "Prefixes that the router is announced", MetricType::Gauge, |session, _| {
        u64::try_from(session.prefixes).ok()
    }),
    ("received_prefixes_total", "Prefixes of the router that gobgpd keeps", MetricType::Gauge, |_, counts| {
        Some(counts?.received_prefixes)
    }),
    ("updates", "UPDATE messages sent", MetricType::Counter, |_, counts| Some(counts?.sent.update)),
    ("updates_total_received", "UPDATE messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.update)
    }),
    ("opens_sent", "OPEN messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.open)),
    ("opens_received", "OPEN messages received", MetricType::Unknown, |_, counts| Some(counts?.received.open)),
    ("notifications_sent", "NOTIFICATION messages sent", MetricType::Unknown, |_, counts| {
        Some(counts?.sent.notification)
    }),
    ("keepalives_sent", "KEEPALIVE messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.keepalive)),
    ("keepalives_received", "KEEPALIVE messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.keepalive)
    }),
    ("route_refresh_sent", "ROUTE-REFRESH messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.refresh)),
    ("total_sent", "Messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.total)),
    ("total_received", "Messages received", MetricType::Unknown, |_, counts| Some(counts?.received.total)),
];

/// `ferrolb_bfd_…`.
const BFD: [Series; 3] = [
    ("session_up", "Whether the BFD session is up", MetricType::Gauge, |_, counts| Some(counts?.bfd?.up.into())),
    ("control_packet_input", "BFD control packets received", MetricType::Unknown, |_, counts| {
        Some(counts?.bfd?.received)
    }),
    ("control_packet_output", "BFD control packets sent", MetricType::Unknown, |_, counts| Some(counts?.bfd?.sent)),
];

/// What the main loop shows.
#[derive(Debug)]
pub struct BgpMetrics {
    /// The sessions that the node is to have.
    pub shown: watch::Sender<Shown>,
    /// Prefixes that are not announced because there are too many kinds of them.
    pub left_out: Gauge,
    /// Times that a speaker was asked whether it lives, and did not say so.
    pub unanswered: Counter,
}

/// What the driver of gobgpd shows.
#[derive(Debug)]
pub struct Tally {
    /// What gobgpd has counted, by the names of BGPPeers.
    pub counts: watch::Sender<BTreeMap<Box<str>, SessionCounts>>,
    /// Somebody has asked for it.
    pub asked: Arc<Notify>,
    /// Whether gobgpd can be used.
    pub usable: Gauge,
    /// Times that it was found away or of no use.
    pub failures: Counter,
    /// Times that it would not have a session, or that one was ended as one with our own AS.
    pub refusals: Counter,
}

/// The series of all sessions.
#[derive(Debug)]
struct Sessions {
    series: &'static [Series],
    shown: watch::Receiver<Shown>,
    counts: watch::Receiver<BTreeMap<Box<str>, SessionCounts>>,
    asked: Arc<Notify>,
}

/// Metrics at zero, registered in `registry`, which is everybody's.
#[must_use]
pub fn bgp_metrics(registry: &mut Registry) -> (BgpMetrics, Tally) {
    let ((shown, sessions), (counts, counted)) = (watch::channel(Shown::new()), watch::channel(BTreeMap::new()));
    let asked = Arc::new(Notify::new());
    for (prefix, series) in [("bgp", &BGP[..]), ("bfd", &BFD[..])] {
        let (shown, counts, asked) = (sessions.clone(), counted.clone(), Arc::clone(&asked));
        let all = Sessions { series, shown, counts, asked };
        registry.sub_registry_with_prefix(prefix).register_collector(Box::new(all));
    }
    let metrics = BgpMetrics { shown, left_out: Gauge::default(), unanswered: Counter::default() };
    let (usable, failures, refusals) = (Gauge::default(), Counter::default(), Counter::default());
    let tally = Tally { counts, asked, usable, failures, refusals };
    let own = registry.sub_registry_with_prefix("speaker");
    own.register("gobgp_usable", "Whether this node's gobgpd can be used", tally.usable.clone());
    own.register("gobgp_failures", "Times gobgpd was found away or of no use", tally.failures.clone());
    own.register(
        "bgp_sessions_refused",
        "Times gobgpd refused a session, or had to end one with our own AS",
        tally.refusals.clone(),
    );
    own.register(
        "bgp_prefixes_over_limit",
        "Prefixes that are not announced because there are too many kinds of them",
        metrics.left_out.clone(),
    );
    own.register(
        "speakers_unanswered",
        "Times the speaker of another node was asked whether it lives, and did not say so",
        metrics.unanswered.clone(),
    );
    (metrics, tally)
}

impl Collector for Sessions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.asked.notify_one();
        // Copied, so that who writes them does not wait for who reads all this.
        let (shown, counts) = (self.shown.borrow().clone(), self.counts.borrow().clone());
        for (name, help, kind, value) in self.series {
            let mut series = encoder.encode_descriptor(name, help, None, *kind)?;
            for (peer, session) in &shown {
                let Some(value) = value(session, counts.get(peer)) else { continue };
                let labels = [("peer", &*session.router)];
                let one = series.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(value).encode(one)?,
                    MetricType::Gauge | MetricType::Histogram | MetricType::Info | MetricType::Unknown => {
                        ConstGauge::new(value).encode(one)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn sessions_are_shown_under_metallbs_names_with_what_is_known_of_them() {
        let mut registry = Registry::with_prefix("ferrolb");
        let (metrics, tally) = bgp_metrics(&mut registry);
        let lines = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let sessions = text.lines().filter(|line| line.starts_with("ferrolb_b")).map(str::to_owned);
            sessions.collect::<Vec<_>>()
        };
        assert_eq!(lines(), Vec::<String>::new(), "there is no session");
        let shown = |router: &str, established, prefixes| ShownSession { router: router.into(), established, prefixes };
        let sessions =
            [("a".into(), shown("192.0.2.1:179", true, 7)), ("b".into(), shown("[2001:db8::1]:179", false, 0))];
        metrics.shown.send_replace(sessions.into());
        let of = |from: u64| api::Message {
            notification: from,
            update: from + 1,
            open: from + 2,
            keepalive: from + 3,
            refresh: from + 4,
            total: from + 5,
        };
        let bfd = Some(BfdCounts { up: true, received: 31, sent: 32 });
        let counts = SessionCounts { received: of(10), sent: of(20), received_prefixes: 9, bfd };
        tally.counts.send_replace([("a".into(), counts)].into());
        let series = |name: &str, value: u64| format!("ferrolb_{name}{{peer=\"192.0.2.1:179\"}} {value}");
        let (mut is, mut expected) = (lines(), Vec::new());
        for (name, value) in [
            ("bgp_session_up", 1),
            ("bgp_announced_prefixes_total", 7),
            ("bgp_received_prefixes_total", 9),
            ("bgp_updates_total", 21),
            ("bgp_updates_total_received", 11),
            ("bgp_opens_sent", 22),
            ("bgp_opens_received", 12),
            ("bgp_notifications_sent", 20),
            ("bgp_keepalives_sent", 23),
            ("bgp_keepalives_received", 13),
            ("bgp_route_refresh_sent", 24),
            ("bgp_total_sent", 25),
            ("bgp_total_received", 15),
            ("bfd_session_up", 1),
            ("bfd_control_packet_input", 31),
            ("bfd_control_packet_output", 32),
        ] {
            expected.push(series(name, value));
        }
        for name in ["bgp_session_up", "bgp_announced_prefixes_total"] {
            expected.push(format!("ferrolb_{name}{{peer=\"[2001:db8::1]:179\"}} 0"));
        }
        is.sort();
        expected.sort();
        assert_eq!(is, expected);
        metrics.shown.send_replace(Shown::new());
        assert_eq!(lines(), Vec::<String>::new(), "what is gone is shown no more");
    }

    #[test]
    fn a_scrape_asks_for_numbers_and_nothing_else_does() {
        let mut registry = Registry::default();
        let (_metrics, tally) = bgp_metrics(&mut registry);
        let asked = || tally.asked.notified().now_or_never().is_some();
        assert!(!asked());
        prometheus_client::encoding::text::encode(&mut String::new(), &registry).unwrap();
        assert!(asked());
        assert!(!asked(), "both parts of a scrape are one");
    }
}
