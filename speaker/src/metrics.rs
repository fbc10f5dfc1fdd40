//! Metrics of the speaker, created once by the main loop. Each interface's thread owns its
//! [`LinkMetrics`], which are atomics and take no lock.

mod bgp;
mod drop_reason;
pub mod probes;
mod proxy_health;
mod second_path;

use std::sync::atomic::AtomicU64;

use ferrolb_runtime::metrics::registered;
use ferrolb_speaker_core::claim::MoveCause;
use ferrolb_speaker_core::plan::{SERVING_NAMES, ServingCounts};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

pub use bgp::{BfdCounts, BgpMetrics, GobgpMetrics, SessionCounts, bgp_metrics};
pub use drop_reason::DropReason;
pub use proxy_health::ProxyHealthMetrics;
pub use second_path::{DatagramDrop, SecondPathMetrics};

/// Upper bounds of the failover duration buckets, in seconds. The buckets are narrow around 0.19 s,
/// the failover duration with default flags.
const FAILOVER_BUCKETS: [f64; 12] =
    [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0];

/// Upper bounds of the plan duration buckets, in seconds. Computing a plan takes less than a
/// millisecond with few Services, and tens of milliseconds with ten thousand.
const PLAN_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

/// A gauge of seconds.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

type LinkLabel = [(&'static str, String); 1];
type EndpointsLabel = [(&'static str, &'static str); 1];
type DropLabels = [(&'static str, String); 2];
type MoveLabels = [(&'static str, String); 2];

/// Metrics of the main loop and of all interfaces.
#[derive(Clone, Debug)]
pub struct Metrics {
    addresses: Family<EndpointsLabel, Gauge>,
    owned: Family<LinkLabel, Gauge>,
    frames: FrameMetrics,
    members: MemberMetrics,
    /// Time that the main loop takes to compute a plan, in seconds.
    pub plan: Histogram,
}

/// Numbers of frames that the interfaces send and receive.
#[derive(Clone, Debug)]
struct FrameMetrics {
    replies_sent: Family<LinkLabel, Counter>,
    announcements_sent: Family<LinkLabel, Counter>,
    hello_frames_sent: Family<LinkLabel, Counter>,
    dropped: Family<DropLabels, Counter>,
    requests_sent: Family<LinkLabel, Counter>,
    floods: Family<LinkLabel, Counter>,
    receive_filter_open: Family<LinkLabel, Gauge>,
    foreign_frames: Family<LinkLabel, Counter>,
    foreign_kernel_frames: Family<LinkLabel, Counter>,
}

/// Metrics of the other speakers and of claims.
#[derive(Clone, Debug)]
struct MemberMetrics {
    speakers: Family<LinkLabel, Gauge>,
    unheard_peers: Family<LinkLabel, Gauge>,
    unheard: Family<LinkLabel, Counter>,
    conflicts: Family<LinkLabel, Counter>,
    suspicions: Family<LinkLabel, Counter>,
    refuted_suspicions: Family<LinkLabel, Counter>,
    node_failures: Family<LinkLabel, Counter>,
    stalls: Family<LinkLabel, Counter>,
    isolations: Family<LinkLabel, Counter>,
    stale_proxies: Family<LinkLabel, Counter>,
    standby: Family<LinkLabel, Gauge>,
    late_hellos: Family<LinkLabel, SecondsGauge>,
    failover: Family<LinkLabel, Histogram, fn() -> Histogram>,
    moves: Family<MoveLabels, Counter>,
}

impl FrameMetrics {
    fn new(all: &mut Registry) -> Self {
        Self {
            replies_sent: registered(
                all,
                "requests_answered",
                "ARP replies and neighbor advertisements sent to requests",
            ),
            announcements_sent: registered(
                all,
                "gratuitous_sent",
                "Gratuitous ARP frames and unsolicited neighbor advertisements sent",
            ),
            hello_frames_sent: registered(all, "frames_sent", "Hello protocol frames sent"),
            dropped: registered(all, "frames_dropped", "Frames dropped, by reason"),
            requests_sent: registered(
                all,
                "requests_sent",
                "ARP requests and neighbor solicitations sent to probe an address or a node",
            ),
            floods: registered(
                all,
                "floods",
                "Times the source limiter blocked a host that sent too much ARP or NDP",
            ),
            receive_filter_open: registered(
                all,
                "receive_filter_open",
                "1 if the interface receives ARP and NDP about all addresses, 0 if only about \
                 addresses of pools and Services",
            ),
            foreign_frames: registered(
                all,
                "strangers",
                "Frames in which a foreign host claims an address that this node owns",
            ),
            foreign_kernel_frames: registered(
                all,
                "kernel_answers",
                "Replies of a node's kernel for an address that another node announces",
            ),
        }
    }
}

impl MemberMetrics {
    fn new(all: &mut Registry) -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(FAILOVER_BUCKETS);
        let failover = Family::new_with_constructor(buckets);
        Self {
            speakers: registered(all, "speakers_heard", "Other speakers in contact"),
            unheard_peers: registered(
                all,
                "unheard_peers",
                "Other speakers that run, but whose hello frames do not arrive on the interface",
            ),
            unheard: registered(
                all,
                "unheard",
                "Times another speaker became unheard: it runs, but its hello frames do not arrive",
            ),
            conflicts: registered(
                all,
                "conflicts",
                "Claims by other speakers for an address that this node owns",
            ),
            suspicions: registered(all, "suspicions", "Suspected node failures"),
            refuted_suspicions: registered(
                all,
                "suspicions_refuted",
                "Suspected node failures that proved wrong",
            ),
            node_failures: registered(all, "deaths", "Node failures detected"),
            stalls: registered(
                all,
                "fences",
                "Times this node released all addresses because it had stalled",
            ),
            isolations: registered(
                all,
                "deaf",
                "Times this node became isolated: nothing received, although it had other speakers",
            ),
            stale_proxies: registered(
                all,
                "proxied_deaths",
                "Node failures detected although another host still sends ARP replies for the node",
            ),
            late_hellos: in_seconds(
                all,
                "late_hellos",
                "Time by which hello frames of this node were late in the last minutes, rounded up",
                Family::default(),
            ),
            standby: registered(
                all,
                "muted",
                "1 if the interface is standby: another interface of this node is on the same segment",
            ),
            failover: in_seconds(
                all,
                "failover_duration",
                "Time from the last frame of a failed node to the claim of one of its addresses",
                failover,
            ),
            moves: registered(all, "moves", "Moves of addresses to this node, by their cause"),
        }
    }
}

impl Metrics {
    /// Creates empty metrics and registers them in `registry`, under the registry's prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            addresses: registered(
                registry,
                "addresses",
                "Addresses of Services, by the endpoints with which this node can serve them",
            ),
            owned: registered(registry, "owned_addresses", "Addresses that this node owns"),
            frames: FrameMetrics::new(registry),
            members: MemberMetrics::new(registry),
            plan: in_seconds(
                registry,
                "plan",
                "Time to compute the desired configuration of all interfaces and BGP sessions",
                Histogram::new(PLAN_BUCKETS),
            ),
        }
    }

    /// Publishes the number of the Services' addresses, by how this node can serve them.
    pub fn set_addresses(&self, counts: &ServingCounts) {
        for name in SERVING_NAMES {
            let count = counts.get(name).copied().unwrap_or_default();
            self.addresses.get_or_create(&[("endpoints", name)]).set(count);
        }
    }

    /// Returns the metrics of the interface with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> LinkMetrics {
        let label = [("link", name.to_owned())];
        let counter = |family: &Family<LinkLabel, Counter>| family.get_or_create(&label).clone();
        let gauge = |family: &Family<LinkLabel, Gauge>| family.get_or_create(&label).clone();
        let Self { frames, members, .. } = self;
        LinkMetrics {
            owned: gauge(&self.owned),
            speakers: gauge(&members.speakers),
            unheard_peers: gauge(&members.unheard_peers),
            unheard: counter(&members.unheard),
            replies_sent: counter(&frames.replies_sent),
            announcements_sent: counter(&frames.announcements_sent),
            hello_frames_sent: counter(&frames.hello_frames_sent),
            dropped: DropReason::ALL
                .map(|reason| frames.dropped.get_or_create(&drop_labels(name, reason)).clone()),
            conflicts: counter(&members.conflicts),
            suspicions: counter(&members.suspicions),
            refuted_suspicions: counter(&members.refuted_suspicions),
            node_failures: counter(&members.node_failures),
            stalls: counter(&members.stalls),
            isolations: counter(&members.isolations),
            stale_proxies: counter(&members.stale_proxies),
            foreign_frames: counter(&frames.foreign_frames),
            foreign_kernel_frames: counter(&frames.foreign_kernel_frames),
            requests_sent: counter(&frames.requests_sent),
            floods: counter(&frames.floods),
            standby: gauge(&members.standby),
            late_hellos: members.late_hellos.get_or_create(&label).clone(),
            receive_filter_open: gauge(&frames.receive_filter_open),
            failover: members.failover.get_or_create(&label).clone(),
            moves: MoveCause::ALL
                .map(|cause| members.moves.get_or_create(&move_labels(name, cause)).clone()),
        }
    }

    /// Removes the metrics of the interface with this name. Interfaces are created and deleted
    /// while the speaker runs, and their metrics must not accumulate.
    pub fn remove_link(&self, name: &str) {
        let label = [("link", name.to_owned())];
        let Self { frames, members, owned, .. } = self;
        let gauges = [
            owned,
            &members.speakers,
            &members.unheard_peers,
            &members.standby,
            &frames.receive_filter_open,
        ];
        let counters = [
            &frames.replies_sent,
            &frames.announcements_sent,
            &frames.hello_frames_sent,
            &frames.floods,
            &frames.foreign_frames,
            &frames.foreign_kernel_frames,
            &frames.requests_sent,
            &members.conflicts,
            &members.suspicions,
            &members.refuted_suspicions,
            &members.unheard,
            &members.node_failures,
            &members.stalls,
            &members.isolations,
            &members.stale_proxies,
        ];
        gauges.into_iter().for_each(|family| _ = family.remove(&label));
        counters.into_iter().for_each(|family| _ = family.remove(&label));
        members.failover.remove(&label);
        members.late_hellos.remove(&label);
        for reason in DropReason::ALL {
            frames.dropped.remove(&drop_labels(name, reason));
        }
        for cause in MoveCause::ALL {
            members.moves.remove(&move_labels(name, cause));
        }
    }
}

/// Registers a metric whose values are seconds, and returns it.
fn in_seconds<M: Metric + Clone>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: M,
) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

fn move_labels(name: &str, cause: MoveCause) -> MoveLabels {
    [("interface", name.to_owned()), ("cause", cause.name().to_owned())]
}

fn drop_labels(name: &str, reason: DropReason) -> DropLabels {
    [("link", name.to_owned()), ("reason", reason.label().to_owned())]
}

/// Metrics of one interface.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    /// Number of addresses that this node owns on the interface.
    pub owned: Gauge,
    /// Number of other speakers whose frames this speaker receives on the interface.
    pub speakers: Gauge,
    /// Number of other speakers that run, but whose frames do not arrive on the interface.
    pub unheard_peers: Gauge,
    /// Time in seconds by which hellos were late in the last minutes, rounded up.
    pub late_hellos: SecondsGauge,
    /// Times another speaker became unheard.
    pub unheard: Counter,
    /// ARP requests and neighbor solicitations to which this node replied.
    pub replies_sent: Counter,
    /// Gratuitous ARP frames and unsolicited neighbor advertisements sent.
    pub announcements_sent: Counter,
    /// Frames of the ownership protocol sent.
    pub hello_frames_sent: Counter,
    dropped: [Counter; DropReason::ALL.len()],
    /// Claims of other nodes for an address that this node owns.
    pub conflicts: Counter,
    /// Times another speaker was suspected of having failed.
    pub suspicions: Counter,
    /// Suspicions that proved wrong, because the speaker had not failed.
    pub refuted_suspicions: Counter,
    /// Failures of other speakers that this speaker detected.
    pub node_failures: Counter,
    /// Times this node released all addresses because it had stalled.
    pub stalls: Counter,
    /// Times this node became isolated: it received nothing after having received other speakers.
    pub isolations: Counter,
    /// Failed speakers for whose addresses a device in the network still replied by ARP or NDP.
    pub stale_proxies: Counter,
    /// Frames in which a foreign host uses an address that this node owns or probes.
    pub foreign_frames: Counter,
    /// Frames in which the kernel of another node uses an address that this node owns or probes.
    pub foreign_kernel_frames: Counter,
    /// ARP requests and neighbor solicitations sent to probe an address or a node.
    pub requests_sent: Counter,
    /// Times the source limiter blocked a host because it sent too many ARP, NDP or hello frames.
    pub floods: Counter,
    /// 1 if this is a standby interface, because another interface of this node is active on the
    /// same network segment; otherwise 0.
    pub standby: Gauge,
    /// 1 if the receive filter is open, so that the thread receives the ARP and NDP frames of other
    /// hosts about all addresses; otherwise 0.
    pub receive_filter_open: Gauge,
    /// Time from the last frame of a failed speaker to the claim of one of its addresses, in
    /// seconds.
    pub failover: Histogram,
    moves: [Counter; MoveCause::ALL.len()],
}

impl LinkMetrics {
    /// Returns the counter of frames dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped[reason as usize]
    }

    /// Returns the number of moves to this node with this cause.
    #[must_use]
    pub const fn moves(&self, cause: MoveCause) -> &Counter {
        &self.moves[cause as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_a_removed_interface_are_removed() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let link = metrics.link("eth0");
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            link.dropped(reason).inc_by(i as u64 + 1);
        }
        link.replies_sent.inc();
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            let line = format!(
                "ferrolb_speaker_frames_dropped_total{{link=\"eth0\",reason=\"{}\"}} {}\n",
                reason.label(),
                i + 1
            );
            assert!(text().contains(&line), "{line}");
        }
        assert!(text().contains("ferrolb_speaker_requests_answered_total{link=\"eth0\"} 1\n"));
        metrics.remove_link("eth0");
        assert!(!text().contains("eth0"), "{}", text());
    }

    #[test]
    fn addresses_are_counted_for_every_result() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = Metrics::new(&mut registry);
        let shown = |counts: &[(&'static str, i64)]| {
            metrics.set_addresses(&counts.iter().copied().collect());
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix("ferrolb_speaker_addresses{endpoints=\""));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            shown(&[("ready", 3), ("no_local_endpoint", 2)]),
            [
                "failing\"} 0",
                "no_endpoint\"} 0",
                "no_local_endpoint\"} 2",
                "ready\"} 3",
                "terminating\"} 0"
            ]
        );
        assert!(shown(&[("no_endpoint", 1)]).contains(&"ready\"} 0".to_owned()));
    }
}
