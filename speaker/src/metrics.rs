//! Metrics of the speaker, created once by the main loop. Each interface's thread owns its
//! [`LinkMetrics`], which are atomics and take no lock.

mod bgp;
mod drop_reason;
pub mod probes;
mod proxy_health;
mod second_path;

use ferrolb_proto::claim::MoveCause;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::plan::{AddressCounts, SERVING_NAMES};

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

type LinkLabel = [(&'static str, String); 1];
type EndpointsLabel = [(&'static str, &'static str); 1];
type DropLabels = [(&'static str, String); 2];
type MoveLabels = [(&'static str, String); 2];

/// Metrics of the main loop and of all interfaces.
#[derive(Clone, Debug)]
pub struct Metrics {
    addresses: Family<EndpointsLabel, Gauge>,
    owned: Family<LinkLabel, Gauge>,
    speakers: Family<LinkLabel, Gauge>,
    unheard_peers: Family<LinkLabel, Gauge>,
    unheard: Family<LinkLabel, Counter>,
    replies_sent: Family<LinkLabel, Counter>,
    announcements_sent: Family<LinkLabel, Counter>,
    hello_frames_sent: Family<LinkLabel, Counter>,
    dropped: Family<DropLabels, Counter>,
    conflicts: Family<LinkLabel, Counter>,
    suspicions: Family<LinkLabel, Counter>,
    refuted_suspicions: Family<LinkLabel, Counter>,
    node_failures: Family<LinkLabel, Counter>,
    stalls: Family<LinkLabel, Counter>,
    isolations: Family<LinkLabel, Counter>,
    stale_proxies: Family<LinkLabel, Counter>,
    foreign_frames: Family<LinkLabel, Counter>,
    foreign_kernel_frames: Family<LinkLabel, Counter>,
    requests_sent: Family<LinkLabel, Counter>,
    floods: Family<LinkLabel, Counter>,
    standby: Family<LinkLabel, Gauge>,
    receive_filter_open: Family<LinkLabel, Gauge>,
    failover: Family<LinkLabel, Histogram, fn() -> Histogram>,
    moves: Family<MoveLabels, Counter>,
    /// Time that the main loop takes to compute a plan, in seconds.
    pub plan: Histogram,
}

impl Metrics {
    /// Creates empty metrics and registers them in `registry`, under the registry's prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::unregistered();
        registry.register(
            "addresses",
            "Addresses of Services, by the endpoints with which this node can serve them",
            all.addresses.clone(),
        );
        registry.register("owned_addresses", "Addresses that this node owns", all.owned.clone());
        all.register_frames(registry);
        all.register_membership(registry);
        registry.register_with_unit(
            "plan",
            "Time to compute the desired configuration of all interfaces and BGP sessions",
            Unit::Seconds,
            all.plan.clone(),
        );
        all
    }

    /// Registers counters of frames that the interfaces send and receive.
    fn register_frames(&self, registry: &mut Registry) {
        registry.register(
            "requests_answered",
            "ARP replies and neighbor advertisements sent to requests",
            self.replies_sent.clone(),
        );
        registry.register(
            "gratuitous_sent",
            "Gratuitous ARP frames and unsolicited neighbor advertisements sent",
            self.announcements_sent.clone(),
        );
        registry.register(
            "frames_sent",
            "Hello protocol frames sent",
            self.hello_frames_sent.clone(),
        );
        registry.register("frames_dropped", "Frames dropped, by reason", self.dropped.clone());
        registry.register(
            "requests_sent",
            "ARP requests and neighbor solicitations sent to probe an address or a node",
            self.requests_sent.clone(),
        );
        registry.register(
            "floods",
            "Times the source limiter blocked a host that sent too much ARP or NDP",
            self.floods.clone(),
        );
        registry.register(
            "receive_filter_open",
            "1 if the interface receives ARP and NDP about all addresses, 0 if only about addresses \
             of pools and Services",
            self.receive_filter_open.clone(),
        );
        registry.register(
            "strangers",
            "Frames in which a foreign host claims an address that this node owns",
            self.foreign_frames.clone(),
        );
        registry.register(
            "kernel_answers",
            "Replies of a node's kernel for an address that another node announces",
            self.foreign_kernel_frames.clone(),
        );
    }

    /// Registers metrics of the other speakers and of claims.
    fn register_membership(&self, registry: &mut Registry) {
        registry.register("speakers_heard", "Other speakers in contact", self.speakers.clone());
        registry.register(
            "unheard_peers",
            "Other speakers that run, but whose hello frames do not arrive on the interface",
            self.unheard_peers.clone(),
        );
        registry.register(
            "unheard",
            "Times another speaker became unheard: it runs, but its hello frames do not arrive",
            self.unheard.clone(),
        );
        registry.register(
            "conflicts",
            "Claims by other speakers for an address that this node owns",
            self.conflicts.clone(),
        );
        registry.register("suspicions", "Suspected node failures", self.suspicions.clone());
        registry.register(
            "suspicions_refuted",
            "Suspected node failures that proved wrong",
            self.refuted_suspicions.clone(),
        );
        registry.register("deaths", "Node failures detected", self.node_failures.clone());
        registry.register(
            "fences",
            "Times this node released all addresses because it had stalled",
            self.stalls.clone(),
        );
        registry.register(
            "deaf",
            "Times this node became isolated: nothing received, although it had other speakers",
            self.isolations.clone(),
        );
        registry.register(
            "proxied_deaths",
            "Node failures detected although another host still sends ARP replies for the node",
            self.stale_proxies.clone(),
        );
        registry.register(
            "muted",
            "1 if the interface is standby: another interface of this node is on the same segment",
            self.standby.clone(),
        );
        registry.register_with_unit(
            "failover_duration",
            "Time from the last frame of a failed node to the claim of one of its addresses",
            Unit::Seconds,
            self.failover.clone(),
        );
        registry.register(
            "moves",
            "Moves of addresses to this node, by their cause",
            self.moves.clone(),
        );
    }

    fn unregistered() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(FAILOVER_BUCKETS);
        Self {
            addresses: Family::default(),
            owned: Family::default(),
            speakers: Family::default(),
            unheard_peers: Family::default(),
            unheard: Family::default(),
            replies_sent: Family::default(),
            announcements_sent: Family::default(),
            hello_frames_sent: Family::default(),
            dropped: Family::default(),
            conflicts: Family::default(),
            suspicions: Family::default(),
            refuted_suspicions: Family::default(),
            node_failures: Family::default(),
            stalls: Family::default(),
            isolations: Family::default(),
            stale_proxies: Family::default(),
            foreign_frames: Family::default(),
            foreign_kernel_frames: Family::default(),
            requests_sent: Family::default(),
            floods: Family::default(),
            standby: Family::default(),
            receive_filter_open: Family::default(),
            failover: Family::new_with_constructor(buckets),
            moves: Family::default(),
            plan: Histogram::new(PLAN_BUCKETS),
        }
    }

    /// Publishes the number of the Services' addresses, by how this node can serve them.
    pub fn set_addresses(&self, counts: &AddressCounts) {
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
        LinkMetrics {
            owned: self.owned.get_or_create(&label).clone(),
            speakers: self.speakers.get_or_create(&label).clone(),
            unheard_peers: self.unheard_peers.get_or_create(&label).clone(),
            unheard: counter(&self.unheard),
            replies_sent: counter(&self.replies_sent),
            announcements_sent: counter(&self.announcements_sent),
            hello_frames_sent: counter(&self.hello_frames_sent),
            dropped: DropReason::ALL
                .map(|reason| self.dropped.get_or_create(&drop_labels(name, reason)).clone()),
            conflicts: counter(&self.conflicts),
            suspicions: counter(&self.suspicions),
            refuted_suspicions: counter(&self.refuted_suspicions),
            node_failures: counter(&self.node_failures),
            stalls: counter(&self.stalls),
            isolations: counter(&self.isolations),
            stale_proxies: counter(&self.stale_proxies),
            foreign_frames: counter(&self.foreign_frames),
            foreign_kernel_frames: counter(&self.foreign_kernel_frames),
            requests_sent: counter(&self.requests_sent),
            floods: counter(&self.floods),
            standby: self.standby.get_or_create(&label).clone(),
            receive_filter_open: self.receive_filter_open.get_or_create(&label).clone(),
            failover: self.failover.get_or_create(&label).clone(),
            moves: MoveCause::ALL
                .map(|cause| self.moves.get_or_create(&move_labels(name, cause)).clone()),
        }
    }

    /// Removes the metrics of the interface with this name. Interfaces are created and deleted
    /// while the speaker runs, and their metrics must not accumulate.
    pub fn remove_link(&self, name: &str) {
        let label = [("link", name.to_owned())];
        let gauges = [
            &self.owned,
            &self.speakers,
            &self.unheard_peers,
            &self.standby,
            &self.receive_filter_open,
        ];
        let counters = [
            &self.replies_sent,
            &self.announcements_sent,
            &self.hello_frames_sent,
            &self.conflicts,
            &self.suspicions,
            &self.refuted_suspicions,
            &self.unheard,
        ];
        for family in gauges {
            family.remove(&label);
        }
        let more = [
            &self.floods,
            &self.node_failures,
            &self.stalls,
            &self.isolations,
            &self.stale_proxies,
            &self.foreign_frames,
            &self.foreign_kernel_frames,
            &self.requests_sent,
        ];
        self.failover.remove(&label);
        for family in counters.into_iter().chain(more) {
            family.remove(&label);
        }
        for reason in DropReason::ALL {
            self.dropped.remove(&drop_labels(name, reason));
        }
        for cause in MoveCause::ALL {
            self.moves.remove(&move_labels(name, cause));
        }
    }
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
