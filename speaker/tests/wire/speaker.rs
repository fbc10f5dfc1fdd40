//! The interface thread of one speaker, its reports and its metrics, for tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::{Candidate, Unit, order};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{HelloKey, HelloKeyRing, KEY_LENGTH};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker::link::{LinkHandle, LinkSetup, SecondPath, Siblings, ThreadState};
use ferrolb_speaker::metrics::{LinkMetrics, Metrics};
use ferrolb_speaker_core::claim;
use ferrolb_speaker_core::event::LinkReport;
use ferrolb_speaker_core::plan::LinkConfig;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::segment::Segment;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
/// The addresses of an election unit with both families.
pub(crate) const BOTH_VIPS: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];
pub(crate) const HOSTS: [&str; 2] = ["node1", "node2"];
/// Timeout of each step of the tests, longer than any timer of the ownership protocol on a busy
/// host: a contested address is probed again after 11 s.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Time after an address's last announcement until the next one.
pub(crate) const GRATUITOUS_INTERVAL: Duration = Duration::from_secs(3);

pub(crate) struct TestSpeaker {
    pub(crate) name: &'static str,
    pub(crate) mac: Mac,
    pub(crate) handle: LinkHandle,
    pub(crate) thread_state: watch::Receiver<ThreadState>,
    pub(crate) metrics: LinkMetrics,
}

/// The key that all speakers of these tests use.
pub(crate) fn key() -> HelloKey {
    HelloKey::new([7; KEY_LENGTH])
}

/// Returns the config to announce these addresses of one Service, as one of the [`HOSTS`].
pub(crate) fn link_config(addresses: &[IpAddr]) -> LinkConfig {
    let candidate = |node: &str| Candidate { node: node.into(), ..Candidate::default() };
    let candidates: Arc<[Candidate]> = HOSTS.map(candidate).into();
    let unit = |address: &IpAddr| {
        (*address, Arc::new(Unit::new(*address, addresses[0], Arc::clone(&candidates))))
    };
    let source_v6 = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    LinkConfig {
        units: addresses.iter().map(unit).collect::<BTreeMap<_, _>>().into_iter().collect(),
        keys: HelloKeyRing::new(vec![key()]),
        source_v6,
        ..LinkConfig::default()
    }
}

/// Returns the config with node1 as the only candidate of each address. A node that has heard no
/// other candidate probes each address before it claims the address, and leaves a new one to the
/// first host that announces it.
pub(crate) fn with_one_candidate(config: LinkConfig) -> LinkConfig {
    let candidates: Arc<[Candidate]> =
        [Candidate { node: HOSTS[0].into(), ..Candidate::default() }].into();
    let unit = |(address, _): (&IpAddr, &Arc<Unit>)| {
        (*address, Arc::new(Unit::new(*address, *address, Arc::clone(&candidates))))
    };
    let units = config.units.iter().map(unit).collect::<BTreeMap<_, _>>().into_iter().collect();
    LinkConfig { units, ..config }
}

/// Returns a watchdog whose heartbeat counts as recent for an hour.
pub(crate) fn healthy_watchdog() -> Arc<Watchdog> {
    Arc::new(Watchdog::new(Clock::now() + Duration::from_secs(3600)))
}

impl TestSpeaker {
    pub(crate) fn start(lan: &Segment, name: &'static str, addresses: &[IpAddr]) -> Self {
        Self::on_link(lan, name, "eth0", addresses, healthy_watchdog(), Arc::default())
    }

    /// Starts a speaker on an interface. Interfaces of one node share `siblings`.
    pub(crate) fn on_link(
        lan: &Segment,
        name: &'static str,
        link: &str,
        addresses: &[IpAddr],
        watchdog: Arc<Watchdog>,
        siblings: Arc<Siblings>,
    ) -> Self {
        Self::with_second_path(lan, (name, link), addresses, (watchdog, siblings), None)
    }

    /// Starts a speaker as [`Self::on_link`] does, with this second path.
    pub(crate) fn with_second_path(
        lan: &Segment,
        (name, link): (&'static str, &str),
        addresses: &[IpAddr],
        (watchdog, siblings): (Arc<Watchdog>, Arc<Siblings>),
        second_path: Option<Arc<SecondPath>>,
    ) -> Self {
        let (mac, index) = (lan.mac_of(name, link), lan.index_of(name, link));
        let metrics = Metrics::new(&mut Registry::default()).link(link);
        let claims = claim::ClaimConfig {
            node: name.into(),
            epoch: u64::from(mac.0[4]) << 40
                | u64::from(mac.0[5]) << 32
                | u64::from(std::process::id()),
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(Duration::from_secs(30)),
        };
        siblings.add(index, claims.epoch, true);
        let metrics_of_link = metrics.clone();
        let (link, gratuitous_interval) = (link.into(), Some(GRATUITOUS_INTERVAL));
        let setup = LinkSetup {
            index,
            name: link,
            mac,
            claims,
            gratuitous_interval,
            metrics: metrics_of_link,
            watchdog,
            siblings,
            second_path,
        };
        let config = Arc::new(link_config(addresses));
        let (handle, thread_state) =
            lan.inside(name, || LinkHandle::spawn(setup, config)).expect("a thread");
        Self { name, mac, handle, thread_state, metrics }
    }

    pub(crate) async fn wait_until(&mut self, what: &str, condition: impl Fn(&LinkReport) -> bool) {
        let wait = self
            .thread_state
            .wait_for(|thread_state| condition(thread_state.as_ref().expect("the thread runs")));
        let found =
            timeout(TIMEOUT, wait).await.map(|found| found.expect("the thread runs").clone());
        assert!(found.is_ok(), "{} never {what}", self.name);
    }

    /// Returns whether the speaker owns any address.
    pub(crate) fn owns_any(&self) -> bool {
        self.thread_state.borrow().as_ref().is_ok_and(|report| !report.owned.is_empty())
    }
}

/// Starts both speakers and waits until each receives the other's hellos and one owns the
/// addresses. Returns the owner first.
pub(crate) async fn start_pair(lan: &Segment, addresses: &[IpAddr]) -> (TestSpeaker, TestSpeaker) {
    start_pair_on(lan, "eth0", addresses).await
}

/// Starts both speakers as [`start_pair`] does, on the interface `link` instead of `eth0`.
pub(crate) async fn start_pair_on(
    lan: &Segment,
    link: &str,
    addresses: &[IpAddr],
) -> (TestSpeaker, TestSpeaker) {
    let pair = HOSTS.map(|name| {
        TestSpeaker::on_link(lan, name, link, addresses, healthy_watchdog(), Arc::default())
    });
    settle_pair(pair, addresses).await
}

/// Waits until each of both speakers receives the other's hellos, and one owns the addresses.
/// Returns the owner first.
pub(crate) async fn settle_pair(
    mut pair: [TestSpeaker; 2],
    addresses: &[IpAddr],
) -> (TestSpeaker, TestSpeaker) {
    for speaker in &mut pair {
        speaker
            .wait_until("received hellos of the other speaker", |report| report.speakers.len() == 1)
            .await;
    }
    // MetalLB's order determines the owner.
    let [one, two] = HOSTS.map(|name| order(name, &addresses[0].to_string()));
    let [first, second] = pair;
    let (mut owner, other) = if one < two { (first, second) } else { (second, first) };
    owner.wait_until("claimed the addresses", |report| report.owned.len() == addresses.len()).await;
    assert!(!other.owns_any());
    (owner, other)
}

/// Waits until `condition` is true for the report of one of two speakers. Returns the index of that
/// speaker.
pub(crate) async fn wait_for_either(
    pair: &mut [TestSpeaker; 2],
    what: &str,
    condition: impl Fn(&LinkReport) -> bool,
) -> usize {
    let [first, second] = pair;
    tokio::select! {
        () = first.wait_until(what, &condition) => 0,
        () = second.wait_until(what, &condition) => 1,
    }
}

/// Waits until a count reaches this value, and checks that the count does not exceed it: a thread
/// sends first and counts afterwards.
pub(crate) async fn wait_for_count(count: impl Fn() -> u64, expect: u64) {
    let deadline = Clock::now() + TIMEOUT;
    while count() < expect && Clock::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(), expect);
}

/// Returns the number of client requests to which the owner replied. Excludes the requests of the
/// other speaker, which it sends if it suspects the owner.
pub(crate) fn client_replies(owner: &TestSpeaker, other: &TestSpeaker) -> u64 {
    owner.metrics.replies_sent.get() - other.metrics.requests_sent.get()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}
