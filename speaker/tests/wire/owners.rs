//! The owner of an address on a segment, and its successor: two speakers and their failures.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::claim::ConflictKind;
use ferrolb_proto::election::order;
use ferrolb_proto::wire::{arp, hello};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker::event::LinkReport;
use ferrolb_speaker::link::Siblings;
use ferrolb_speaker::metrics::DropReason;
use ferrolb_speaker::plan::LinkConfig;
use tokio::time::timeout;

use crate::raw_socket::{RawSocket, plain_replies};
use crate::segment::{Segment, wait_for_output};
use crate::speaker::{
    BOTH, GRATUITOUS_INTERVAL, HOSTS, TIMEOUT, TestSpeaker, VIP, VIP6, healthy_watchdog, key,
    link_config, runtime, start_pair, wait_for_count, wait_for_either,
};

#[test]
fn one_of_two_speakers_answers_and_the_other_takes_over_when_it_dies() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = start_pair(&lan, &[VIP.into()]).await;
        lan.client_learns(VIP, owner.mac).await;
        let (died, before) = (Clock::now(), other.metrics.announcements_sent.get());
        drop(owner.handle);
        other.until("took over", |report| !report.owned.is_empty()).await;
        let took = Clock::now().since(died);
        println!("another answers {took:?} after the owner died");
        assert!(took < Duration::from_secs(1), "{took:?}");
        lan.client_learns(VIP, other.mac).await;
        assert!(other.metrics.announcements_sent.get() >= before + 2, "the wire was told");
        assert_eq!((other.metrics.node_failures.get(), other.metrics.owned.get()), (1, 1));
    });
}

#[test]
fn neighbours_are_answered_and_follow_when_the_owner_of_an_ipv6_address_dies() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = start_pair(&lan, &[VIP6.into()]).await;
        lan.client_learns(VIP6, owner.mac).await;
        assert!(owner.metrics.replies_sent.get() >= 1);
        let answered = other.metrics.replies_sent.get();
        drop(owner.handle);
        other.until("took over", |report| !report.owned.is_empty()).await;
        // The client learns the new owner from an advertisement with the override flag alone.
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.announcements_sent.get() >= 1, "the wire was told");
        // Requests from a client that resolves the address, and from one that is about to use the
        // address itself.
        lan.ip("-n", "client", "neighbour del fd30::200 dev eth0");
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.replies_sent.get() > answered);
        lan.ip("-n", "client", "address add fd30::200/128 dev eth0");
        let addresses = || lan.ip("-n", "client", "address show dev eth0");
        wait_for_output("a refused address", addresses, |shown| shown.contains("dadfailed")).await;
    });
}

#[test]
fn a_speaker_that_leaves_hands_over_first() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (mut owner, mut other) = start_pair(&lan, &[VIP.into()]).await;
        owner.handle.set_config(LinkConfig { leaving: true, ..link_config(&[VIP.into()]) }.into());
        owner.until("left", |report| report.handed_over).await;
        assert!(!owner.owns_any());
        other.until("took over", |report| !report.owned.is_empty()).await;
        lan.client_learns(VIP, other.mac).await;
        assert_eq!(other.metrics.node_failures.get(), 0, "nobody had to die for it");
    });
}

#[test]
fn frames_that_are_not_for_us_are_not_answered_and_bad_hellos_are_counted() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &BOTH).await;
        let client = RawSocket::open(&lan, "client", "eth0");
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
        // The first has an unknown key id. The second has another version. The third has our key
        // id, but no signature.
        let key = key().id().to_be_bytes();
        hellos[2][18..22].copy_from_slice(&key);
        for frame in [&hellos[0], &hellos[1], &hellos[2], &hellos[0][..30]] {
            client.send(frame);
        }
        assert_eq!(client.probe_and_collect_replies(), plain_replies(owner.mac));
        for reason in [
            DropReason::Malformed,
            DropReason::Version,
            DropReason::ForeignKey,
            DropReason::Signature,
        ] {
            wait_for_count(|| owner.metrics.dropped(reason).get(), 1).await;
        }
        for reason in [DropReason::OwnName, DropReason::KernelArp, DropReason::KernelHello] {
            assert_eq!(owner.metrics.dropped(reason).get(), 0, "{reason:?}");
        }
        assert!(owner.owns_any());
    });
}

#[test]
fn a_link_that_goes_away_is_reported() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let mut speaker = TestSpeaker::start(&lan, "node1", &[VIP.into()]);
        speaker.until("began", |_| true).await;
        lan.ip("-n", "node1", "link set eth0 down");
        let failed = timeout(TIMEOUT, speaker.progress.wait_for(Result::is_err))
            .await
            .expect("a report")
            .unwrap()
            .clone();
        let why = failed.unwrap_err();
        assert!(why.contains("carries no frames"), "{why}");
    });
}

#[test]
fn of_two_links_of_a_node_on_one_wire_the_lower_speaks() {
    let lan = Segment::new(&HOSTS);
    lan.add_eth1("node1");
    runtime().block_on(async {
        let siblings: Arc<Siblings> = Arc::default();
        let mut lower = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth0",
            &[VIP.into()],
            healthy_watchdog(),
            Arc::clone(&siblings),
        );
        lower.until("claimed the address", |report| !report.owned.is_empty()).await;
        let mut upper = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth1",
            &[VIP.into()],
            healthy_watchdog(),
            siblings,
        );
        upper.until("was muted", |report| report.standby).await;
        let mut other = TestSpeaker::start(&lan, "node2", &[VIP.into()]);
        other.until("heard node1", |report| report.speakers.len() == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            upper
                .progress
                .borrow()
                .as_ref()
                .is_ok_and(|report| report.standby && report.owned.is_empty())
        );
        assert!(lower.progress.borrow().as_ref().is_ok_and(|report| !report.standby));
        // The lower interface's thread ends: the upper one becomes active for the node after a
        // while.
        drop(lower.handle);
        upper.until("spoke", |report| !report.standby).await;
    });
}

#[test]
fn of_two_links_of_a_node_on_one_wire_the_one_that_is_selected_speaks() {
    let lan = Segment::new(&HOSTS);
    lan.add_eth1("node1");
    runtime().block_on(async {
        let siblings: Arc<Siblings> = Arc::default();
        let mut lower = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth0",
            &[VIP.into()],
            healthy_watchdog(),
            Arc::clone(&siblings),
        );
        lower.until("claimed the address", |report| !report.owned.is_empty()).await;
        let mut upper = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth1",
            &[VIP.into()],
            healthy_watchdog(),
            Arc::clone(&siblings),
        );
        upper.until("was muted", |report| report.standby).await;
        // The advertisement names eth1 from now on.
        siblings.set_selected(lan.index_of("node1", "eth0"), false);
        lower
            .handle
            .set_config(Arc::new(LinkConfig { units: Vec::new(), ..link_config(&[VIP.into()]) }));
        upper
            .until("claimed the address", |report| !report.standby && !report.owned.is_empty())
            .await;
        lower.until("was muted", |report| report.standby && report.owned.is_empty()).await;
        lan.client_learns(VIP, upper.mac).await;
    });
}

/// A new address that the client uses is left to the client, and claimed once the client releases
/// it.
fn newly_claimed(address: IpAddr) {
    let lan = Segment::new(&HOSTS);
    let whole = if address.is_ipv4() {
        format!("{address}/32 dev eth0")
    } else {
        format!("{address}/128 dev eth0 nodad")
    };
    lan.ip("-n", "client", &format!("address add {whole}"));
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| TestSpeaker::start(&lan, name, &[address]));
        // On a busy machine the second candidate may receive no hello at first, and be the one that
        // probes.
        let found = |report: &LinkReport| report.owned.is_empty() && report.conflicts.len() == 1;
        let finder = &pair[wait_for_either(&mut pair, "found the stranger", found).await];
        let trouble = finder.progress.borrow().as_ref().expect("lives").conflicts[0].clone();
        assert_eq!((trouble.mac, trouble.kind), (lan.mac("client"), ConflictKind::ForeignHost));
        assert!(finder.metrics.foreign_frames.get() >= 1);
        // The other speaker may have claimed the address at the same time.
        for speaker in &mut pair {
            speaker.until("left it to the stranger", |report| report.owned.is_empty()).await;
        }
        lan.ip("-n", "client", &format!("address del {}", whole.trim_end_matches(" nodad")));
        let taken = |report: &LinkReport| report.owned.len() == 1 && report.conflicts.is_empty();
        wait_for_either(&mut pair, "took it again", taken).await;
        // Both may have claimed the address at once: the better claim stays.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let owners: Vec<_> = pair.iter().filter(|speaker| speaker.owns_any()).collect();
        let [owner] = owners[..] else { panic!("{} hold it", owners.len()) };
        lan.client_learns(address, owner.mac).await;
    });
}

#[test]
fn a_fresh_address_that_another_host_has_is_given_up_and_taken_when_it_is_free() {
    newly_claimed(VIP.into());
}

#[test]
fn a_fresh_ipv6_address_that_another_host_has_is_given_up_and_taken_when_it_is_free() {
    newly_claimed(VIP6.into());
}

#[test]
fn an_address_is_announced_again_and_again_if_it_is_wanted_so() {
    let lan = Segment::new(&["node1"]);
    runtime().block_on(async {
        let mut owner = TestSpeaker::start(&lan, "node1", &[VIP6.into()]);
        owner.until("claimed the address", |report| !report.owned.is_empty()).await;
        // Seven times within 5 s, and then periodically.
        let patience = Clock::now() + Duration::from_secs(5) + 2 * GRATUITOUS_INTERVAL + TIMEOUT;
        while owner.metrics.announcements_sent.get() < 9 {
            assert!(Clock::now() < patience, "{} times", owner.metrics.announcements_sent.get());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_stuck_main_loop_hands_the_addresses_over() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let names = if order("node1", VIP.into()) < order("node2", VIP.into()) {
            HOSTS
        } else {
            ["node2", "node1"]
        };
        // The owner's main loop sends no heartbeat; after five seconds it counts as stalled.
        let watchdog = Arc::new(Watchdog::new(Clock::now()));
        let mut owner = TestSpeaker::on_link(
            &lan,
            names[0],
            "eth0",
            &[VIP.into()],
            Arc::clone(&watchdog),
            Arc::default(),
        );
        let mut other = TestSpeaker::start(&lan, names[1], &[VIP.into()]);
        owner.until("claimed the address", |report| !report.owned.is_empty()).await;
        owner.until("handed over", |report| report.owned.is_empty()).await;
        other.until("took over", |report| !report.owned.is_empty()).await;
        assert_eq!(other.metrics.node_failures.get(), 0);
        lan.client_learns(VIP, other.mac).await;
    });
}

#[test]
fn addresses_outside_every_prefix_of_the_link_are_answered_for() {
    let lan = Segment::new(&HOSTS);
    let far: [IpAddr; 2] =
        ["203.0.113.5".parse().expect("an address"), "2001:db8::5".parse().expect("an address")];
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &far).await;
        for prefix in ["203.0.113.0/24", "2001:db8::/64"] {
            lan.ip("-n", "client", &format!("route add {prefix} dev eth0"));
        }
        for address in far {
            lan.client_learns(address, owner.mac).await;
        }
    });
}
