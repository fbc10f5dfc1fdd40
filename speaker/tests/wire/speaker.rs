//! A speaker of one link as the tests run it: its thread, and what that says of itself. Each test owns its speakers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::claim;
use ferrolb_proto::election::{Candidate, Unit, order};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{KEY_LENGTH, Key, KeyRing};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::vitals::Vitals;
use ferrolb_speaker::event::LinkReport;
use ferrolb_speaker::link::{LinkHandle, Progress, Setup, Siblings};
use ferrolb_speaker::metrics::{LinkMetrics, Metrics};
use ferrolb_speaker::plan::Order;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::lan::Lan;

pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
/// A unit of both families.
pub(crate) const BOTH: [IpAddr; 2] = [IpAddr::V4(VIP), IpAddr::V6(VIP6)];
pub(crate) const HOSTS: [&str; 2] = ["node1", "node2"];
/// Longer than any rule of the protocol takes, on a busy machine: an address that a stranger had is looked at again after 11 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long after its last announcement an address is announced again.
pub(crate) const GRATUITOUS_INTERVAL: Duration = Duration::from_secs(3);

pub(crate) struct Speaker {
    name: &'static str,
    pub(crate) mac: Mac,
    pub(crate) handle: LinkHandle,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) metrics: LinkMetrics,
}

/// The key that all speakers of these tests have.
pub(crate) fn key() -> Key {
    Key::new([7; KEY_LENGTH])
}

/// The order to announce these addresses as one unit, as one of the [`HOSTS`].
pub(crate) fn wanted(addresses: &[IpAddr]) -> Order {
    let candidate =
        |node: &str| Candidate { node: node.into(), order: order(node, addresses[0]), ..Candidate::default() };
    let addresses_of_unit = addresses.iter().copied().collect();
    let unit = Unit {
        addresses: addresses_of_unit,
        candidates: HOSTS.map(candidate).into(),
        serves_here: true,
        failing: Box::default(),
    };
    let source_v6 = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    Order { units: vec![Arc::new(unit)], keys: KeyRing::new(vec![key()]), source_v6, ..Order::default() }
}

/// A main loop that beats for an hour from now.
pub(crate) fn vitals() -> Arc<Vitals> {
    Arc::new(Vitals::new(Clock::now() + Duration::from_secs(3600)))
}

impl Speaker {
    pub(crate) fn start(lan: &Lan, name: &'static str, addresses: &[IpAddr]) -> Self {
        Self::on_link(lan, name, "eth0", addresses, vitals(), Arc::default())
    }

    /// Speaks on a link; all links of a node know each other by `siblings`.
    pub(crate) fn on_link(
        lan: &Lan,
        name: &'static str,
        link: &str,
        addresses: &[IpAddr],
        vitals: Arc<Vitals>,
        siblings: Arc<Siblings>,
    ) -> Self {
        let (mac, index) = (lan.mac_of(name, link), lan.index_of(name, link));
        let metrics = Metrics::new(&mut Registry::default()).link(link);
        let claims = claim::Config {
            node: name.into(),
            epoch: u64::from(mac.0[4]) << 40 | u64::from(mac.0[5]) << 32 | u64::from(std::process::id()),
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            failback_delay: Some(Duration::from_secs(30)),
        };
        siblings.add(index, claims.epoch, true);
        let metrics_of_link = metrics.clone();
        let (link, gratuitous_interval) = (link.into(), Some(GRATUITOUS_INTERVAL));
        let setup =
            Setup { index, name: link, mac, claims, gratuitous_interval, metrics: metrics_of_link, vitals, siblings };
        let order = Arc::new(wanted(addresses));
        let (handle, progress) = lan.inside(name, || LinkHandle::spawn(setup, order)).expect("a thread");
        Self { name, mac, handle, progress, metrics }
    }

    pub(crate) async fn until(&mut self, what: &str, is: impl Fn(&LinkReport) -> bool) {
        let wait = self.progress.wait_for(|progress| is(progress.as_ref().expect("the thread lives")));
        let found = timeout(PATIENCE, wait).await.map(|found| found.expect("the thread lives").clone());
        assert!(found.is_ok(), "{} never {what}", self.name);
    }

    /// Whether it holds anything.
    pub(crate) fn holds(&self) -> bool {
        self.progress.borrow().as_ref().is_ok_and(|report| !report.held.is_empty())
    }
}

/// Both speakers, the owner first, once each hears the other and one holds the addresses.
pub(crate) async fn elected(lan: &Lan, addresses: &[IpAddr]) -> (Speaker, Speaker) {
    elected_on(lan, "eth0", addresses).await
}

/// The same on another link than `eth0`.
pub(crate) async fn elected_on(lan: &Lan, link: &str, addresses: &[IpAddr]) -> (Speaker, Speaker) {
    let mut pair = HOSTS.map(|name| Speaker::on_link(lan, name, link, addresses, vitals(), Arc::default()));
    for speaker in &mut pair {
        speaker.until("heard the other", |report| report.heard.len() == 1).await;
    }
    // MetalLB's order says who it must be.
    let [one, two] = HOSTS.map(|name| order(name, addresses[0]));
    let [first, second] = pair;
    let (mut owner, other) = if one < two { (first, second) } else { (second, first) };
    owner.until("claimed the addresses", |report| report.held.len() == addresses.len()).await;
    assert!(!other.holds());
    (owner, other)
}

/// Waits until one of two reports what is wanted; the answer is which.
pub(crate) async fn either(pair: &mut [Speaker; 2], what: &str, is: impl Fn(&LinkReport) -> bool) -> usize {
    let [first, second] = pair;
    tokio::select! {
        () = first.until(what, &is) => 0,
        () = second.until(what, &is) => 1,
    }
}

/// Waits until a count has come so far, and no farther: a thread sends first and counts then.
pub(crate) async fn counted(count: impl Fn() -> u64, expect: u64) {
    let patience = Clock::now() + PATIENCE;
    while count() < expect && Clock::now() < patience {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(), expect);
}

/// The questions of clients that the owner has answered: all but the other speaker's, which asks when it takes the owner for dead.
pub(crate) fn answered(owner: &Speaker, other: &Speaker) -> u64 {
    owner.metrics.answered.get() - other.metrics.asked.get()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}
