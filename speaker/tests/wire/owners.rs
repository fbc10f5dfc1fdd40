//! Who answers on a wire, and who does after that: two speakers, and what befalls them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::claim::TroubleKind;
use ferrolb_proto::election::order;
use ferrolb_proto::wire::{arp, hello};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::vitals::Vitals;
use ferrolb_speaker::event::LinkReport;
use ferrolb_speaker::link::Siblings;
use ferrolb_speaker::metrics::Drop;
use ferrolb_speaker::plan::Order;
use tokio::time::timeout;

use crate::lan::{Lan, shown};
use crate::port::{Port, plain};
use crate::speaker::{
    BOTH, GRATUITOUS_INTERVAL, HOSTS, PATIENCE, Speaker, VIP, VIP6, counted, either, elected, key, runtime, vitals,
    wanted,
};

#[test]
fn one_of_two_speakers_answers_and_the_other_takes_over_when_it_dies() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = elected(&lan, &[VIP.into()]).await;
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
        let (owner, mut other) = elected(&lan, &[VIP6.into()]).await;
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
        let addresses = || lan.ip("-n", "client", "address show dev eth0");
        shown("a refused address", addresses, |shown| shown.contains("dadfailed")).await;
    });
}

#[test]
fn a_speaker_that_leaves_hands_over_first() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let (mut owner, mut other) = elected(&lan, &[VIP.into()]).await;
        owner.handle.order(Order { leaving: true, ..wanted(&[VIP.into()]) }.into());
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
        let (owner, _other) = elected(&lan, &BOTH).await;
        let client = Port::open(&lan, "client", "eth0");
        let mut for_another = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
        for_another[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
        client.send(&for_another);
        let mut hellos = [[0; 80]; 3];
        for (hello, version) in hellos.iter_mut().zip([hello::VERSION, 9, hello::VERSION]) {
            hello[..6].copy_from_slice(&hello::GROUP.0);
            hello[6..12].copy_from_slice(&client.mac.0);
            hello[12..14].copy_from_slice(&hello::ETHER_TYPE.to_be_bytes());
            hello[14] = version;
        }
        // The first has the id of no key; the third ours, and no signature. The second is of another version.
        let key = key().id().to_be_bytes();
        hellos[2][18..22].copy_from_slice(&key);
        for frame in [&hellos[0], &hellos[1], &hellos[2], &hellos[0][..30]] {
            client.send(frame);
        }
        assert_eq!(client.answers(), plain(owner.mac));
        for reason in [Drop::Malformed, Drop::Version, Drop::ForeignKey, Drop::Signature] {
            counted(|| owner.metrics.dropped(reason).get(), 1).await;
        }
        for reason in [Drop::OwnName, Drop::KernelArp, Drop::KernelHello] {
            assert_eq!(owner.metrics.dropped(reason).get(), 0, "{reason:?}");
        }
        assert!(owner.holds());
    });
}

#[test]
fn a_link_that_goes_away_is_reported() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let mut speaker = Speaker::start(&lan, "node1", &[VIP.into()]);
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
        let mut lower = Speaker::on_link(&lan, "node1", "eth0", &[VIP.into()], vitals(), Arc::clone(&siblings));
        lower.until("claimed the address", |report| !report.held.is_empty()).await;
        let mut upper = Speaker::on_link(&lan, "node1", "eth1", &[VIP.into()], vitals(), siblings);
        upper.until("was muted", |report| report.muted).await;
        let mut other = Speaker::start(&lan, "node2", &[VIP.into()]);
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
fn of_two_links_of_a_node_on_one_wire_the_one_that_is_selected_speaks() {
    let lan = Lan::new(&HOSTS);
    lan.second_link("node1");
    runtime().block_on(async {
        let siblings: Arc<Siblings> = Arc::default();
        let mut lower = Speaker::on_link(&lan, "node1", "eth0", &[VIP.into()], vitals(), Arc::clone(&siblings));
        lower.until("claimed the address", |report| !report.held.is_empty()).await;
        let mut upper = Speaker::on_link(&lan, "node1", "eth1", &[VIP.into()], vitals(), Arc::clone(&siblings));
        upper.until("was muted", |report| report.muted).await;
        // The advertisement names eth1 from now on.
        siblings.select(lan.index_of("node1", "eth0"), false);
        lower.handle.order(Arc::new(Order { units: Vec::new(), ..wanted(&[VIP.into()]) }));
        upper.until("claimed the address", |report| !report.muted && !report.held.is_empty()).await;
        lower.until("was muted", |report| report.muted && report.held.is_empty()).await;
        lan.client_learns(VIP, upper.mac).await;
    });
}

/// A fresh address that the client has is left to it, and taken when it lets go.
fn fresh(address: IpAddr) {
    let lan = Lan::new(&HOSTS);
    let whole =
        if address.is_ipv4() { format!("{address}/32 dev eth0") } else { format!("{address}/128 dev eth0 nodad") };
    lan.ip("-n", "client", &format!("address add {whole}"));
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| Speaker::start(&lan, name, &[address]));
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
        lan.ip("-n", "client", &format!("address del {}", whole.trim_end_matches(" nodad")));
        let taken = |report: &LinkReport| report.held.len() == 1 && report.troubles.is_empty();
        either(&mut pair, "took it again", taken).await;
        // Both may have taken it at once: of two claims the better one stays.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let owners: Vec<_> = pair.iter().filter(|speaker| speaker.holds()).collect();
        let [owner] = owners[..] else { panic!("{} hold it", owners.len()) };
        lan.client_learns(address, owner.mac).await;
    });
}

#[test]
fn a_fresh_address_that_another_host_has_is_given_up_and_taken_when_it_is_free() {
    fresh(VIP.into());
}

#[test]
fn a_fresh_ipv6_address_that_another_host_has_is_given_up_and_taken_when_it_is_free() {
    fresh(VIP6.into());
}

#[test]
fn an_address_is_announced_again_and_again_if_it_is_wanted_so() {
    let lan = Lan::new(&["node1"]);
    runtime().block_on(async {
        let mut owner = Speaker::start(&lan, "node1", &[VIP6.into()]);
        owner.until("claimed the address", |report| !report.held.is_empty()).await;
        // Seven times within 5 s, and after that once in a while.
        let patience = Clock::now() + Duration::from_secs(5) + 2 * GRATUITOUS_INTERVAL + PATIENCE;
        while owner.metrics.gratuitous.get() < 9 {
            assert!(Clock::now() < patience, "{} times", owner.metrics.gratuitous.get());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_stuck_main_loop_hands_the_addresses_over() {
    let lan = Lan::new(&HOSTS);
    runtime().block_on(async {
        let names = if order("node1", VIP.into()) < order("node2", VIP.into()) { HOSTS } else { ["node2", "node1"] };
        // The owner's main loop beats no more; five seconds later it counts as stuck.
        let vitals = Arc::new(Vitals::new(Clock::now()));
        let mut owner = Speaker::on_link(&lan, names[0], "eth0", &[VIP.into()], Arc::clone(&vitals), Arc::default());
        let mut other = Speaker::start(&lan, names[1], &[VIP.into()]);
        owner.until("claimed the address", |report| !report.held.is_empty()).await;
        owner.until("handed over", |report| report.held.is_empty()).await;
        other.until("took over", |report| !report.held.is_empty()).await;
        assert_eq!(other.metrics.deaths.get(), 0);
        lan.client_learns(VIP, other.mac).await;
    });
}

#[test]
fn addresses_outside_every_prefix_of_the_link_are_answered_for() {
    let lan = Lan::new(&HOSTS);
    let far: [IpAddr; 2] = ["203.0.113.5".parse().expect("an address"), "2001:db8::5".parse().expect("an address")];
    runtime().block_on(async {
        let (owner, _other) = elected(&lan, &far).await;
        for prefix in ["203.0.113.0/24", "2001:db8::/64"] {
            lan.ip("-n", "client", &format!("route add {prefix} dev eth0"));
        }
        for address in far {
            lan.client_learns(address, owner.mac).await;
        }
    });
}
