//! Metrics of gobgpd and of each BGP session. The series of sessions, `ferrolb_bgp_…` and
//! `ferrolb_bfd_…`, have MetalLB's names. The main loop of a node that has a gobgpd creates the
//! metrics. The plan provides the sessions, and the BGP driver provides gobgpd's counters.
//!
//! A scrape does not wait for gobgpd: it reports the counters of the most recent read, and triggers
//! the next read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ferrolb_runtime::metrics::registered;
pub use ferrolb_speaker_core::gobgp::{BfdCounts, SessionCounts};
use ferrolb_speaker_core::plan::{SessionMetric, SessionMetrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};

/// Function that returns the value of one series for a session, or none if the session has no value
/// for the series.
type ReadValue = fn(&SessionMetric, Option<&SessionCounts>) -> Option<u64>;
/// One series that every session has: its name, help text, type, and the function that returns its
/// value.
type Series = (&'static str, &'static str, MetricType, ReadValue);

/// Series of the BGP sessions, `ferrolb_bgp_…`. The name of a counter must end in `_total`
/// (OpenMetrics). Counters to which MetalLB gives another name therefore have the type unknown.
const BGP_SERIES: [Series; 13] = [
    ("session_up", "1 if the session is established", MetricType::Gauge, |session, _| {
        Some(session.established.into())
    }),
    (
        "announced_prefixes_total",
        "Prefixes advertised to the router",
        MetricType::Gauge,
        |session, _| u64::try_from(session.prefixes).ok(),
    ),
    (
        "received_prefixes_total",
        "Prefixes received from the router, which gobgpd stores",
        MetricType::Gauge,
        |_, counts| Some(counts?.received_prefixes),
    ),
    ("updates", "UPDATE messages sent", MetricType::Counter, |_, counts| Some(counts?.sent.update)),
    ("updates_total_received", "UPDATE messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.update)
    }),
    ("opens_sent", "OPEN messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.open)),
    ("opens_received", "OPEN messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.open)
    }),
    ("notifications_sent", "NOTIFICATION messages sent", MetricType::Unknown, |_, counts| {
        Some(counts?.sent.notification)
    }),
    ("keepalives_sent", "KEEPALIVE messages sent", MetricType::Unknown, |_, counts| {
        Some(counts?.sent.keepalive)
    }),
    ("keepalives_received", "KEEPALIVE messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.keepalive)
    }),
    ("route_refresh_sent", "ROUTE-REFRESH messages sent", MetricType::Unknown, |_, counts| {
        Some(counts?.sent.refresh)
    }),
    ("total_sent", "Messages sent", MetricType::Unknown, |_, counts| Some(counts?.sent.total)),
    ("total_received", "Messages received", MetricType::Unknown, |_, counts| {
        Some(counts?.received.total)
    }),
];

/// Series of the BFD sessions, `ferrolb_bfd_…`.
const BFD_SERIES: [Series; 3] = [
    ("session_up", "1 if the BFD session is up", MetricType::Gauge, |_, counts| {
        Some(counts?.bfd?.up.into())
    }),
    ("control_packet_input", "BFD control packets received", MetricType::Unknown, |_, counts| {
        Some(counts?.bfd?.received)
    }),
    ("control_packet_output", "BFD control packets sent", MetricType::Unknown, |_, counts| {
        Some(counts?.bfd?.sent)
    }),
];

/// BGP metrics that the main loop updates.
#[derive(Debug)]
pub struct BgpMetrics {
    /// Sessions that the plan requires for this node.
    pub sessions: watch::Sender<SessionMetrics>,
    /// Number of prefixes that are not advertised because they need too many different sets of
    /// attributes.
    pub prefixes_over_limit: Gauge,
}

/// BGP metrics that the BGP driver updates.
#[derive(Debug)]
pub struct GobgpMetrics {
    /// Counters of the sessions in gobgpd, by the names of BGPPeers.
    pub counts: watch::Sender<BTreeMap<Box<str>, SessionCounts>>,
    /// Signal by which each scrape requests the BGP driver to read the counters.
    pub scraped: Arc<Notify>,
    /// 1 if gobgpd can be used, otherwise 0.
    pub usable: Gauge,
    /// Number of times that gobgpd became unreachable or unusable, or a retry failed.
    pub failures: Counter,
    /// Number of times that gobgpd rejected a session or its BFD, or that the driver ended a
    /// session because the router has this node's own AS.
    pub rejections: Counter,
}

/// Collector of the series of all sessions.
#[derive(Debug)]
struct SessionCollector {
    series: &'static [Series],
    sessions: watch::Receiver<SessionMetrics>,
    counts: watch::Receiver<BTreeMap<Box<str>, SessionCounts>>,
    scraped: Arc<Notify>,
}

/// Creates the BGP metrics and registers them in `registry`, at its root.
#[must_use]
pub fn bgp_metrics(registry: &mut Registry) -> (BgpMetrics, GobgpMetrics) {
    let ((sessions, sessions_receiver), (counts, counts_receiver)) =
        (watch::channel(SessionMetrics::new()), watch::channel(BTreeMap::new()));
    let scraped = Arc::new(Notify::new());
    for (prefix, series) in [("bgp", &BGP_SERIES[..]), ("bfd", &BFD_SERIES[..])] {
        let collector = SessionCollector {
            series,
            sessions: sessions_receiver.clone(),
            counts: counts_receiver.clone(),
            scraped: Arc::clone(&scraped),
        };
        registry.sub_registry_with_prefix(prefix).register_collector(Box::new(collector));
    }
    let own = registry.sub_registry_with_prefix("speaker");
    let gobgp_metrics = GobgpMetrics {
        counts,
        scraped,
        usable: registered(own, "gobgp_usable", "1 if gobgpd of this node is available"),
        failures: registered(own, "gobgp_failures", "Times gobgpd became unavailable"),
        rejections: registered(
            own,
            "bgp_sessions_refused",
            "Sessions that gobgpd rejected, or ended because the router has this node's AS",
        ),
    };
    let prefixes_over_limit = registered(
        own,
        "bgp_prefixes_over_limit",
        "Prefixes that are not advertised because there are too many sets of attributes",
    );
    (BgpMetrics { sessions, prefixes_over_limit }, gobgp_metrics)
}

impl Collector for SessionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.scraped.notify_one();
        // Copies the values, so that their writers do not wait while the series are encoded.
        let (sessions, counts) = (self.sessions.borrow().clone(), self.counts.borrow().clone());
        for (name, help, kind, value) in self.series {
            let mut series = encoder.encode_descriptor(name, help, None, *kind)?;
            for (peer, session) in &sessions {
                let Some(value) = value(session, counts.get(peer)) else { continue };
                let labels = [("peer", &*session.router)];
                let one = series.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(value).encode(one)?,
                    MetricType::Gauge
                    | MetricType::Histogram
                    | MetricType::Info
                    | MetricType::Unknown => {
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
    use gobgp_proto as api;

    use super::*;

    #[test]
    fn series_of_sessions_have_metallbs_names() {
        let mut registry = Registry::with_prefix("ferrolb");
        let (metrics, gobgp_metrics) = bgp_metrics(&mut registry);
        let lines = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let sessions =
                text.lines().filter(|line| line.starts_with("ferrolb_b")).map(str::to_owned);
            sessions.collect::<Vec<_>>()
        };
        assert_eq!(lines(), Vec::<String>::new(), "there is no session");
        let session = |router: &str, established, prefixes| SessionMetric {
            router: router.into(),
            established,
            prefixes,
        };
        let sessions = [
            ("a".into(), session("192.0.2.1:179", true, 7)),
            ("b".into(), session("[2001:db8::1]:179", false, 0)),
        ];
        metrics.sessions.send_replace(sessions.into());
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
        gobgp_metrics.counts.send_replace([("a".into(), counts)].into());
        let series =
            |name: &str, value: u64| format!("ferrolb_{name}{{peer=\"192.0.2.1:179\"}} {value}");
        let (mut actual, mut expected) = (lines(), Vec::new());
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
        actual.sort();
        expected.sort();
        assert_eq!(actual, expected);
        metrics.sessions.send_replace(SessionMetrics::new());
        assert_eq!(lines(), Vec::<String>::new(), "removed sessions have no series");
    }

    #[test]
    fn only_a_scrape_requests_new_counters() {
        let mut registry = Registry::default();
        let (_metrics, gobgp_metrics) = bgp_metrics(&mut registry);
        let scraped = || gobgp_metrics.scraped.notified().now_or_never().is_some();
        assert!(!scraped());
        prometheus_client::encoding::text::encode(&mut String::new(), &registry).unwrap();
        assert!(scraped());
        assert!(!scraped(), "the collectors of one scrape notify once");
    }
}
