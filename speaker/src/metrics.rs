//! The speaker's metrics. Made once by the main loop; each link's thread gets its own [`LinkMetrics`], which are atomics and
//! take no lock.

mod bgp;
mod data_path;
pub mod probes;

use std::collections::BTreeMap;

use ferrolb_proto::verdict::Verdict;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use bgp::{BfdCounts, BgpMetrics, SessionCounts, Tally, bgp_metrics};
pub use data_path::DataPathMetrics;

/// Upper ends of the buckets of failover durations, in seconds: fine around what the defaults come to, 0.19.
const FAILOVER_BUCKETS: [f64; 12] = [0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0];

/// Upper ends of the buckets of plans, in seconds: below a millisecond with few Services, tens of them with ten thousand.
const PLAN_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

type LinkLabel = [(&'static str, String); 1];
type VerdictLabel = [(&'static str, &'static str); 1];
type DropLabels = [(&'static str, String); 2];

/// Why a frame came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// A hello frame that cannot be read.
    Malformed,
    /// A hello frame of a version that we do not speak.
    Version,
    /// A hello frame of another cluster, or with a key that we do not have yet.
    ForeignKey,
    /// A hello frame with a wrong signature.
    Signature,
    /// A hello frame that is not newer than one already heard: out of order, or played back.
    Stale,
    /// A hello frame of a speaker that has yet to answer a challenge: it has just started, or was recorded in a former life.
    Unproven,
    /// A hello frame that carries this node's name.
    OwnName,
    /// A frame that would have made a table too large.
    Limit,
    /// A question left unanswered because this node was frozen and may have been replaced.
    Gate,
    /// An ARP frame that the kernel dropped because we read too late.
    KernelArp,
    /// A frame of Neighbor Discovery that the kernel dropped because we read too late.
    KernelNdp,
    /// A hello frame that the kernel dropped because we read too late.
    KernelHello,
    /// A frame of ours that the kernel did not take.
    Send,
}

impl Drop {
    const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Version,
        Self::ForeignKey,
        Self::Signature,
        Self::Stale,
        Self::Unproven,
        Self::OwnName,
        Self::Limit,
        Self::Gate,
        Self::KernelArp,
        Self::KernelNdp,
        Self::KernelHello,
        Self::Send,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::ForeignKey => "foreign_key",
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::Unproven => "unproven",
            Self::OwnName => "own_name",
            Self::Limit => "limit",
            Self::Gate => "gate",
            Self::KernelArp => "kernel_arp",
            Self::KernelNdp => "kernel_ndp",
            Self::KernelHello => "kernel_hello",
            Self::Send => "send",
        }
    }
}

/// The metrics of the main loop, and of all links.
#[derive(Clone, Debug)]
pub struct Metrics {
    services: Family<VerdictLabel, Gauge>,
    owned: Family<LinkLabel, Gauge>,
    heard: Family<LinkLabel, Gauge>,
    answered: Family<LinkLabel, Counter>,
    gratuitous: Family<LinkLabel, Counter>,
    sent: Family<LinkLabel, Counter>,
    dropped: Family<DropLabels, Counter>,
    conflicts: Family<LinkLabel, Counter>,
    suspicions: Family<LinkLabel, Counter>,
    refuted: Family<LinkLabel, Counter>,
    deaths: Family<LinkLabel, Counter>,
    fences: Family<LinkLabel, Counter>,
    deaf: Family<LinkLabel, Counter>,
    proxied: Family<LinkLabel, Counter>,
    strangers: Family<LinkLabel, Counter>,
    kernel_answers: Family<LinkLabel, Counter>,
    asked: Family<LinkLabel, Counter>,
    floods: Family<LinkLabel, Counter>,
    muted: Family<LinkLabel, Gauge>,
    failover: Family<LinkLabel, Histogram, fn() -> Histogram>,
    /// How long the main loop takes over a plan, in seconds.
    pub plan: Histogram,
}

impl Metrics {
    /// Empty metrics, registered under `registry`'s prefix.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let all = Self::unregistered();
        registry.register(
            "services",
            "Our Services with addresses, by what this node's endpoints make of them",
            all.services.clone(),
        );
        registry.register("owned_addresses", "Addresses this node answers for", all.owned.clone());
        registry.register("speakers_heard", "Other speakers heard", all.heard.clone());
        registry.register(
            "requests_answered",
            "ARP requests and neighbour solicitations answered",
            all.answered.clone(),
        );
        registry.register(
            "gratuitous_sent",
            "Gratuitous ARP frames and unsolicited neighbour advertisements sent",
            all.gratuitous.clone(),
        );
        registry.register("frames_sent", "Frames of the hello protocol sent", all.sent.clone());
        registry.register("frames_dropped", "Frames that came to nothing, by reason", all.dropped.clone());
        registry.register("conflicts", "Claims of others for an address held here", all.conflicts.clone());
        registry.register("suspicions", "Speakers suspected dead", all.suspicions.clone());
        registry.register("suspicions_refuted", "Suspected speakers that proved alive", all.refuted.clone());
        registry.register("deaths", "Speakers found dead", all.deaths.clone());
        registry.register("fences", "Times all was given up because this node had been frozen", all.fences.clone());
        registry.register(
            "deaf",
            "Times nothing was received any more, although other speakers had been heard",
            all.deaf.clone(),
        );
        registry.register(
            "proxied_deaths",
            "Speakers found dead that something still answers for",
            all.proxied.clone(),
        );
        registry.register("strangers", "Frames of strangers about addresses held here", all.strangers.clone());
        registry.register(
            "kernel_answers",
            "Frames of members' kernels about addresses that another node announces",
            all.kernel_answers.clone(),
        );
        registry.register(
            "requests_sent",
            "ARP requests and neighbour solicitations sent to check an address or a node",
            all.asked.clone(),
        );
        registry.register(
            "floods",
            "Times a host was not heard for a while, because it sent too much ARP or Neighbor Discovery",
            all.floods.clone(),
        );
        registry.register("muted", "Whether another link of this node speaks on the same wire", all.muted.clone());
        registry.register_with_unit(
            "failover_duration",
            "From the last sign of life of a dead speaker to the claim of one of its addresses",
            Unit::Seconds,
            all.failover.clone(),
        );
        registry.register_with_unit(
            "plan",
            "Plans of what this node announces, from the facts to what is wanted of each link",
            Unit::Seconds,
            all.plan.clone(),
        );
        all
    }

    fn unregistered() -> Self {
        let buckets: fn() -> Histogram = || Histogram::new(FAILOVER_BUCKETS);
        Self {
            services: Family::default(),
            owned: Family::default(),
            heard: Family::default(),
            answered: Family::default(),
            gratuitous: Family::default(),
            sent: Family::default(),
            dropped: Family::default(),
            conflicts: Family::default(),
            suspicions: Family::default(),
            refuted: Family::default(),
            deaths: Family::default(),
            fences: Family::default(),
            deaf: Family::default(),
            proxied: Family::default(),
            strangers: Family::default(),
            kernel_answers: Family::default(),
            asked: Family::default(),
            floods: Family::default(),
            muted: Family::default(),
            failover: Family::new_with_constructor(buckets),
            plan: Histogram::new(PLAN_BUCKETS),
        }
    }

    /// Shows how many of our Services get each verdict on this node.
    pub fn show_verdicts(&self, verdicts: &BTreeMap<Verdict, i64>) {
        for verdict in Verdict::ALL {
            let count = verdicts.get(&verdict).copied().unwrap_or_default();
            self.services.get_or_create(&[("verdict", verdict.name())]).set(count);
        }
    }

    /// The metrics of the link of this name.
    #[must_use]
    pub fn link(&self, name: &str) -> LinkMetrics {
        let label = [("link", name.to_owned())];
        let counter = |family: &Family<LinkLabel, Counter>| family.get_or_create(&label).clone();
        LinkMetrics {
            owned: self.owned.get_or_create(&label).clone(),
            heard: self.heard.get_or_create(&label).clone(),
            answered: counter(&self.answered),
            gratuitous: counter(&self.gratuitous),
            sent: counter(&self.sent),
            dropped: Drop::ALL.map(|reason| self.dropped.get_or_create(&drop_labels(name, reason)).clone()),
            conflicts: counter(&self.conflicts),
            suspicions: counter(&self.suspicions),
            refuted: counter(&self.refuted),
            deaths: counter(&self.deaths),
            fences: counter(&self.fences),
            deaf: counter(&self.deaf),
            proxied: counter(&self.proxied),
            strangers: counter(&self.strangers),
            kernel_answers: counter(&self.kernel_answers),
            asked: counter(&self.asked),
            floods: counter(&self.floods),
            muted: self.muted.get_or_create(&label).clone(),
            failover: self.failover.get_or_create(&label).clone(),
        }
    }

    /// Forgets a link: links come and go, their metrics must not pile up.
    pub fn forget(&self, name: &str) {
        let label = [("link", name.to_owned())];
        let gauges = [&self.owned, &self.heard, &self.muted];
        let counters = [&self.answered, &self.gratuitous, &self.sent, &self.conflicts, &self.suspicions, &self.refuted];
        for family in gauges {
            family.remove(&label);
        }
        let more = [
            &self.floods,
            &self.deaths,
            &self.fences,
            &self.deaf,
            &self.proxied,
            &self.strangers,
            &self.kernel_answers,
            &self.asked,
        ];
        self.failover.remove(&label);
        for family in counters.into_iter().chain(more) {
            family.remove(&label);
        }
        for reason in Drop::ALL {
            self.dropped.remove(&drop_labels(name, reason));
        }
    }
}

fn drop_labels(name: &str, reason: Drop) -> DropLabels {
    [("link", name.to_owned()), ("reason", reason.label().to_owned())]
}

/// The metrics of one link.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    /// Addresses this node answers for.
    pub owned: Gauge,
    /// Other speakers heard.
    pub heard: Gauge,
    /// ARP requests and neighbour solicitations answered.
    pub answered: Counter,
    /// Gratuitous ARP frames and unsolicited neighbour advertisements sent.
    pub gratuitous: Counter,
    /// Frames of the hello protocol sent.
    pub sent: Counter,
    dropped: [Counter; Drop::ALL.len()],
    /// Claims of others for an address held here.
    pub conflicts: Counter,
    /// Speakers suspected dead.
    pub suspicions: Counter,
    /// Suspected speakers that proved alive.
    pub refuted: Counter,
    /// Speakers found dead.
    pub deaths: Counter,
    /// Times all was given up because this node had been frozen.
    pub fences: Counter,
    /// Times all was given up because nothing was heard any more.
    pub deaf: Counter,
    /// Speakers found dead that something still answers for.
    pub proxied: Counter,
    /// Frames of strangers about addresses held here.
    pub strangers: Counter,
    /// Frames of members' kernels about addresses that another node announces.
    pub kernel_answers: Counter,
    /// ARP requests and neighbour solicitations sent to check an address or a node.
    pub asked: Counter,
    /// Times a host was not heard for a while, because it sent too much ARP or Neighbor Discovery.
    pub floods: Counter,
    /// Whether another link of this node speaks on the same wire.
    pub muted: Gauge,
    /// From the last sign of life of a dead speaker to the claim of one of its addresses, in seconds.
    pub failover: Histogram,
}

impl LinkMetrics {
    /// The counter of frames dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: Drop) -> &Counter {
        &self.dropped[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_metrics_while_it_is_there_and_none_after() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = Metrics::new(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let link = metrics.link("eth0");
        for (i, reason) in Drop::ALL.into_iter().enumerate() {
            link.dropped(reason).inc_by(i as u64 + 1);
        }
        link.answered.inc();
        for (i, reason) in Drop::ALL.into_iter().enumerate() {
            let line = format!(
                "ferrolb_speaker_frames_dropped_total{{link=\"eth0\",reason=\"{}\"}} {}\n",
                reason.label(),
                i + 1
            );
            assert!(text().contains(&line), "{line}");
        }
        assert!(text().contains("ferrolb_speaker_requests_answered_total{link=\"eth0\"} 1\n"));
        metrics.forget("eth0");
        assert!(!text().contains("eth0"), "{}", text());
    }

    #[test]
    fn services_are_shown_by_their_verdicts_and_those_that_none_has_as_none() {
        let mut registry = Registry::with_prefix("ferrolb_speaker");
        let metrics = Metrics::new(&mut registry);
        let shown = |verdicts: &[(Verdict, i64)]| {
            metrics.show_verdicts(&verdicts.iter().copied().collect());
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter_map(|line| line.strip_prefix("ferrolb_speaker_services{verdict=\""));
            let mut lines: Vec<_> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            shown(&[(Verdict::Ready, 3), (Verdict::NoLocalEndpoint, 2)]),
            ["failing\"} 0", "no_endpoint\"} 0", "no_local_endpoint\"} 2", "ready\"} 3", "terminating\"} 0"]
        );
        assert!(shown(&[(Verdict::NoEndpoint, 1)]).contains(&"ready\"} 0".to_owned()));
    }
}
