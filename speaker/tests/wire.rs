//! Link threads on a real wire: network namespaces joined by a bridge, the kernel's own ARP as the client. Needs root and
//! `ip`; everything it makes is gone when a test ends.

mod lan;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::claim::{self, TroubleKind};
use ferrolb_proto::election::{Candidate, Unit, order};
use ferrolb_proto::wire::hello::{self, KEY_LENGTH, Key, KeyRing};
use ferrolb_proto::wire::{Mac, arp};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::vitals::Vitals;
use ferrolb_speaker::event::LinkReport;
use ferrolb_speaker::link::{LinkHandle, Progress, Setup, Siblings};
use ferrolb_speaker::metrics::{Drop, LinkMetrics, Metrics};
use ferrolb_speaker::plan::Order;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::timeout;

use lan::Lan;

const VIP: [u8; 4] = [172, 30, 0, 200];
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
const HOSTS: [&str; 2] = ["node1", "node2"];
/// Longer than any rule of the protocol takes, on a busy machine: an address that a stranger had is looked at again after 11 s.
const PATIENCE: Duration = Duration::from_secs(20);

struct Speaker {
    name: &'static str,
    mac: Mac,
    handle: LinkHandle,
    progress: watch::Receiver<Progress>,
    metrics: LinkMetrics,
}

fn wanted(leaving: bool) -> Arc<Order> {
    wanted_of(VIP.into(), leaving)
}

fn wanted_of(address: IpAddr, leaving: bool) -> Arc<Order> {
    let candidate = |node: &str| Candidate { node: node.into(), order: order(node, address), ..Candidate::default() };
    let unit = Unit { addresses: [address].into(), candidates: HOSTS.map(candidate).into(), serves_here: true };
    let keys = KeyRing::new(vec![Key::new([7; KEY_LENGTH])]);
    Arc::new(Order { units: vec![Arc::new(unit)], keys, leaving, ..Order::default() })
}

impl Speaker {
    fn start(lan: &Lan, name: &'static str) -> Self {
        // A main loop that beats for an hour from now.
        let vitals = Arc::new(Vitals::new(Clock::now() + Duration::from_secs(3600)));
        Self::on_link(lan, name, "eth0", vitals, Arc::default())
    }

    /// Speaks on a link; all links of a node know each other by `siblings`.
    fn on_link(lan: &Lan, name: &'static str, link: &str, vitals: Arc<Vitals>, siblings: Arc<Siblings>) -> Self {
        let (mac, index) = (lan.mac_of(name, link), lan.index_of(name, link));
        let metrics = Metrics::new(&mut Registry::default()).link("eth0");
        let claims = claim::Config {
            node: name.into(),
            epoch: u64::from(mac.0[4]) << 40 | u64::from(mac.0[5]) << 32 | u64::from(std::process::id()),
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            failback_delay: Some(Duration::from_secs(30)),
        };
        siblings.add(index, claims.epoch);
        let metrics_of_link = metrics.clone();
        let setup = Setup { index, name: link.into(), mac, claims, metrics: metrics_of_link, vitals, siblings };
        let (handle, progress) = lan.inside(name, || LinkHandle::spawn(setup, wanted(false))).expect("a thread");
        Self { name, mac, handle, progress, metrics }
    }

    async fn until(&mut self, what: &str, is: impl Fn(&LinkReport) -> bool) {
        let wait = self.progress.wait_for(|progress| is(progress.as_ref().expect("the thread lives")));
        let found = timeout(PATIENCE, wait).await.map(|found| found.expect("the thread lives").clone());
        assert!(found.is_ok(), "{} never {what}", self.name);
    }

    fn holds(&self) -> bool {
        self.progress.borrow().as_ref().is_ok_and(|report| report.held.contains(&IpAddr::from(VIP)))
    }
}

/// Both speakers, the owner first, once each hears the other and one holds the address.
async fn elected(lan: &Lan) -> (Speaker, Speaker) {
    let mut pair = HOSTS.map(|name| Speaker::start(lan, name));
    for speaker in &mut pair {
        speaker.until("heard the other", |report| report.heard.len() == 1).await;
    }
    // MetalLB's order says who it must be.
    let [one, two] = HOSTS.map(|name| order(name, VIP.into()));
    let [first, second] = pair;
    let (mut owner, other) = if one < two { (first, second) } else { (second, first) };
    owner.until("claimed the address", |report| !report.held.is_empty()).await;
    assert!(!other.holds());
    (owner, other)
}

/// Waits until one of two reports what is wanted; the answer is which.
async fn either(pair: &mut [Speaker; 2], what: &str, is: impl Fn(&LinkReport) -> bool) -> usize {
    let [first, second] = pair;
    tokio::select! {
        () = first.until(what, &is) => 0,
        () = second.until(what, &is) => 1,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

#[test]
fn one_of_two_speakers_answers_and_the_other_takes_over_when_it_dies() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = elected(&lan).await;
        lan.client_learns(VIP, owner.mac).await;
        let (died, before) = (Clock::now(), other.metrics.gratuitous.get());
        drop(owner.handle);
        other.until("took over", |report| !report.held.is_empty()).await;
        let took = Clock::now().since(died);
        println!("another answers {took:?} after the owner died");
        assert!(took < Duration::from_secs(1), "{took:?}");
        lan.client_learns(VIP, other.mac).await;
        assert!(other.metrics.gratuitous.get() >= before + 2, "the wire was told");
        assert_eq!((other.metrics.deaths.get(), other.metrics.owned.get()), (1, 1));
    });
}

#[test]
fn neighbours_are_answered_and_follow_when_the_owner_of_an_ipv6_address_dies() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| Speaker::start(&lan, name));
        pair.iter().for_each(|speaker| speaker.handle.order(wanted_of(VIP6.into(), false)));
        for speaker in &mut pair {
            speaker.until("heard the other", |report| report.heard.len() == 1).await;
        }
        let owner = either(&mut pair, "claimed the address", |report| !report.held.is_empty()).await;
        let [first, second] = pair;
        let (owner, mut other) = if owner == 0 { (first, second) } else { (second, first) };
        lan.client_learns(VIP6, owner.mac).await;
        assert!(owner.metrics.answered.get() >= 1);
        let answered = other.metrics.answered.get();
        drop(owner.handle);
        other.until("took over", |report| !report.held.is_empty()).await;
        // The client knows from the announcement alone: a frame that overrides what it has.
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.gratuitous.get() >= 1, "the wire was told");
        // Asked by one that makes sure, and by one that wants to have the address itself.
        lan.ip("-n", "client", "neighbour del fd30::200 dev eth0");
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.answered.get() > answered);
        lan.ip("-n", "client", "address add fd30::200/128 dev eth0");
        lan.client_sees(|shown| shown.contains("dadfailed"), "address show dev eth0").await;
    });
}

#[test]
fn a_fresh_ipv6_address_that_another_host_has_is_given_up() {
    let lan = Lan::new(&HOSTS);
    lan.ip("-n", "client", "address add fd30::200/128 dev eth0 nodad");
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| Speaker::start(&lan, name));
        pair.iter().for_each(|speaker| speaker.handle.order(wanted_of(VIP6.into(), false)));
        let found = |report: &LinkReport| report.held.is_empty() && report.troubles.len() == 1;
        let finder = either(&mut pair, "found the stranger", found).await;
        let trouble = pair[finder].progress.borrow().as_ref().expect("lives").troubles[0].clone();
        assert_eq!((trouble.mac, trouble.kind), (lan.mac("client"), TroubleKind::Stranger));
    });
}

#[test]
fn a_speaker_that_leaves_hands_over_first() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let (mut owner, mut other) = elected(&lan).await;
        owner.handle.order(wanted(true));
        owner.until("left", |report| report.left).await;
        assert!(!owner.holds());
        other.until("took over", |report| !report.held.is_empty()).await;
        lan.client_learns(VIP, other.mac).await;
        assert_eq!(other.metrics.deaths.get(), 0, "nobody had to die for it");
    });
}

#[test]
fn frames_that_are_not_for_us_are_not_answered_and_bad_hellos_are_counted() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let (owner, _other) = elected(&lan).await;
        let client = lan.mac("client");
        let question = arp::request(client, [172, 30, 0, 100].into(), VIP.into());
        let mut tagged = question[..12].to_vec();
        tagged.extend_from_slice(&[0x81, 0, 0, 5]);
        tagged.extend_from_slice(&question[12..]);
        let mut for_another = question;
        for_another[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
        let answered = owner.metrics.answered.get();
        lan.client_sends(&[&tagged, &for_another]);
        let mut hellos = [[0; 80]; 3];
        for (hello, version) in hellos.iter_mut().zip([hello::VERSION, 9, hello::VERSION]) {
            hello[..6].copy_from_slice(&hello::GROUP.0);
            hello[6..12].copy_from_slice(&client.0);
            hello[12..14].copy_from_slice(&hello::ETHER_TYPE.to_be_bytes());
            hello[14] = version;
        }
        // The first has the id of no key; the third ours, and no signature. The second is of another version.
        let key = Key::new([7; KEY_LENGTH]).id().to_be_bytes();
        hellos[2][18..22].copy_from_slice(&key);
        lan.client_sends(&[&hellos[0], &hellos[1], &hellos[2], &hellos[0][..30]]);
        lan.client_sends(&[&question]);
        let metrics = &owner.metrics;
        let patience = Clock::now() + PATIENCE;
        while metrics.answered.get() == answered && Clock::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The plain question came last and is the only one answered.
        assert_eq!(metrics.answered.get(), answered + 1);
        let dropped = [
            Drop::Malformed,
            Drop::Version,
            Drop::ForeignKey,
            Drop::Signature,
            Drop::OwnName,
            Drop::KernelArp,
            Drop::KernelHello,
        ];
        assert_eq!(dropped.map(|reason| metrics.dropped(reason).get()), [1, 1, 1, 1, 0, 0, 0]);
        assert!(owner.holds());
    });
}

#[test]
fn a_link_that_goes_away_is_reported() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let mut speaker = Speaker::start(&lan, "node1");
        speaker.until("began", |_| true).await;
        lan.ip("-n", "node1", "link set eth0 down");
        let failed =
            timeout(PATIENCE, speaker.progress.wait_for(Result::is_err)).await.expect("a report").unwrap().clone();
        let why = failed.unwrap_err();
        assert!(why.contains("carries no frames"), "{why}");
    });
}

#[test]
fn of_two_links_of_a_node_on_one_wire_the_lower_speaks() {
    let lan = Lan::new(&HOSTS);
    lan.second_link("node1");
    runtime().block_on(async {
        let siblings: Arc<Siblings> = Arc::default();
        let vitals = || Arc::new(Vitals::new(Clock::now() + Duration::from_secs(3600)));
        let mut lower = Speaker::on_link(&lan, "node1", "eth0", vitals(), Arc::clone(&siblings));
        lower.until("claimed the address", |report| !report.held.is_empty()).await;
        let mut upper = Speaker::on_link(&lan, "node1", "eth1", vitals(), siblings);
        upper.until("was muted", |report| report.muted).await;
        let mut other = Speaker::start(&lan, "node2");
        other.until("heard node1", |report| report.heard.len() == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(upper.progress.borrow().as_ref().is_ok_and(|report| report.muted && report.held.is_empty()));
        assert!(lower.progress.borrow().as_ref().is_ok_and(|report| !report.muted));
        // The lower link's thread ends: the upper one speaks for the node after a while.
        drop(lower.handle);
        upper.until("spoke", |report| !report.muted).await;
    });
}

#[test]
fn a_fresh_address_that_another_host_has_is_given_up_within_a_second_and_taken_when_it_is_free() {
    let lan = Lan::new(&HOSTS);
    lan.ip("-n", "client", "address add 172.30.0.200/32 dev eth0");
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| Speaker::start(&lan, name));
        // On a busy machine the second in line may hear nobody at first, and be the one that asks.
        let found = |report: &LinkReport| report.held.is_empty() && report.troubles.len() == 1;
        let finder = &pair[either(&mut pair, "found the stranger", found).await];
        let trouble = finder.progress.borrow().as_ref().expect("lives").troubles[0].clone();
        assert_eq!((trouble.mac, trouble.kind), (lan.mac("client"), TroubleKind::Stranger));
        assert!(finder.metrics.strangers.get() >= 1);
        // The other one may have taken it at the same time.
        for speaker in &mut pair {
            speaker.until("left it to the stranger", |report| report.held.is_empty()).await;
        }
        lan.ip("-n", "client", "address del 172.30.0.200/32 dev eth0");
        let taken = |report: &LinkReport| report.held.len() == 1 && report.troubles.is_empty();
        either(&mut pair, "took it again", taken).await;
        // Both may have taken it at once: of two claims the better one stays.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let owners: Vec<_> = pair.iter().filter(|speaker| speaker.holds()).collect();
        let [owner] = owners[..] else { panic!("{} hold it", owners.len()) };
        lan.client_learns(VIP, owner.mac).await;
    });
}

#[test]
fn a_stuck_main_loop_hands_the_addresses_over() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let names = if order("node1", VIP.into()) < order("node2", VIP.into()) { HOSTS } else { ["node2", "node1"] };
        // The owner's main loop beats no more; five seconds later it counts as stuck.
        let vitals = Arc::new(Vitals::new(Clock::now()));
        let mut owner = Speaker::on_link(&lan, names[0], "eth0", Arc::clone(&vitals), Arc::default());
        let mut other = Speaker::start(&lan, names[1]);
        owner.until("claimed the address", |report| !report.held.is_empty()).await;
        owner.until("handed over", |report| report.held.is_empty()).await;
        other.until("took over", |report| !report.held.is_empty()).await;
        assert_eq!(other.metrics.deaths.get(), 0);
        lan.client_learns(VIP, other.mac).await;
    });
}
