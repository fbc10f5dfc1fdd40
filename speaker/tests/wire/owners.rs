//! The owner of an address on a segment, and its successor: two speakers and their failures.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::order;
use ferrolb_proto::wire::{arp, hello};
use ferrolb_runtime::clock::Clock;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker::link::Siblings;
use ferrolb_speaker::metrics::DropReason;
use ferrolb_speaker_core::claim::ConflictKind;
use ferrolb_speaker_core::event::LinkReport;
use ferrolb_speaker_core::plan::{LinkConfig, Units};
use tokio::time::timeout;

use crate::raw_socket::{RawSocket, plain_replies};
use crate::segment::{Segment, wait_for_output};
use crate::speaker::{
    BOTH_VIPS, GRATUITOUS_INTERVAL, HOSTS, TIMEOUT, TestSpeaker, VIP, VIP6, healthy_watchdog, key,
    link_config, runtime, start_pair, wait_for_count, wait_for_either,
};

#[test]
fn the_other_speaker_takes_over_after_the_owner_fails() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = start_pair(&lan, &[VIP.into()]).await;
        lan.client_learns(VIP, owner.mac).await;
        let (failed_at, before) = (Clock::now(), other.metrics.announcements_sent.get());
        drop(owner.handle);
        other.wait_until("took over the addresses", |report| !report.owned.is_empty()).await;
        let took = Clock::now().since(failed_at);
        println!("the other speaker took over {took:?} after the owner failed");
        assert!(took < Duration::from_secs(1), "{took:?}");
        lan.client_learns(VIP, other.mac).await;
        assert!(
            other.metrics.announcements_sent.get() >= before + 2,
            "the new owner announces the address"
        );
        assert_eq!((other.metrics.node_failures.get(), other.metrics.owned.get()), (1, 1));
    });
}

#[test]
fn an_ipv6_address_moves_after_its_owner_fails() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, mut other) = start_pair(&lan, &[VIP6.into()]).await;
        lan.client_learns(VIP6, owner.mac).await;
        assert!(owner.metrics.replies_sent.get() >= 1);
        let replies_before = other.metrics.replies_sent.get();
        drop(owner.handle);
        other.wait_until("took over the addresses", |report| !report.owned.is_empty()).await;
        // The client learns the new owner from an advertisement with the override flag alone.
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.announcements_sent.get() >= 1, "the new owner announces the address");
        // Requests from a client that resolves the address, and from one that is about to use the
        // address itself.
        lan.ip("-n", "client", "neighbor del fd30::200 dev eth0");
        lan.client_learns(VIP6, other.mac).await;
        assert!(other.metrics.replies_sent.get() > replies_before);
        lan.ip("-n", "client", "address add fd30::200/128 dev eth0");
        let addresses = || lan.ip("-n", "client", "address show dev eth0");
        wait_for_output("the result of duplicate address detection", addresses, |shown| {
            shown.contains("dadfailed")
        })
        .await;
    });
}

#[test]
fn a_leaving_speaker_hands_over_its_addresses() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (mut owner, mut other) = start_pair(&lan, &[VIP.into()]).await;
        owner.handle.set_config(LinkConfig { leaving: true, ..link_config(&[VIP.into()]) }.into());
        owner.wait_until("handed over the address", |report| report.handed_over).await;
        assert!(!owner.owns_any());
        other.wait_until("took over the addresses", |report| !report.owned.is_empty()).await;
        lan.client_learns(VIP, other.mac).await;
        assert_eq!(other.metrics.node_failures.get(), 0, "a handover counts as no failure");
    });
}

#[test]
fn frames_to_other_hosts_and_invalid_hellos_get_no_reply() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &BOTH_VIPS).await;
        let client = RawSocket::open(&lan, "client", "eth0");
        let mut other_host_request = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
        other_host_request[..6].copy_from_slice(&[2, 0, 0, 0, 0, 99]);
        client.send(&other_host_request);
        let mut hellos = [[0; 80]; 3];
        for (hello, version) in hellos.iter_mut().zip([hello::VERSION, 9, hello::VERSION]) {
            hello[..6].copy_from_slice(&hello::GROUP.0);
            hello[6..12].copy_from_slice(&client.mac.0);
            hello[12..14].copy_from_slice(&hello::ETHER_TYPE.to_be_bytes());
            hello[14] = version;
        }
        // The first hello has an unknown key id. The second has another version. The third has the
        // speakers' key id, but no signature.
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
fn an_interface_that_goes_down_is_reported() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let mut speaker = TestSpeaker::start(&lan, "node1", &[VIP.into()]);
        speaker.wait_until("reported its state", |_| true).await;
        lan.ip("-n", "node1", "link set eth0 down");
        let failed = timeout(TIMEOUT, speaker.thread_state.wait_for(Result::is_err))
            .await
            .expect("a report")
            .unwrap()
            .clone();
        let error = failed.unwrap_err();
        assert!(error.contains("carries no frames"), "{error}");
    });
}

#[test]
fn the_lower_of_two_interfaces_on_a_segment_announces() {
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
        lower.wait_until("claimed the address", |report| !report.owned.is_empty()).await;
        let mut upper = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth1",
            &[VIP.into()],
            healthy_watchdog(),
            siblings,
        );
        upper.wait_until("became a standby interface", |report| report.standby).await;
        let mut other = TestSpeaker::start(&lan, "node2", &[VIP.into()]);
        other.wait_until("received hellos of node1", |report| report.speakers.len() == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            upper
                .thread_state
                .borrow()
                .as_ref()
                .is_ok_and(|report| report.standby && report.owned.is_empty())
        );
        assert!(lower.thread_state.borrow().as_ref().is_ok_and(|report| !report.standby));
        // The lower interface's thread ends: the upper interface becomes active after a while.
        drop(lower.handle);
        upper.wait_until("became active", |report| !report.standby).await;
    });
}

#[test]
fn the_selected_of_two_interfaces_on_a_segment_announces() {
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
        lower.wait_until("claimed the address", |report| !report.owned.is_empty()).await;
        let mut upper = TestSpeaker::on_link(
            &lan,
            "node1",
            "eth1",
            &[VIP.into()],
            healthy_watchdog(),
            Arc::clone(&siblings),
        );
        upper.wait_until("became a standby interface", |report| report.standby).await;
        // The advertisement names eth1 from now on.
        siblings.set_selected(lan.index_of("node1", "eth0"), false);
        lower.handle.set_config(Arc::new(LinkConfig {
            units: Units::default(),
            ..link_config(&[VIP.into()])
        }));
        upper
            .wait_until("claimed the address", |report| !report.standby && !report.owned.is_empty())
            .await;
        lower
            .wait_until("became a standby interface", |report| {
                report.standby && report.owned.is_empty()
            })
            .await;
        lan.client_learns(VIP, upper.mac).await;
    });
}

/// Checks that no speaker owns a new address that the client uses, and that one speaker claims the
/// address once the client releases it.
fn check_claim_of_used_address(address: IpAddr) {
    let lan = Segment::new(&HOSTS);
    let ip_arguments = if address.is_ipv4() {
        format!("{address}/32 dev eth0")
    } else {
        format!("{address}/128 dev eth0 nodad")
    };
    lan.ip("-n", "client", &format!("address add {ip_arguments}"));
    runtime().block_on(async {
        let mut pair = HOSTS.map(|name| TestSpeaker::start(&lan, name, &[address]));
        // On a busy machine the second candidate may receive no hello at first, and be the
        // speaker that probes the address.
        let conflict_found =
            |report: &LinkReport| report.owned.is_empty() && report.conflicts.len() == 1;
        let finder =
            &pair[wait_for_either(&mut pair, "found the foreign host", conflict_found).await];
        let conflict =
            finder.thread_state.borrow().as_ref().expect("the thread runs").conflicts[0].clone();
        assert_eq!((conflict.mac, conflict.kind), (lan.mac("client"), ConflictKind::ForeignHost));
        assert!(finder.metrics.foreign_frames.get() >= 1);
        // The other speaker may have claimed the address at the same time.
        for speaker in &mut pair {
            speaker
                .wait_until("left the address to the foreign host", |report| {
                    report.owned.is_empty()
                })
                .await;
        }
        lan.ip("-n", "client", &format!("address del {}", ip_arguments.trim_end_matches(" nodad")));
        let claimed = |report: &LinkReport| report.owned.len() == 1 && report.conflicts.is_empty();
        wait_for_either(&mut pair, "claimed the address again", claimed).await;
        // Both speakers may have claimed the address at once: the better claim stays.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let owners: Vec<_> = pair.iter().filter(|speaker| speaker.owns_any()).collect();
        let [owner] = owners[..] else { panic!("{} speakers own the address", owners.len()) };
        lan.client_learns(address, owner.mac).await;
    });
}

#[test]
fn an_ipv4_address_of_a_foreign_host_is_claimed_once_it_is_free() {
    check_claim_of_used_address(VIP.into());
}

#[test]
fn an_ipv6_address_of_a_foreign_host_is_claimed_once_it_is_free() {
    check_claim_of_used_address(VIP6.into());
}

#[test]
fn an_address_is_announced_at_the_gratuitous_interval() {
    let lan = Segment::new(&["node1"]);
    runtime().block_on(async {
        let mut owner = TestSpeaker::start(&lan, "node1", &[VIP6.into()]);
        owner.wait_until("claimed the address", |report| !report.owned.is_empty()).await;
        // The owner announces the address seven times within 5 s, and then periodically.
        let deadline = Clock::now() + Duration::from_secs(5) + 2 * GRATUITOUS_INTERVAL + TIMEOUT;
        while owner.metrics.announcements_sent.get() < 9 {
            assert!(
                Clock::now() < deadline,
                "the owner has sent only {} announcements",
                owner.metrics.announcements_sent.get()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_stalled_main_loop_hands_over_the_addresses() {
    let lan = Segment::new(&HOSTS);
    runtime().block_on(async {
        let names = if order("node1", &VIP.to_string()) < order("node2", &VIP.to_string()) {
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
        owner.wait_until("claimed the address", |report| !report.owned.is_empty()).await;
        owner.wait_until("handed over the address", |report| report.owned.is_empty()).await;
        other.wait_until("took over the addresses", |report| !report.owned.is_empty()).await;
        assert_eq!(other.metrics.node_failures.get(), 0);
        lan.client_learns(VIP, other.mac).await;
    });
}

#[test]
fn addresses_outside_the_prefixes_of_an_interface_get_replies() {
    let lan = Segment::new(&HOSTS);
    let addresses: [IpAddr; 2] =
        ["203.0.113.5".parse().expect("an address"), "2001:db8::5".parse().expect("an address")];
    runtime().block_on(async {
        let (owner, _other) = start_pair(&lan, &addresses).await;
        for prefix in ["203.0.113.0/24", "2001:db8::/64"] {
            lan.ip("-n", "client", &format!("route add {prefix} dev eth0"));
        }
        for address in addresses {
            lan.client_learns(address, owner.mac).await;
        }
    });
}
